"""Top-1 accuracy on a test split that is counted by hand."""

from __future__ import annotations

import numpy as np
import pytest

from sparsepack.errors import DataError, UnsupportedError
from sparsepack.files import Array
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.runtimes.measure.accuracy import top1


class Scores:
    """A session whose scores are its inputs; counts what it was given."""

    notes: tuple[str, ...] = ()

    def __init__(self, fixed_batch: int | None = None, outputs: int = 4) -> None:
        self.fixed_batch = fixed_batch
        self.outputs = outputs
        self.seen = 0

    def run(self, *inputs: Array) -> Array:
        self.seen += len(inputs[0])
        scores: Array = inputs[0][:, : self.outputs]
        return scores


def data(correct: int, count: int = 20) -> Dataset:
    """Return a test split of one-hot inputs of which exactly ``correct`` point at their label."""
    labels = np.arange(count) % 4
    pointing = labels.copy()
    pointing[correct:] = (labels[correct:] + 1) % 4
    inputs = np.eye(4, dtype=np.float32)[pointing]
    return make_dataset("by hand", inputs[:8], labels[:8], inputs, labels)


@pytest.mark.parametrize("correct", [0, 1, 13, 20])
def test_the_share_of_right_answers(correct: int) -> None:
    assert top1(Scores(), data(correct)) == correct / 20


def test_a_fixed_batch_size_changes_nothing_and_no_example_counts_twice() -> None:
    session = Scores(fixed_batch=8)
    assert top1(session, data(13)) == 13 / 20
    assert session.seen == 24


def test_too_few_scores_are_refused() -> None:
    with pytest.raises(DataError, match=r"shape \(3,\) per example; accuracy on by hand needs 4 scores"):
        top1(Scores(outputs=3), data(5))


def test_scores_that_are_no_numbers_are_refused() -> None:
    class Broken(Scores):
        def run(self, *inputs: Array) -> Array:
            return super().run(*inputs) * np.float32(np.nan)

    with pytest.raises(UnsupportedError, match="NaN or infinity"):
        top1(Broken(), data(5))
