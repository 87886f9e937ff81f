"""Floats apart: exponents, which carry little, are entropy coded; sign and mantissa, which are noise, mostly stored.

Weights that survive magnitude pruning have only a few exponents. Each is written as its distance d below the largest
one, in an alphabet of A symbols whose last is an escape, k symbols a byte as digits in base A; Huffman-only deflate
over those bytes then costs less than a bit an exponent where a code for single symbols could not.

Stream, for n floats with E exponent and M mantissa bits:

    byte 0      bits 0-3: k, the exponents a byte: 1, 2, 3, 4, 5 or 8 (with A = 256, 16, 6, 4, 3, 2); bit 7: the highest
                plane is sorted by d (stable); read, no longer written: :mod:`.magnitudes` are smaller there
    byte 1      bit i: plane i (0 = lowest) is deflated; bit 7: the exponent bytes are deflated; otherwise stored
    bytes 2-3   the largest biased exponent
    exponents   ceil(n / k) bytes, first exponent in the lowest digit, unused digits zero
    escapes     for each symbol A - 1, in order: d - (A - 1), one byte (two when E > 8)
    planes      sign and mantissa, M + 1 bits shifted to the top of as few bytes as hold them; one plane of n bytes for
                each of those bytes, highest first
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError
from ...files import Array
from .deflate import inflate_prefix
from .huffman import cut, encode, estimate, size

Bytes = npt.NDArray[np.uint8]


class FloatLayout(NamedTuple):
    """Bit widths of a float type."""

    exponent: int
    mantissa: int


FLOATS = {
    "float16": FloatLayout(5, 10),
    "bfloat16": FloatLayout(8, 7),
    "float32": FloatLayout(8, 23),
    "float64": FloatLayout(11, 52),
}
# Exponents a byte -> the largest alphabet of which that many digits fit.
_ALPHABETS = {1: 256, 2: 16, 3: 6, 4: 4, 5: 3, 8: 2}
_EXPONENTS_CODED = 0x80
_SORTED = 0x80
_HEADER = 4
# More escapes than this share never pay; it only saves time to leave them out of the contest.
_MOST_ESCAPES = 0.25
# Packings that are coded to see which is smallest.
_TRIED = 2
# A plane whose bytes are spread as evenly as this is noise, and no code is tried.
_NOISE = 0.998


class Floats:
    """Exponents in a small alphabet, sign and mantissa in byte planes."""

    id = "floats"

    def encode(self, values: Array) -> bytes | None:
        """Return the stream; None for anything but a non-empty row of floats."""
        layout = FLOATS.get(values.dtype.name)
        if layout is None or values.size == 0:
            return None
        words = values.view(f"<u{values.dtype.itemsize}")
        exponents = ((words >> layout.mantissa) & ((1 << layout.exponent) - 1)).astype(np.uint16)
        largest = int(exponents.max())
        distances = (largest - exponents).astype(np.uint16)
        packing, flags, streams = _encode_exponents(distances, layout)
        for plane, numbers in reversed(list(enumerate(_planes(words, layout)))):
            noise = estimate(numbers) > _NOISE * numbers.size
            coded = not noise and size([numbers]) < numbers.size
            flags |= coded << plane
            streams.append(encode([numbers]) if coded else numbers.tobytes())
        return bytes([packing, flags]) + largest.to_bytes(2, "little") + b"".join(streams)

    def decode(self, stream: bytes, count: int, dtype: np.dtype[np.generic]) -> Array:
        """Return the floats; see :class:`.base.ValueCodec`."""
        layout = FLOATS.get(dtype.name)
        if layout is None or count == 0 or len(stream) < _HEADER or stream[0] & ~_SORTED not in _ALPHABETS:
            raise FileFormatError(f"a float stream does not fit {count} values of {dtype}.")
        flags, largest = stream[1], int.from_bytes(stream[2:4], "little")
        rest = memoryview(stream)[_HEADER:]
        distances, rest = _decode_exponents(rest, stream[0] & ~_SORTED, bool(flags & _EXPONENTS_CODED), count, layout)
        if largest >> layout.exponent or int(distances.max()) > largest:
            raise FileFormatError("a float stream holds an exponent that its type does not have.")
        if (flags & ~_EXPONENTS_CODED) >> _plane_count(layout):
            raise FileFormatError("a float stream names planes that its type does not have.")
        unsigned = np.dtype(f"<u{dtype.itemsize}")
        tops = np.zeros(count, unsigned)
        for plane in reversed(range(_plane_count(layout))):
            section, rest = _take(rest, bool(flags >> plane & 1), count)
            numbers = np.frombuffer(section, np.uint8)
            if plane == _plane_count(layout) - 1 and stream[0] & _SORTED:
                numbers = _unsort(numbers, distances)
            tops |= numbers.astype(unsigned) << unsigned.type(8 * plane)
        if len(rest):
            raise FileFormatError(f"{len(rest)} bytes follow the end of a float stream.")
        spare = unsigned.type(8 * _plane_count(layout) - layout.mantissa - 1)
        if spare and (tops & unsigned.type((1 << int(spare)) - 1)).any():
            raise FileFormatError("bits are set behind the end of a mantissa.")
        tops >>= spare
        words = (largest - distances).astype(unsigned) << unsigned.type(layout.mantissa)
        words |= tops & unsigned.type((1 << layout.mantissa) - 1)
        words |= (tops >> unsigned.type(layout.mantissa)) << unsigned.type(layout.exponent + layout.mantissa)
        floats: Array = words.view(dtype)
        return floats


def _plane_count(layout: FloatLayout) -> int:
    return (layout.mantissa + 8) // 8


def _unsort(sorted_numbers: Bytes, distances: npt.NDArray[np.int64]) -> Bytes:
    numbers = np.empty_like(sorted_numbers)
    # Sixteen bits are sorted by radix, in a tenth of the time.
    numbers[np.argsort(distances.astype(np.uint16), kind="stable")] = sorted_numbers
    return numbers


def _planes(words: Array, layout: FloatLayout) -> list[Bytes]:
    """Return sign and mantissa, left-aligned, as byte planes; the lowest first."""
    unsigned = words.dtype.type
    tops = words & unsigned((1 << layout.mantissa) - 1)
    tops |= (words >> unsigned(layout.exponent + layout.mantissa)) << unsigned(layout.mantissa)
    tops <<= unsigned(8 * _plane_count(layout) - layout.mantissa - 1)
    return [(tops >> unsigned(8 * plane) & unsigned(255)).astype(np.uint8) for plane in range(_plane_count(layout))]


def _encode_exponents(distances: npt.NDArray[np.uint16], layout: FloatLayout) -> tuple[int, int, list[bytes]]:
    """Return exponents a byte, the flag, and the two sections of the smallest packing."""
    contest: list[tuple[float, int, Bytes, bytes]] = []
    for packing, alphabet in _ALPHABETS.items():
        escaped = distances >= alphabet - 1
        if packing > 1 and np.count_nonzero(escaped) > _MOST_ESCAPES * distances.size:
            continue
        symbols = np.minimum(distances, alphabet - 1)
        digits = np.pad(symbols, (0, -symbols.size % packing)).reshape(-1, packing)
        powers = np.array([alphabet**i for i in range(packing)], np.uint16)
        plain = (digits * powers).sum(axis=1, dtype=np.uint16).astype(np.uint8)
        extra = (distances[escaped] - (alphabet - 1)).astype(_extra_dtype(layout)).tobytes()
        contest.append((min(estimate(plain), plain.size) + len(extra), packing, plain, extra))
    tried: list[tuple[int, int, list[bytes]]] = []
    for _, packing, plain, extra in sorted(contest, key=lambda entry: entry[:2])[:_TRIED]:
        coded = encode(cut(plain))
        flag = _EXPONENTS_CODED if len(coded) < plain.size else 0
        tried.append((packing, flag, [coded if flag else plain.tobytes(), extra]))
    return min(tried, key=lambda entry: (sum(map(len, entry[2])), entry[0]))


def _decode_exponents(
    stream: memoryview, packing: int, coded: bool, count: int, layout: FloatLayout
) -> tuple[npt.NDArray[np.int64], memoryview]:
    alphabet = _ALPHABETS[packing]
    section, rest = _take(stream, coded, -(-count // packing))
    plain = np.frombuffer(section, np.uint8)
    if int(plain.max()) >= alphabet**packing:
        raise FileFormatError("an exponent symbol is out of range.")
    table = np.arange(alphabet**packing)[:, None] // alphabet ** np.arange(packing) % alphabet
    symbols = table[plain].reshape(-1)
    if symbols[count:].any():
        raise FileFormatError("exponents follow the last value.")
    distances: npt.NDArray[np.int64] = symbols[:count]
    escaped = np.flatnonzero(distances == alphabet - 1)
    extra, rest = _take(rest, False, escaped.size * _extra_dtype(layout).itemsize)
    distances[escaped] += np.frombuffer(extra, _extra_dtype(layout)).astype(np.int64)
    return distances, rest


def _extra_dtype(layout: FloatLayout) -> np.dtype[np.unsignedinteger]:
    return np.dtype("<u2" if layout.exponent > 8 else "u1")


def _take(stream: memoryview, coded: bool, size: int) -> tuple[bytes, memoryview]:
    """Return the next section of ``size`` decoded bytes, and what follows it."""
    if not coded:
        if len(stream) < size:
            raise FileFormatError("a float stream ends early.")
        return bytes(stream[:size]), stream[size:]
    data, consumed = inflate_prefix(stream, size)
    if len(data) != size:
        raise FileFormatError(f"a section of a float stream holds {len(data)} bytes instead of {size}.")
    return data, stream[consumed:]
