"""Coded values: a table and a code for each value (:mod:`..quantise`), the codes entropy coded.

Stream:

    table       byte 0: its codec (0 raw, 1 ``floats``, 2 ``deflate``); entries and bytes, a varint each; its stream.
                No entries at all in a pooled codebook's later tensors: the first one's table is theirs
    codes       byte 0, bits 0-3: p, the codes a byte (1, 2, 4 or 8); bit 7: the bytes are deflated, otherwise stored.
                Then ceil(n / p) bytes, the first code in the lowest of p fields of 8 / p bits, unused fields zero

A varint is little-endian, seven bits a byte, bit 7 set while more follow. int8 codes are stored as two's complement.
"""

from __future__ import annotations

import numpy as np

from ...errors import FileFormatError
from ...files import Array
from ..quantise import Coded
from ..value_types import CODEBOOK, INT8
from .base import ValueCodec
from .deflate import huffman, inflate
from .floats import Floats
from .plain import Deflated, Raw

# Ids in the file; a pooled codebook stands in the first tensor that uses it.
POOLED = "codebook-pooled"
CODED = (CODEBOOK, POOLED, INT8)
_TABLES: tuple[ValueCodec, ...] = (Raw(), Floats(), Deflated())
_DEFLATED = 0x80
_FIELDS = (1, 2, 4, 8)
_LARGEST_BOOK = 256
_LONGEST_VARINT = 9


def encode_coded(coded: Coded, *, with_table: bool = True) -> tuple[str, bytes]:
    """Return the codec's id and the stream.

    Args:
        coded: at least one value.
        with_table: False for a pooled codebook that an earlier tensor has brought.
    """
    table = _encode_table(coded.table if with_table else coded.table[:0])
    return POOLED if coded.pooled else coded.kind, table + encode_codes(coded.codes.view(np.uint8))


def decode_coded(
    codec: str, stream: bytes, count: int, dtype: np.dtype[np.generic], units: int, pool: Array | None = None
) -> Coded:
    """Return codes and table.

    Args:
        codec: one of :data:`CODED`.
        stream: of the tensor.
        count: the values in it, at least one.
        dtype: of the tensor; a codebook is of the same.
        units: output units of the tensor, each of which has a scale (``int8``).
        pool: the table of an earlier tensor with a pooled codebook.

    Raises:
        FileFormatError: the stream is malformed, or a code has no entry.
    """
    table, rest = _decode_table(
        stream,
        np.dtype(np.float32) if codec == INT8 else dtype,
        units if codec == INT8 else _LARGEST_BOOK,
    )
    if codec == POOLED and not table.size:
        if pool is None:
            raise FileFormatError("a tensor without a codebook comes before the one that brings it.")
        table = pool
    codes = decode_codes(rest, count)
    if codec == INT8:
        if table.size != units:
            raise FileFormatError(f"{table.size} scales stand for {units} output units.")
        return Coded(INT8, codes.view(np.int8), table)
    if int(codes.max()) >= table.size:
        raise FileFormatError(f"a code of {int(codes.max())} is not in a table of {table.size} values.")
    return Coded(CODEBOOK, codes, table, codec == POOLED)


def _encode_table(table: Array) -> bytes:
    if not table.size:
        return bytes(3)
    streams = {number: codec.encode(table) for number, codec in enumerate(_TABLES)}
    number, stream = min(
        ((n, s) for n, s in streams.items() if s is not None), key=lambda numbered: (len(numbered[1]), numbered[0])
    )
    return bytes([number]) + varint(table.size) + varint(len(stream)) + stream


def _decode_table(stream: bytes, dtype: np.dtype[np.generic], most: int) -> tuple[Array, bytes]:
    if not stream or stream[0] >= len(_TABLES):
        raise FileFormatError("a table of values has an unknown codec.")
    entries, place = read_varint(stream, 1)
    size, place = read_varint(stream, place)
    if entries > most or size > len(stream) - place:
        raise FileFormatError(f"a table of {entries} values in {size} bytes does not fit its tensor.")
    content, rest = stream[place : place + size], stream[place + size :]
    if not entries:
        if content:
            raise FileFormatError("an empty table has a stream.")
        return np.empty(0, dtype), rest
    return _TABLES[stream[0]].decode(content, entries, dtype), rest


def encode_codes(codes: Array) -> bytes:
    """Return codes (uint8, at least one) with their control byte."""
    largest = int(codes.max())
    contest: list[tuple[int, bytes]] = []
    for fields in _FIELDS:
        width = 8 // fields
        if largest >> width:
            break
        padded = np.pad(codes, (0, -codes.size % fields)).reshape(-1, fields)
        packed = np.bitwise_or.reduce(padded << (width * np.arange(fields, dtype=np.uint8)), axis=1)
        plain = packed.astype(np.uint8).tobytes()
        contest += [(fields, plain), (fields | _DEFLATED, huffman(plain))]
    control, content = min(contest, key=lambda entry: (len(entry[1]), entry[0]))
    return bytes([control]) + content


def decode_codes(stream: bytes, count: int) -> Array:
    """Return ``count`` codes that :func:`encode_codes` wrote, uint8.

    Raises:
        FileFormatError: the stream is malformed.
    """
    if not stream or stream[0] & ~_DEFLATED not in _FIELDS:
        raise FileFormatError("a row of codes has an unknown packing.")
    fields = stream[0] & ~_DEFLATED
    size = -(-count // fields)
    content = inflate(stream[1:], size) if stream[0] & _DEFLATED else stream[1:]
    if len(content) != size:
        raise FileFormatError(f"{count} codes take {size} bytes, not {len(content)}.")
    width = 8 // fields
    packed = np.frombuffer(content, np.uint8)
    if fields == 1:
        return packed
    codes = (packed[:, None] >> (width * np.arange(fields, dtype=np.uint8)) & ((1 << width) - 1)).reshape(-1)
    if codes[count:].any():
        raise FileFormatError("codes follow the last value.")
    first: Array = codes[:count].astype(np.uint8)
    return first


def varint(number: int) -> bytes:
    """Return a number, seven bits a byte, lowest first, bit 7 set while more follow."""
    content = bytearray()
    while number > 127:
        content.append(number & 127 | 128)
        number >>= 7
    return bytes(content) + bytes([number])


def read_varint(stream: bytes, place: int) -> tuple[int, int]:
    """Return the number at ``place``, as :func:`varint` writes it, and the place behind it.

    Raises:
        FileFormatError: it ends early, or is too long.
    """
    number = 0
    for index, byte in enumerate(stream[place : place + _LONGEST_VARINT]):
        number |= (byte & 127) << (7 * index)
        if byte < 128:
            return number, place + index + 1
    raise FileFormatError("a number ends early, or is too long.")
