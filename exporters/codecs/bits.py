"""Numbers of any width side by side: little-endian bit order, no padding but in the last byte."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]
Numbers = npt.NDArray[np.int64]
# Numbers that a writer joins before they share words: four of up to 15 bits are below 64.
_JOINED = 4
_HALF = 15
_CHUNK = 2**16


def packed_size(count: int, width: int) -> int:
    """Return the bytes that ``count`` numbers of ``width`` bits take."""
    return (count * width + 7) // 8


def pack(numbers: npt.NDArray[np.unsignedinteger], width: int) -> Bytes:
    """Return the numbers, ``width`` bits each (0 to 64), lowest bit first; unused bits of the last byte are zero."""
    if width == 0 or numbers.size == 0:
        return np.empty(0, np.uint8)
    # Only as many bytes of each number as its width needs are spread into bits.
    wide = np.ascontiguousarray(numbers, dtype="<u8").view(np.uint8).reshape(-1, 8)[:, : (width + 7) // 8]
    bits = np.unpackbits(np.ascontiguousarray(wide), axis=1, count=width, bitorder="little")
    return np.packbits(bits.reshape(-1), bitorder="little")


def unpack(stream: bytes, count: int, width: int) -> Words:
    """Return ``count`` numbers of ``width`` bits.

    Raises:
        FileFormatError: the stream has another length, or an unused bit is set.
    """
    if len(stream) != packed_size(count, width):
        raise FileFormatError(
            f"{count} numbers of {width} bits take {packed_size(count, width)} bytes, not {len(stream)}."
        )
    if width == 0 or count == 0:
        return np.zeros(count, np.uint64)
    if 8 % width == 0:
        fields = (np.frombuffer(stream, np.uint8)[:, None] >> np.arange(0, 8, width, dtype=np.uint8)).reshape(-1)
        fields &= np.uint8((1 << width) - 1)
        if fields[count:].any():
            raise FileFormatError("bits are set behind the end of a packed row of numbers.")
        return fields[:count].astype(np.uint64)
    bits = np.unpackbits(np.frombuffer(stream, np.uint8), bitorder="little")
    if bits[count * width :].any():
        raise FileFormatError("bits are set behind the end of a packed row of numbers.")
    rows = np.packbits(bits[: count * width].reshape(count, width), axis=1, bitorder="little")
    wide = np.zeros((count, 8), np.uint8)
    wide[:, : rows.shape[1]] = rows
    return wide.view("<u8").reshape(-1).astype(np.uint64, copy=False)


def pack_varied(numbers: Numbers, widths: Numbers) -> bytes:
    """Return ``widths[i]`` bits of ``numbers[i]`` (0 to 30) side by side; unused bits of the last byte are zero."""
    writer = Writer(int(widths.sum()))
    for begin in range(0, numbers.size, _CHUNK):
        part, width = numbers[begin : begin + _CHUNK], widths[begin : begin + _CHUNK]
        low = np.minimum(width, _HALF)
        halves = np.stack((part & ((1 << low) - 1), part >> low), axis=1)
        writer.write(halves.reshape(-1), np.stack((low, width - low), axis=1).reshape(-1))
    return writer.finish()


def varied_size(widths: Numbers) -> int:
    """Return the bytes that numbers of these widths take."""
    return (int(widths.sum()) + 7) // 8


def unpack_varied(stream: bytes, widths: Numbers) -> Numbers:
    """Return the numbers of the given widths (0 to 30) that :func:`pack_varied` wrote.

    Raises:
        FileFormatError: the stream has another length, or an unused bit is set.
    """
    ends = np.cumsum(widths)
    total = int(ends[-1]) if ends.size else 0
    if len(stream) != varied_size(widths):
        raise FileFormatError(f"numbers of {total} bits take {varied_size(widths)} bytes, not {len(stream)}.")
    if total % 8 and stream[-1] >> total % 8:
        raise FileFormatError("bits are set behind the end of a packed row of numbers.")
    # A word more on the right, so that every number may be looked for in two of them.
    words = np.frombuffer(stream + bytes(16 - len(stream) % 8), "<u8")
    begins = ends - widths
    places, shifts = begins >> 6, (begins & 63).astype(np.uint64)
    found = words[places] >> shifts
    # In two steps: a shift by all 64 bits is undefined.
    found |= words[places + 1] << np.uint64(1) << (np.uint64(63) - shifts)
    numbers: Numbers = found.astype(np.int64) & ((1 << widths) - 1)
    return numbers


class Writer:
    """Numbers of different widths as one row of bits, lowest bit first."""

    def __init__(self, bits: int) -> None:
        # One word more for what reaches over the end, and one for what would.
        self._words = np.zeros(bits // 64 + 2, np.uint64)
        self._end = 0

    def write(self, numbers: Numbers, widths: Numbers) -> None:
        """Append ``widths[i]`` bits of ``numbers[i]``, 15 at most of each."""
        spare = -numbers.size % _JOINED
        values = np.pad(numbers, (0, spare)).astype(np.uint64)
        lengths = np.pad(widths, (0, spare)).astype(np.uint64)
        for _ in range(_JOINED.bit_length() - 1):
            values = values[0::2] | (values[1::2] << lengths[0::2])
            lengths = lengths[0::2] + lengths[1::2]
        ends = np.cumsum(lengths) + np.uint64(self._end)
        begins = ends - lengths
        words, shifts = (begins >> np.uint64(6)).astype(np.int64), begins & np.uint64(63)
        # What begins in one word; of it only the last reaches into the next.
        first = np.flatnonzero(np.diff(words, prepend=-1))
        last = np.append(first[1:], words.size) - 1
        self._words[words[first]] |= np.bitwise_or.reduceat(values << shifts, first)
        over = np.where(shifts[last] > 0, values[last] >> (np.uint64(64) - np.maximum(shifts[last], np.uint64(1))), 0)
        self._words[words[last] + 1] |= over.astype(np.uint64)
        self._end = int(ends[-1])

    def finish(self) -> bytes:
        """Return everything, the last byte filled with zeros."""
        return self._words.astype("<u8").tobytes()[: (self._end + 7) // 8]
