"""The k-th largest of many arrays at once, exactly, without sorting or joining them.

In: arrays of scores (any float dtype) and k. Out: a :class:`Threshold`. Floats map to unsigned integers of the same
order, and a radix search over 16 bits at a time (two passes for float32, four for float64) finds the k-th largest by
counting; extra memory is a few chunks, whatever the size of the model. A few scores are sorted partially instead.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from ..files import Array
from .mask import BoolArray

# Small enough for a core's own cache, large enough that the 65,536 counters are not the main cost of a chunk.
CHUNK = 1 << 17
_DIGIT = 16


class Threshold(NamedTuple):
    """Where selection cuts.

    Attributes:
        value: the k-th largest score.
        greater: how many scores are larger.
        equal: how many scores equal it; greater < k <= greater + equal.
    """

    value: float
    greater: int
    equal: int


def sortable(scores: Array, dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return unsigned integers in the order of ``scores``; equal floats (0.0 and -0.0 too) give equal integers.

    No finite score and no infinity maps to 0, which is free to mean "not a candidate".

    Args:
        scores: floats without NaN.
        dtype: float32 or float64, the precision to compare in.
    """
    # Adding zero turns -0.0 into 0.0.
    floats = scores.astype(dtype, copy=False) + np.dtype(dtype).type(0)
    bits = floats.view(np.int32 if floats.itemsize == 4 else np.int64)
    unsigned = floats.view(np.uint32 if floats.itemsize == 4 else np.uint64)
    width = 8 * floats.itemsize
    # Negative numbers count downwards: all their bits flip; of the others only the sign bit does.
    flip: npt.NDArray[Any] = (bits >> (width - 1)).view(unsigned.dtype)
    flip |= unsigned.dtype.type(1 << (width - 1))
    flip ^= unsigned
    return flip


def common_dtype(scores: Sequence[Array]) -> np.dtype[Any]:
    """Return float64 when any array needs it, else float32 (float16 and bfloat16 fit into it)."""
    wide = any(array.dtype.itemsize > 4 or array.dtype.kind in "iu" for array in scores)
    return np.dtype(np.float64 if wide else np.float32)


def kth_largest(scores: Sequence[Array], k: int, within: Sequence[BoolArray] | None = None) -> Threshold:
    """Find the k-th largest of all scores.

    Args:
        scores: 1-D arrays without NaN.
        k: 1 <= k <= the number of candidates.
        within: which entries are candidates, one mask for each array; None: all.
    """
    dtype = common_dtype(scores)
    if sum(array.size for array in scores) <= CHUNK:
        return _partition(np.concatenate(list(_keys(scores, dtype, within))), k, dtype)
    width = 8 * dtype.itemsize
    prefix, greater, equal = 0, 0, 0
    for shift in range(width - _DIGIT, -1, -_DIGIT):
        counts = np.zeros(1 << _DIGIT, np.int64)
        for keys in _keys(scores, dtype, within):
            if shift + _DIGIT < width:
                keys = keys[(keys >> keys.dtype.type(shift + _DIGIT)) == keys.dtype.type(prefix)]
            digits = keys >> keys.dtype.type(shift)
            digits &= keys.dtype.type((1 << _DIGIT) - 1)
            counts += np.bincount(digits.astype(np.intp), minlength=counts.size)
        above = np.cumsum(counts[::-1])[::-1]
        # The last digit whose count from above still reaches k.
        digit = int(np.searchsorted(-above, -(k - greater), side="right")) - 1
        equal = int(counts[digit])
        greater += int(above[digit]) - equal
        prefix = (prefix << _DIGIT) | digit
    return Threshold(_float(prefix, dtype), greater, equal)


def _partition(keys: npt.NDArray[Any], k: int, dtype: np.dtype[Any]) -> Threshold:
    # Below some hundred thousand scores a partial sort is faster than 65,536 counters.
    key = np.partition(keys, keys.size - k)[keys.size - k]
    return Threshold(_float(int(key), dtype), int(np.count_nonzero(keys > key)), int(np.count_nonzero(keys == key)))


def _keys(
    scores: Sequence[Array], dtype: np.dtype[Any], within: Sequence[BoolArray] | None
) -> Iterator[npt.NDArray[Any]]:
    for number, array in enumerate(scores):
        for start in range(0, array.size, CHUNK):
            keys = sortable(array[start : start + CHUNK], dtype)
            if within is not None:
                keys *= within[number][start : start + CHUNK]
            yield keys


def _float(key: int, dtype: np.dtype[Any]) -> float:
    width = 8 * dtype.itemsize
    top = 1 << (width - 1)
    bits = key ^ top if key & top else key ^ ((1 << width) - 1)
    return float(np.array(bits, f"u{dtype.itemsize}").view(dtype))
