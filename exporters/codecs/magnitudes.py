"""Floats by magnitude: the high bits of each distance above the smallest one are entropy coded, the rest is noise.

Without its sign a float's bits are a whole number that rises with its magnitude. Counted from the smallest of a row,
these numbers begin where a pruning threshold cuts, whatever binade that is in, and thin out smoothly from there: one
symbol for exponent and first mantissa bits together wastes less than a code for each.

Stream, for n floats of W bits:

    byte 0      s, the low bits of each distance that are stored as they are
    W/8 bytes   the smallest magnitude
    symbols     min(distance >> s, 255) for each float: one byte each, through deflate
    escapes     for each symbol 255, in order: what is above 255, W/8 bytes
    tails       the low s bits of each distance, above them the sign: s + 1 bits, as planes of n bytes, lowest first,
                and the highest (s + 1) mod 8 bits of each side by side (:mod:`.bits`)
"""

from __future__ import annotations

import numpy as np

from ...errors import FileFormatError
from ...files import Array
from . import bits
from .deflate import huffman, inflate_prefix
from .floats import FLOATS
from .huffman import Counts, counted_size, estimates

_ESCAPE = 255
# Of distances, only the first so many bits are looked at to choose a shift.
_SEEN_BITS = 12
# What unpacks fast: tails of whole bytes and one of these widths.
_FAST = (0, 1, 2, 4)
# Shifts whose code is made to see which is smallest.
_TRIED = 2


class Magnitudes:
    """High bits of the distance above the smallest magnitude as symbols; low bits and sign stored."""

    id = "magnitudes"

    def encode(self, values: Array) -> bytes | None:
        """Return the stream; None for anything but a non-empty row of floats."""
        if values.dtype.name not in FLOATS or values.size == 0:
            return None
        words = values.view(f"<u{values.dtype.itemsize}")
        unsigned = words.dtype.type
        sign = unsigned(8 * values.dtype.itemsize - 1)
        distances = words & unsigned((1 << int(sign)) - 1)
        smallest = distances.min()
        distances -= smallest
        shift = unsigned(_shift(distances))
        high = distances >> shift
        escapes = high[high >= _ESCAPE] - unsigned(_ESCAPE)
        symbols = np.minimum(high, unsigned(_ESCAPE)).astype(np.uint8)
        tails = distances & unsigned((1 << int(shift)) - 1)
        tails |= words >> sign << shift
        whole, rest = divmod(int(shift) + 1, 8)
        planes = [(tails >> unsigned(8 * plane)).astype(np.uint8).tobytes() for plane in range(whole)]
        top = bits.pack(tails >> unsigned(8 * whole), rest) if rest else np.empty(0, np.uint8)
        front = bytes([int(shift)]) + smallest.tobytes() + huffman(symbols.tobytes())
        return b"".join([front, escapes.tobytes(), *planes, top.tobytes()])

    def decode(self, stream: bytes, count: int, dtype: np.dtype[np.generic]) -> Array:
        """Return the floats; see :class:`.base.ValueCodec`."""
        unsigned = np.dtype(f"<u{dtype.itemsize}")
        size, sign = dtype.itemsize, 8 * dtype.itemsize - 1
        if dtype.name not in FLOATS or count == 0 or len(stream) <= size or stream[0] >= sign:
            raise FileFormatError(f"a magnitude stream does not fit {count} values of {dtype}.")
        shift = stream[0]
        smallest = int.from_bytes(stream[1 : 1 + size], "little")
        largest = (1 << sign) - 1
        content, consumed = inflate_prefix(memoryview(stream)[1 + size :], count)
        symbols, rest = np.frombuffer(content, np.uint8), memoryview(stream)[1 + size + consumed :]
        escaped = np.flatnonzero(symbols == _ESCAPE)
        whole, width = divmod(shift + 1, 8)
        expected = escaped.size * size + whole * count + bits.packed_size(count, width)
        if symbols.size != count or len(rest) != expected:
            raise FileFormatError(
                f"a magnitude stream has {symbols.size} symbols and {len(rest)} more bytes, not {count} and {expected}."
            )
        escapes, rest = np.frombuffer(rest[: escaped.size * size], unsigned), rest[escaped.size * size :]
        words = symbols.astype(unsigned)
        # Neither sum can wrap: both of its numbers have a bit to spare.
        if smallest > largest or (escaped.size and int(escapes.max()) > largest >> shift):
            raise FileFormatError("a magnitude stream holds a value that its type does not have.")
        words[escaped] += escapes
        if int(words.max()) > largest >> shift:
            raise FileFormatError("a magnitude stream holds a value that its type does not have.")
        tails = np.zeros(count, unsigned)
        if width:
            tails |= bits.unpack(bytes(rest[whole * count :]), count, width).astype(unsigned)
        for plane in reversed(range(whole)):
            tails <<= unsigned.type(8)
            tails |= np.frombuffer(rest[plane * count : (plane + 1) * count], np.uint8)
        words <<= unsigned.type(shift)
        words |= tails & unsigned.type((1 << shift) - 1)
        words += unsigned.type(smallest)
        if int(words.max()) > largest:
            raise FileFormatError("a magnitude stream holds a value that its type does not have.")
        words |= tails >> unsigned.type(shift) << unsigned.type(sign)
        floats: Array = words.view(dtype)
        return floats


def _shift(distances: Array) -> int:
    """Return the shift that gives the smallest stream, among those that probably do; the largest of equals."""
    finest = max(0, int(distances.max()).bit_length() - _SEEN_BITS)
    seen = (distances >> distances.dtype.type(finest)).astype(np.int64)
    counts = np.bincount(seen, minlength=1 << _SEEN_BITS)
    contest: list[tuple[float, int, Counts]] = []
    for shift in range(finest, min(finest + _SEEN_BITS, 8 * distances.itemsize - 2) + 1):
        if (shift + 1) % 8 not in _FAST:
            continue
        merged = counts.reshape(-1, 1 << (shift - finest)).sum(axis=1)
        high = np.zeros(_ESCAPE + 1, np.int64)
        high[: merged[:_ESCAPE].size] = merged[:_ESCAPE]
        high[_ESCAPE] = merged[_ESCAPE:].sum()
        stored = int(high[_ESCAPE]) * distances.itemsize + distances.size * (shift + 1) / 8
        contest.append((stored, -shift, high))
    likely = sorted(contest, key=lambda entry: (entry[0] + float(estimates(entry[2][None])[0]), entry[1]))[:_TRIED]
    return -min((stored + counted_size(high), negative) for stored, negative, high in likely)[1]
