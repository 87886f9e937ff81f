"""Positions as 8-bit gaps, as the operators read them: no entropy coding, so that a session loads fast.

Each byte says how many zeros lie before the next stored weight; 255 means "255 further, and no weight here".
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...compressor.mask import BoolArray
from ...errors import FileFormatError
from ...files import Array

ESCAPE = 255


def nonzero_bits(weight: Array) -> BoolArray:
    """Return where a weight's bits are not all zero, in its shape: -0.0 and NaN are values, only +0.0 is none."""
    words: Array = np.ascontiguousarray(weight).reshape(-1).view(f"<u{weight.dtype.itemsize}")
    mask: BoolArray = (words != 0).reshape(weight.shape)
    return mask


def pack(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Return the gap bytes of a mask, row-major."""
    positions = np.flatnonzero(mask)
    escapes, last = np.divmod(np.diff(positions, prepend=-1) - 1, ESCAPE)
    ends = np.cumsum(escapes + 1)
    stream = np.full(int(ends[-1]) if positions.size else 0, ESCAPE, np.uint8)
    stream[ends - 1] = last
    return stream


def unpack(gaps: npt.NDArray[np.uint8], shape: tuple[int, ...], stored: int) -> BoolArray:
    """Return the mask that gap bytes stand for.

    Args:
        gaps: from a file.
        shape: of the weight.
        stored: how many values lie beside the gaps.

    Raises:
        FileFormatError: they list another number of weights, or run past the end.
    """
    mask = np.zeros(shape, np.bool_)
    entries = np.flatnonzero(gaps != ESCAPE)
    if entries.size != stored or (gaps.size and (not entries.size or int(entries[-1]) != gaps.size - 1)):
        raise FileFormatError(
            f"gaps list {entries.size} weights and {stored} values are stored, or an escape is loose."
        )
    positions = np.cumsum(gaps, dtype=np.int64)[entries] + np.arange(stored)
    if stored and int(positions[-1]) >= mask.size:
        raise FileFormatError(f"gaps run to position {int(positions[-1])} of a weight of {mask.size}.")
    mask.reshape(-1)[positions] = True
    return mask
