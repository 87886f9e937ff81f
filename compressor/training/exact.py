"""Exact top-k for masks that move while training, where a selection comes every step and tensors are small.

The result is that of ``selection.top_k``, tie rule included; below some hundred thousand scores a partial sort beats
its counting passes.
"""

from __future__ import annotations

import numpy as np

from ...errors import TrainingDivergedError
from ...files import Array
from ..mask import BoolArray
from ..selection import top_k

_SMALL = 1 << 17


def keep_largest(scores: Array, k: int) -> BoolArray:
    """Keep the ``k`` largest entries; among equal ones the earlier.

    Args:
        scores: 1-D, float.
        k: 0 <= k <= scores.size.

    Returns:
        Bool, 1-D, with exactly ``k`` True.

    Raises:
        TrainingDivergedError: a score is NaN.
    """
    if k in (0, scores.size):
        return np.full(scores.size, k > 0)
    if scores.size <= _SMALL:
        cut = np.partition(scores, scores.size - k)[scores.size - k]
        mask: BoolArray = scores >= cut
        if np.count_nonzero(mask) == k:
            return mask
    if np.isnan(scores).any():
        raise TrainingDivergedError("a weight, score or gradient became NaN; lower the learning rate or add warm-up.")
    return top_k([scores], k)[0]
