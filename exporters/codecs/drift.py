"""Trained values as their distance from what the seed drew: training moves a weight less than it draws it.

Floats of one type stand in an order in which neighbours are one unit apart; a distance is counted in it. How far
training moves a value hardly depends on the value, but a unit grows with its exponent, so that what is coded is about
the logarithm of the difference: the bits of the distance and the exponent of the drawn value together.

Stream: sections of 2**16 values each, the last of what is left, back to back. A section, for n floats of W <= 32 bits,
each beside the value of the same type that its seed draws:

    byte 0      the lowest class
    symbols     one byte each, through deflate (below)
    escapes     for each symbol 255, in order: the distance, W/8 bytes
    tails       for each distance d > 0: its low bits, above them 1 where the value lies below the drawn one; widths
                vary (:mod:`.bits`)

The class of a distance of L bits (0 for 0) is L + 31 - min(31, e - exponent), where ``exponent`` is the drawn value's
and e the largest of all n. With t = min(3, L - 1), the symbol is 8 (class - lowest) + the t bits below the highest one,
as the top ones of three; the low bits are the L - 1 - t below those. What would be 255 or more is an escape without
low bits.
"""

from __future__ import annotations

import numpy as np

from ...errors import FileFormatError
from ...files import Array
from . import bits
from .deflate import inflate_prefix
from .floats import FLOATS
from .huffman import cut, encode

DRIFT = "drift"
_ESCAPE = 255
_LAGS = 31
_TOP = 3
_MOST_BITS = 32
# Whole numbers of 64 bits stand for the values while they are coded, so that is done piece by piece.
_SECTION = 2**16
# Values that are coded to see whether all are worth drawing, and what their code must save to be.
_PROBE = 4096
_WORTH = 0.97


def applies(dtype: np.dtype[np.generic]) -> bool:
    """Tell whether values of a type can be written as distances from drawn ones."""
    return dtype.name in FLOATS and 8 * dtype.itemsize <= _MOST_BITS


def promises(values: Array, drawn: Array, size: int) -> bool:
    """Tell from the first values, and what the seed draws there, whether distances will take less than ``size`` bytes.

    Args:
        values: all of them, 1-D.
        drawn: what the seed draws for as many of the first as :func:`probe_size` says.
        size: of the stream to beat.
    """
    share = drawn.size / values.size
    return len(encode_drift(values[: drawn.size], drawn)) < _WORTH * share * size


def encode_drift(values: Array, drawn: Array) -> bytes:
    """Return the stream of ``values`` beside ``drawn`` (both 1-D, of one type, not empty)."""
    begins = range(0, values.size, _SECTION)
    return b"".join(_encode(values[i : i + _SECTION], drawn[i : i + _SECTION]) for i in begins)


def decode_drift(stream: bytes, drawn: Array) -> Array:
    """Return the values whose stream this is, beside what their seed draws.

    Args:
        stream: as :func:`encode_drift` wrote it.
        drawn: 1-D, of the values' type.

    Raises:
        FileFormatError: the stream is truncated, too long, or leaves the type.
    """
    if not applies(drawn.dtype) or drawn.size == 0:
        raise FileFormatError(f"a stream of distances does not fit {drawn.size} values of {drawn.dtype}.")
    values = np.empty_like(drawn)
    rest = memoryview(stream)
    for begin in range(0, drawn.size, _SECTION):
        values[begin : begin + _SECTION], rest = _decode(rest, drawn[begin : begin + _SECTION])
    if len(rest):
        raise FileFormatError(f"{len(rest)} bytes follow the end of a stream of distances.")
    return values


def _encode(values: Array, drawn: Array) -> bytes:
    signed = _ordered(values) - _ordered(drawn)
    distances = np.abs(signed)
    lengths = _lengths(distances)
    classes = lengths + _lags(drawn)
    lowest = int(classes.min())
    top, low = _split(lengths)
    fraction = (distances >> low & ((1 << top) - 1)) << (_TOP - top)
    symbols = np.minimum((classes - lowest << _TOP) + fraction, _ESCAPE)
    escaped = symbols == _ESCAPE
    low[escaped] = 0
    tails = distances & ((1 << low) - 1) | (signed < 0).astype(np.int64) << low
    escapes = distances[escaped].astype(f"<u{values.dtype.itemsize}")
    sections = (bytes([lowest]), encode(cut(symbols.astype(np.uint8))), escapes.tobytes())
    return b"".join([*sections, bits.pack_varied(tails, low + (distances > 0))])


