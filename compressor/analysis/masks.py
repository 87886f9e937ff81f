"""Measures of masks: how far two are apart, how dense each layer is, and whether whole inputs went.

Pure functions of bool arrays, True where a weight is kept.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..mask import BoolArray


def jaccard_distance(first: BoolArray, second: BoolArray) -> float:
    """Return 1 - |A and B| / |A or B| of the kept entries; 0 for two masks that keep nothing.

    Two independent masks of density q are about 1 - q / (2 - q) apart; a mask S within T exactly 1 - |S| / |T|.

    Args:
        first: bool array.
        second: bool array of the same shape.
    """
    union = int(np.count_nonzero(first | second))
    return 1 - int(np.count_nonzero(first & second)) / union if union else 0.0


def hamming_distance(first: BoolArray, second: BoolArray) -> float:
    """Return the share of entries in which two masks of one shape differ; 0 for empty ones."""
    return float(np.count_nonzero(first != second) / first.size) if first.size else 0.0


def pooled_distance(first: Mapping[str, BoolArray], second: Mapping[str, BoolArray]) -> float:
    """Return the Jaccard distance of all layers taken together; both hold the same names."""
    shared = sum(int(np.count_nonzero(first[name] & second[name])) for name in first)
    union = sum(int(np.count_nonzero(first[name] | second[name])) for name in first)
    return 1 - shared / union if union else 0.0


def density(mask: BoolArray) -> float:
    """Return the share of kept entries; 1 for a tensor without entries."""
    return float(np.count_nonzero(mask) / mask.size) if mask.size else 1.0


def structure_index(mask: BoolArray, axis: int = 1) -> float | None:
    """Return how much more the densities of a layer's inputs differ than chance would make them.

    The variance of the number of kept entries over the units of ``axis``, divided by the variance that dropping entries
    at random gives (hypergeometric): about 1 for a random mask, much more where whole inputs went, less than 1 where
    all inputs lose alike.

    Args:
        mask: of a layer [outputs, inputs, *kernel].
        axis: whose units are compared; 1 for inputs, 0 for outputs.

    Returns:
        the ratio; None for a single unit, and for a mask that keeps all or nothing.
    """
    rows = np.moveaxis(mask, axis, 0).reshape(mask.shape[axis], -1)
    units, size = rows.shape
    total, kept = mask.size, int(np.count_nonzero(mask))
    if units < 2 or kept in (0, total):
        return None
    expected = size * (kept / total) * (1 - kept / total) * (total - size) / (total - 1)
    counts = np.count_nonzero(rows, axis=1)
    mean = kept / units
    return math.fsum((count - mean) ** 2 for count in counts) / units / expected


def constant_class(predicted: npt.NDArray[np.int64]) -> int | None:
    """Return the class when every prediction is the same one, else None; a collapsed network predicts constants."""
    found = np.unique(predicted)
    return int(found[0]) if found.size == 1 else None
