"""Views of a data set: corrupted ones, and several tasks out of one.

Corrupted: what a mask owes to the data shows when the data says nothing (Su et al., NeurIPS 2020: random labels,
shuffled pixels for the stage that finds the mask). Tasks: what Wortsman et al. 2020 (SupSup) train one mask each on.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...errors import UsageError
from ...models.dataset import Dataset
from ...models.seeding.shuffle import permutation


def random_labels(data: Dataset, seed: int) -> Dataset:
    """Return the data with the training labels in a random order."""
    return replace(data, train_labels=data.train_labels[permutation(seed, "views/labels", len(data.train_labels))])


def shuffled_pixels(data: Dataset, seed: int) -> Dataset:
    """Return the data with the positions of every training input in one random order, the same for all examples."""
    inputs = data.train_inputs
    order = permutation(seed, "views/pixels", inputs[0].size)
    return replace(data, train_inputs=inputs.reshape(len(inputs), -1)[:, order].reshape(inputs.shape))


VIEWS: dict[str, Callable[[Dataset, int], Dataset]] = {
    "random-labels": random_labels,
    "shuffled-pixels": shuffled_pixels,
}


def permuted_pixels(data: Dataset, seed: int, task: int, tasks: int) -> Dataset:
    """Return the data with the positions of all its inputs, of both splits, in a random order of the task's own.

    The channels of a position stay together. The first task (0) is the data as it is.
    """
    if task == 0:
        return data
    # Images are [N, channels, height, width]; of anything else every entry is a place.
    kept = 2 if data.train_inputs.ndim == 4 else 1
    flat = [inputs.reshape(*inputs.shape[:kept], -1) for inputs in (data.train_inputs, data.test_inputs)]
    order = permutation(seed, f"views/task/{task}", flat[0].shape[-1])
    train, test = (view[..., order].reshape(len(view), *data.train_inputs.shape[1:]) for view in flat)
    return replace(data, train_inputs=train, test_inputs=test)


def split_classes(data: Dataset, seed: int, task: int, tasks: int) -> Dataset:
    """Return the examples of the task's share of the classes: the first share for task 0, and so on.

    Labels keep their numbers, so that every task uses the same outputs of the network as the whole data would.

    Raises:
        UsageError: there are fewer classes than tasks.
    """
    if data.classes < tasks:
        raise UsageError(f"'{data.name}' has {data.classes} classes, which cannot be split into {tasks} tasks.")
    share = np.array_split(np.arange(data.classes), tasks)[task]
    train, test = (np.isin(labels, share) for labels in (data.train_labels, data.test_labels))
    return replace(
        data,
        train_inputs=data.train_inputs[train],
        train_labels=data.train_labels[train],
        test_inputs=data.test_inputs[test],
        test_labels=data.test_labels[test],
    )


# Data, seed, number of the task, number of tasks -> the task's data.
TASK_VIEWS: dict[str, Callable[[Dataset, int, int, int], Dataset]] = {
    "permuted-pixels": permuted_pixels,
    "split-classes": split_classes,
}
