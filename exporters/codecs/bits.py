"""Numbers of fewer than eight bits side by side: little-endian bit order, no padding but in the last byte."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError

Words = npt.NDArray[np.uint64]
Bytes = npt.NDArray[np.uint8]


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
