"""Seed record in, tensor out: the numpy side of what numpy, torch and an ONNX graph all draw bit for bit.

    uniform, philox4x32-10   w = float32(u - 2**23) * (float32(bound) * 2**-23),  u = word >> 8
    uniform, keyed-product   w = float32(product) * (float32(bound) * 2**-31)
    signed-constant          +bound where the word's top bit is set (philox) or the product is positive, else -bound
    constant                 bound
    hadamard                 Sylvester's matrix times bound, its first rows and columns; takes no random word

The scale factors are powers of two away from ``bound``, so each weight is rounded once by the multiplication (and once
more by the cast of a 32-bit product); there is no addition that a compiler could contract into a fused one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError
from .keyed_product import product_chunks
from .philox import Words, word_chunks
from .record import GENERATORS, HADAMARD, PHILOX, REBUILDABLE, SeedRecord

FloatArray = npt.NDArray[np.float32]

_MIDDLE = np.uint32(2**23)
_CHUNK = 1 << 18


def check_record(record: SeedRecord, known: Sequence[str] = (*REBUILDABLE, HADAMARD)) -> None:
    """Raise :class:`FileFormatError` unless the record names a known generator and initialiser and sane numbers.

    Args:
        record: of a file.
        known: the initialisers that are accepted.
    """
    if record.generator not in GENERATORS:
        raise FileFormatError(
            f"the seed record of '{record.name}' names the unknown generator '{record.generator}'; "
            f"this release knows {' and '.join(GENERATORS)}."
        )
    if record.initialiser not in known:
        raise FileFormatError(
            f"the seed record of '{record.name}' names the initialiser '{record.initialiser}', which no seed rebuilds; "
            f"this release knows {', '.join(known)}."
        )
    if not 0 <= record.seed < 2**32:
        raise FileFormatError(f"the seed record of '{record.name}' holds the seed {record.seed}, outside 32 bits.")
    if not math.isfinite(record.bound) or abs(record.bound) > float(np.finfo(np.float32).max):
        raise FileFormatError(f"the seed record of '{record.name}' holds the bound {record.bound}, no finite float32.")


def rebuild(record: SeedRecord, shape: tuple[int, ...], start: int = 0, count: int | None = None) -> FloatArray:
    """Draw a tensor, or a flat slice of it, again.

    Args:
        record: how it was drawn.
        shape: the whole tensor's shape (the keyed product depends on it).
        start: first flat row-major position of the slice.
        count: the slice's length; None for the whole tensor in its shape.

    Returns:
        float32, ``shape`` when ``count`` is None and ``start`` is 0, else 1-D.

    Raises:
        FileFormatError: the record is malformed or from a later release.
        ValueError: the slice leaves the tensor.
    """
    check_record(record)
    total = math.prod(shape)
    whole = count is None and start == 0
    length = total - start if count is None else count
    if not 0 <= start <= start + length <= total:
        raise ValueError(f"weights {start} to {start + length} are outside the shape {shape}.")
    out = np.empty(length, np.float32)
    if record.initialiser == "constant":
        out.fill(np.float32(record.bound))
    elif record.initialiser == HADAMARD:
        for position in range(0, length, _CHUNK):
            flat = np.arange(start + position, start + min(position + _CHUNK, length))
            out[position : position + flat.size] = _sylvester(flat, shape) * np.float32(record.bound)
    else:
        convert = converter(record)
        for position, piece in _words(record, shape, start, length):
            out[position : position + piece.size] = convert(piece)
    return out.reshape(shape) if whole else out


def _sylvester(flat: npt.NDArray[np.int64], shape: tuple[int, ...]) -> FloatArray:
    """Return (-1)**popcount(row & column) at flat positions; the rows of 2**n columns are orthogonal."""
    row, column = np.divmod(flat, math.prod(shape[1:]))
    return np.where(np.bitwise_count(row & column) & 1, np.float32(-1), np.float32(1))


def converter(record: SeedRecord) -> Callable[[Words], FloatArray]:
    """Return what turns a tensor's 32-bit words (Philox) or products (keyed product) into weights; not for constants.

    Args:
        record: checked by :func:`check_record`.
    """
    bound = np.float32(record.bound)

    def signed(drawn: Words) -> npt.NDArray[np.int32]:
        number = (drawn >> np.uint32(8)) - _MIDDLE if record.generator == PHILOX else drawn
        return number.view(np.int32)

    if record.initialiser == "signed-constant":
        return lambda drawn: np.where(signed(drawn) >= 0, bound, -bound)
    scale = bound * np.float32(2.0**-23 if record.generator == PHILOX else 2.0**-31)
    return lambda drawn: signed(drawn).astype(np.float32) * scale


def _words(record: SeedRecord, shape: tuple[int, ...], start: int, length: int) -> Iterator[tuple[int, Words]]:
    if record.generator == PHILOX:
        yield from word_chunks(record.seed, record.name, start, length)
        return
    for position, products in product_chunks(record.seed, record.name, shape, start, length):
        yield position, products.view(np.uint32)
