"""Lossy values: rounded to a shorter float, to 255 steps a channel, or to the entries of a codebook.

Pure functions on arrays. A codebook is the result of k-means in one dimension, begun on a line (Han et al. 2016, Deep
Compression, section 3: linear initialisation keeps the rare large weights, which matter most); int8 is symmetric with
one scale for each output unit. Values that are few enough for the codebook are kept as they are, so what was quantised
once is quantised again without loss.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..files import Array, numpy_dtype
from .value_types import CODEBOOK, INT8

INT8_LIMIT = 127
_MOST_ROUNDS = 300
# A table entry keeps 11 significant bits, a scale 8: errors of 1/4096 and 1/256 of themselves, for half the bytes.
_ENTRY_BITS, _SCALE_BITS = 11, 8
Units = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Coded:
    """Values as small numbers and the table that turns them into floats.

    Attributes:
        kind: ``int8`` (value = float32(code) * table[output unit]) or ``codebook`` (value = table[code]).
        codes: int8, or uint8; 1-D.
        table: 1-D; scales (float32, one an output unit), or the codebook in rising order, in the values' dtype.
        pooled: whether other tensors of the file use the same codebook.
    """

    kind: str
    codes: Array
    table: Array
    pooled: bool = False

    def decode(self, units: Units | None = None) -> Array:
        """Return the values, 1-D, in the table's dtype.

        Args:
            units: the output unit of each value; only ``int8`` needs them.
        """
        if self.kind == CODEBOOK:
            return self.table[self.codes]
        values: Array = self.codes.astype(np.float32)
        # A hostile scale may overflow; the hash of the tensor tells.
        with np.errstate(over="ignore", invalid="ignore"):
            values *= self.table[units]
        return values


def rounded(name: str, values: Array, dtype: str) -> tuple[Array, float]:
    """Round to a shorter float type (nearest, ties to even).

    Args:
        name: the tensor's, for the error.
        values: float32 or float64, any shape.
        dtype: ``float16`` or ``bfloat16``.

    Returns:
        the values in that type and the same shape, and the largest difference that rounding made.

    Raises:
        UnsupportedError: a finite value would become infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        result: Array = values.astype(numpy_dtype(dtype))
        wide = result.astype(values.dtype)
        overflown = np.isinf(wide) & np.isfinite(values)
        if overflown.any():
            worst = float(np.abs(values[overflown]).max())
            kind = "half precision (largest number 65504)" if dtype == "float16" else dtype
            raise UnsupportedError(
                f"tensor '{name}' holds {worst:.6g}, which {kind} cannot; export with --values fp32."
            )
        differences = np.abs(wide - values)
    finite = differences[np.isfinite(differences)]
    return result, float(finite.max()) if finite.size else 0.0


def units_of(positions: npt.NDArray[np.int64], shape: tuple[int, ...], axis: int) -> Units:
    """Return the index along ``axis`` of each flat position."""
    return positions // math.prod(shape[axis + 1 :]) % (shape[axis] if shape else 1)


def quantise_int8(name: str, values: Array, units: Units, count: int) -> Coded:
    """Round values to 255 steps, symmetric about zero, with one scale for each output unit.

    Scales are rounded up to eight significant bits, so that no value is clipped.

    Args:
        name: the tensor's, for the error.
        values: floats, 1-D.
        units: the output unit of each value.
        count: how many units there are.

    Returns:
        codes in [-127, 127] and ``count`` scales; 1 for a unit without values.

    Raises:
        UnsupportedError: a value is infinite, as float32 too, or no number.
    """
    largest = np.zeros(count, np.float32)
    # What is too large for a float32 scale becomes infinite here, and is refused with what was.
    with np.errstate(over="ignore"):
        narrow = values.astype(np.float32)
    require_finite(name, narrow)
    np.maximum.at(largest, units, np.abs(narrow))
    scales = shortened(largest / np.float32(INT8_LIMIT), _SCALE_BITS, up=True)
    _keep_steps(scales, largest / np.float32(INT8_LIMIT - 1), narrow, units)
    # The smallest scale that is a normal number; below it the quotient would lose its meaning.
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    codes = np.clip(np.rint(narrow / scales[units]), -INT8_LIMIT, INT8_LIMIT).astype(np.int8)
    return Coded(INT8, codes, scales)


