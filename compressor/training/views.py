"""Corrupted views of a data set: what a mask owes to the data shows when the data says nothing.

Source: Su et al., NeurIPS 2020 (random labels, shuffled pixels for the stage that finds the mask).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

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