def _decode(stream: memoryview, drawn: Array) -> tuple[Array, memoryview]:
    """Return the values of a section, and what follows it."""
    dtype = drawn.dtype
    if not len(stream):
        raise FileFormatError("a stream of distances ends early.")
    content, consumed = inflate_prefix(stream[1:], drawn.size)
    symbols, rest = np.frombuffer(content, np.uint8).astype(np.int64), stream[1 + consumed :]
    if symbols.size != drawn.size:
        raise FileFormatError(f"a stream of distances has {symbols.size} symbols for {drawn.size} values.")
    escaped = np.flatnonzero(symbols == _ESCAPE)
    size = escaped.size * dtype.itemsize
    lengths = (symbols >> _TOP) + stream[0] - _lags(drawn)
    lengths[escaped], symbols[escaped] = 0, 0
    top, low = _split(lengths)
    if int(lengths.min()) < 0 or int(lengths.max()) > 8 * dtype.itemsize or (symbols & (7 >> top)).any():
        raise FileFormatError("a stream of distances holds one that its type does not have.")
    if len(rest) < size:
        raise FileFormatError("a stream of distances ends early.")
    distances = np.where(lengths > 0, (1 << top | (symbols & 7) >> (_TOP - top)) << low, 0)
    distances[escaped] = np.frombuffer(rest[:size], f"<u{dtype.itemsize}")
    widths = low + (distances > 0)
    end = size + bits.varied_size(widths)
    tails = bits.unpack_varied(bytes(rest[size:end]), widths)
    distances |= tails & ((1 << low) - 1)
    ordered = _ordered(drawn) + np.where(tails >> low, -distances, distances)
    if int(ordered.min()) < 0 or int(ordered.max()) >> 8 * dtype.itemsize:
        raise FileFormatError("a stream of distances leaves its type.")
    return _floats(ordered, dtype), rest[end:]


def probe_size(count: int) -> int:
    """Return how many of ``count`` values :func:`promises` looks at."""
    return min(count, _PROBE)


def _ordered(values: Array) -> bits.Numbers:
    """Return the place of each float in the order of its type: negative ones first, -0.0 right before 0.0."""
    words = values.view(f"<u{values.dtype.itemsize}").astype(np.int64)
    sign = 1 << (8 * values.dtype.itemsize - 1)
    ordered: bits.Numbers = np.where(words & sign, 2 * sign - 1 - words, words | sign)
    return ordered


def _floats(ordered: bits.Numbers, dtype: np.dtype[np.generic]) -> Array:
    sign = 1 << (8 * dtype.itemsize - 1)
    words = np.where(ordered & sign, ordered ^ sign, 2 * sign - 1 - ordered)
    floats: Array = words.astype(f"<u{dtype.itemsize}").view(dtype)
    return floats


def _lags(drawn: Array) -> bits.Numbers:
    layout = FLOATS[drawn.dtype.name]
    words = drawn.view(f"<u{drawn.dtype.itemsize}").astype(np.int64)
    exponents = (words >> layout.mantissa) & ((1 << layout.exponent) - 1)
    lags: bits.Numbers = _LAGS - np.minimum(exponents.max() - exponents, _LAGS)
    return lags


def _lengths(distances: bits.Numbers) -> bits.Numbers:
    # Exact: 32 bits fit a float64.
    return np.frexp(distances.astype(np.float64))[1].astype(np.int64)


def _split(lengths: bits.Numbers) -> tuple[bits.Numbers, bits.Numbers]:
    """Return how many bits below the highest one belong to the symbol, and how many are low."""
    top = np.clip(lengths - 1, 0, _TOP)
    return top, np.maximum(lengths - 1 - top, 0)