def _keep_steps(
    scales: npt.NDArray[np.float32], steps: npt.NDArray[np.float32], values: npt.NDArray[np.float32], units: Units
) -> None:
    """Put back, in place, the scales of units whose values are whole multiples of a scale already.

    A scale that was rounded up may leave 126 as its largest code; 127 steps would then miss what 126 of them meet.
    """
    known = (steps > 0) & (shorten_scales(steps) == steps)
    if known.any():
        safe = np.where(known, steps, np.float32(1))[units]
        missed = np.rint(values / safe) * safe != values
        known[units[missed]] = False
        scales[known] = steps[known]


def shorten_entries(table: Array) -> Array:
    """Return codebook entries rounded to the significant bits that files keep."""
    short: Array = shortened(table.astype(np.float32), _ENTRY_BITS).astype(table.dtype)
    return short


def shorten_scales(scales: Array) -> Array:
    """Return scales rounded to the nearest number with the significant bits that files keep."""
    return shortened(scales, _SCALE_BITS)


def codebook(values: Array, bits: int) -> Array:
    """Return the codebook of some values: at most ``2**bits`` entries in rising order, in their dtype.

    Args:
        values: finite floats, any shape.
        bits: of a code, 1 to 8.
    """
    ordered = np.sort(values.astype(np.float32) if values.dtype.itemsize < 4 else values, axis=None)
    # Both zeros are one entry: the sign of a zero does not survive a codebook.
    distinct = ordered[np.flatnonzero(np.diff(ordered, prepend=np.nan) != 0)] + ordered.dtype.type(0)
    if distinct.size > 2**bits:
        centres = _lloyd(ordered.astype(np.float64), _line(ordered, 2**bits))
        distinct = np.unique(shorten_entries(centres.astype(values.dtype)))
    table: Array = distinct.astype(values.dtype)
    return table


def encode_codebook(name: str, values: Array, table: Array, *, pooled: bool = False) -> Coded:
    """Give every value the code of the nearest entry (of two equally near ones the lower).

    Raises:
        UnsupportedError: a value is infinite or no number.
    """
    require_finite(name, values)
    wide = table.astype(np.float64)
    codes = np.searchsorted((wide[:-1] + wide[1:]) / 2, values.astype(np.float64), side="left").astype(np.uint8)
    return Coded(CODEBOOK, codes, table, pooled)


def require_finite(name: str, values: Array) -> None:
    """Raise :class:`UnsupportedError` when a value is infinite or no number."""
    if not bool(np.isfinite(values).all()):
        raise UnsupportedError(f"tensor '{name}' holds values that are not finite; export it with --values fp32.")


def _line(ordered: Array, count: int) -> npt.NDArray[np.float64]:
    """Return ``count`` evenly spaced centres over the range of the values, less the hole that pruning left around 0."""
    split = int(np.searchsorted(ordered, 0, side="left"))
    parts = [part for part in (ordered[:split], ordered[split:]) if part.size]
    lengths = [float(part[-1]) - float(part[0]) for part in parts]
    along = np.linspace(0.0, sum(lengths), count)
    centres = float(parts[0][0]) + along
    if len(parts) > 1:
        centres = np.where(along > lengths[0], float(parts[1][0]) + along - lengths[0], centres)
    return centres


def _lloyd(ordered: npt.NDArray[np.float64], centres: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Move every centre to the mean of the values nearest to it until none moves; centres of nothing are dropped."""
    sums = np.concatenate([[0.0], np.cumsum(ordered)])
    for _ in range(_MOST_ROUNDS):
        edges = np.searchsorted(ordered, (centres[:-1] + centres[1:]) / 2, side="right")
        edges = np.concatenate([[0], edges, [ordered.size]])
        counts = np.diff(edges)
        moved = np.where(counts > 0, np.diff(sums[edges]) / np.maximum(counts, 1), centres)
        if (moved == centres).all():
            break
        centres = moved
    return centres[counts > 0]


def shortened(numbers: npt.NDArray[np.float32], significant: int, *, up: bool = False) -> npt.NDArray[np.float32]:
    """Round finite floats to ``significant`` bits: to the nearest, or away from zero; what would overflow stays."""
    spare = 24 - significant
    words = np.ascontiguousarray(numbers, np.float32).view(np.uint32)
    added = np.uint32((1 << spare) - 1 if up else 1 << (spare - 1))
    with np.errstate(over="ignore"):
        short = ((words + added) & np.uint32(~((1 << spare) - 1) & 0xFFFFFFFF)).view(np.float32)
    return np.where(np.isfinite(short), short, numbers).astype(np.float32)
