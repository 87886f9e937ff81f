"""How much trained weights change from round to round, and whether their order by magnitude stays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ...files import Array
from ..mask import BoolArray


def mean_change(before: Array, after: Array, alive: BoolArray) -> float | None:
    """Return the mean of |w_i - w_(i-1)| over the weights alive in both rounds; lower is more stable.

    Weights pruned in between are left out: counted as zeros they would measure the pruning.

    Args:
        before: the layer's weights at the end of a round.
        after: at the end of the next.
        alive: which weights both rounds keep.

    Returns:
        the mean; None when no weight is alive.
    """
    if not alive.any():
        return None
    return float(np.abs(after[alive].astype(np.float64) - before[alive]).mean())


def rank_correlation(before: Array, after: Array, alive: BoolArray) -> float | None:
    """Return Spearman's correlation of the magnitudes of the weights alive in both rounds.

    Args:
        before: the layer's weights at the end of a round.
        after: at the end of the next.
        alive: which weights both rounds keep.

    Returns:
        in [-1, 1]; None for fewer than two weights, or where all magnitudes are equal.
    """
    if np.count_nonzero(alive) < 2:
        return None
    first, second = average_ranks(np.abs(before[alive])), average_ranks(np.abs(after[alive]))
    first, second = first - first.mean(), second - second.mean()
    scale = float(np.sqrt((first @ first) * (second @ second)))
    return float(first @ second) / scale if scale else None


def average_ranks(values: Array) -> npt.NDArray[np.float64]:
    """Return the rank of each value from 0; equal values share the mean of their ranks."""
    order = np.argsort(values, kind="stable")
    ordered = values[order]
    begins = np.flatnonzero(np.r_[True, ordered[1:] != ordered[:-1]])
    ends = np.r_[begins[1:], len(values)]
    ranks = np.empty(len(values), np.float64)
    ranks[order] = np.repeat((begins + ends - 1) / 2, ends - begins)
    return ranks


def mean_of(values: Sequence[float | None]) -> float | None:
    """Return the mean of those that are numbers; None when there are none."""
    found = [value for value in values if value is not None]
    return float(np.mean(found)) if found else None
