"""A walker over the protobuf wire format: where each field of a message lies, without parsing what it means.

In: bytes that nobody vouches for. Out: field numbers and byte spans. Guaranteed: every span lies inside the message,
nothing is allocated and nothing recurses, so a hostile length can only end in :class:`FileFormatError`.

Source: protobuf.dev, "Encoding". ONNX uses varints (0), fixed 64-bit (1), length-delimited (2) and fixed 32-bit (5).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from .. import errors

VARINT, FIXED64, LENGTH, FIXED32 = 0, 1, 2, 5
_FIXED = {FIXED64: 8, FIXED32: 4}
# A 64-bit number has ten groups of seven bits.
_VARINT_BYTES = 10


class Field(NamedTuple):
    """One field on the wire.

    Attributes:
        number: the field's number in its message.
        wire: its wire type.
        value: the number, for a varint; 0 otherwise.
        start: offset of the payload's first byte (for a varint, of the number itself).
        end: offset behind the payload.
    """

    number: int
    wire: int
    value: int
    start: int
    end: int


def fields(data: memoryview, start: int, end: int) -> Iterator[Field]:
    """Yield the fields of the message that lies in ``data[start:end]``, in wire order.

    Raises:
        FileFormatError: the bytes are no protobuf message, or a field claims more bytes than the message has.
    """
    position = start
    while position < end:
        key, position = _varint(data, position, end)
        number, wire = key >> 3, key & 7
        if number == 0:
            raise errors.FileFormatError(f"no protobuf message: field number 0 at byte {position - 1}.")
        value, begin = 0, position
        if wire == VARINT:
            value, stop = _varint(data, position, end)
        elif wire == LENGTH:
            length, begin = _varint(data, position, end)
            stop = begin + length
        elif wire in _FIXED:
            stop = position + _FIXED[wire]
        else:
            raise errors.FileFormatError(f"no protobuf message: wire type {wire} at byte {position - 1}.")
        if stop > end:
            raise errors.FileFormatError(
                f"truncated or corrupt: field {number} at byte {begin} claims {stop - begin} bytes, "
                f"{end - begin} are left."
            )
        yield Field(number, wire, value, begin, stop)
        position = stop


def _varint(data: memoryview, position: int, end: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(data[position : min(end, position + _VARINT_BYTES)]):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value & 0xFFFFFFFFFFFFFFFF, position + index + 1
    raise errors.FileFormatError(f"truncated or corrupt: the number at byte {position} has no end.")


def decode_varints(packed: npt.NDArray[np.uint8]) -> tuple[npt.NDArray[np.uint64], npt.NDArray[np.int64]]:
    """Return the numbers of a packed varint field and the bytes that each takes.

    Args:
        packed: uint8, the payload.

    Raises:
        FileFormatError: the last number has no end, or one is longer than ten bytes.
    """
    ends = np.flatnonzero(packed < 0x80)
    if packed.size and (not ends.size or ends[-1] != packed.size - 1):
        raise errors.FileFormatError("truncated or corrupt: a packed number has no end.")
    starts = np.concatenate([[0], ends[:-1] + 1]).astype(np.int64)[: ends.size]
    lengths = ends - starts + 1
    if lengths.size and int(lengths.max()) > _VARINT_BYTES:
        raise errors.FileFormatError("truncated or corrupt: a packed number is longer than ten bytes.")
    values = np.zeros(ends.size, np.uint64)
    for index in range(int(lengths.max(initial=0))):
        longer = lengths > index
        group = (packed[starts[longer] + index] & 0x7F).astype(np.uint64)
        values[longer] |= group << np.uint64(7 * index)
    return values, lengths


def encode_varints(values: npt.NDArray[Any], lengths: npt.NDArray[np.int64]) -> npt.NDArray[np.uint8] | None:
    """Return ``values`` as packed varints of the given lengths, padded with empty groups; None when one does not fit.

    The format allows groups of zeros behind a number, so a smaller number can take the place of a larger one.
    """
    total = int(lengths.sum())
    packed = np.zeros(total, np.uint8)
    starts = np.cumsum(lengths) - lengths
    rest = values.astype(np.uint64)
    for index in range(int(lengths.max(initial=0))):
        longer = lengths > index
        last = lengths == index + 1
        packed[starts[longer] + index] = (rest[longer] & np.uint64(0x7F)).astype(np.uint8) | np.where(
            last[longer], np.uint8(0), np.uint8(0x80)
        )
        rest >>= np.uint64(7)
        if bool((rest[last] != 0).any()):
            return None
    return packed
