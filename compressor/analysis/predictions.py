"""Measures of predictions: where two networks agree, and what several say together.

Pure functions of class probabilities [examples, classes].
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ...files import Array


def softmax(outputs: Array) -> Array:
    """Return class probabilities (float64) of outputs [examples, classes]."""
    shifted = outputs.astype(np.float64) - outputs.max(axis=1, keepdims=True)
    powers = np.exp(shifted)
    result: Array = powers / powers.sum(axis=1, keepdims=True)
    return result


def agreement(first: Array, second: Array) -> int:
    """Return for how many examples the largest entry is of the same class.

    With accuracies a and b over n examples it is at least n (a + b - 1).
    """
    return int(np.count_nonzero(first.argmax(axis=1) == second.argmax(axis=1)))


def accuracy(probabilities: Array, labels: Array) -> float:
    """Return the share of examples whose largest entry is of the labelled class."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))


def ensemble_accuracy(members: Sequence[Array], labels: Array) -> float:
    """Return the accuracy of the mean of the members' class probabilities."""
    return accuracy(np.mean(np.stack(members), axis=0), labels)
