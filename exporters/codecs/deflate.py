"""Deflate under a leash: raw streams (RFC 1951), a known output size, and nothing after the end.

Huffman-only deflate is the entropy coder of this project: for symbols without order it lands within about one percent
of their entropy, and every language can read it.
"""

from __future__ import annotations

import zlib

import numpy as np

from ...errors import FileFormatError
from .huffman import cut, encode

# No zlib header or checksum: the file has its own.
_RAW = -15
# The largest symbol buffer that zlib has, hence the fewest block headers.
_MEMORY = 9


def huffman(data: bytes) -> bytes:
    """Return ``data`` as raw deflate that codes single bytes only (no string matching)."""
    return encode(cut(np.frombuffer(data, np.uint8)))


def deflate(data: bytes, dictionary: bytes = b"", *, level: int = 9) -> bytes:
    """Return ``data`` as ordinary raw deflate, primed with ``dictionary``."""
    if dictionary:
        coder = zlib.compressobj(level, zlib.DEFLATED, _RAW, _MEMORY, zlib.Z_DEFAULT_STRATEGY, dictionary)
    else:
        coder = zlib.compressobj(level, zlib.DEFLATED, _RAW, _MEMORY)
    return coder.compress(data) + coder.flush()


def inflate(stream: bytes, limit: int, dictionary: bytes = b"") -> bytes:
    """Return what ``stream`` holds, at most ``limit`` bytes.

    Raises:
        FileFormatError: the stream is no deflate, ends early, holds more than ``limit`` bytes, or something follows it.
    """
    data, consumed = inflate_prefix(stream, limit, dictionary)
    if consumed != len(stream):
        raise FileFormatError(f"{len(stream) - consumed} bytes follow the end of a compressed stream.")
    return data


def inflate_prefix(stream: bytes | memoryview, limit: int, dictionary: bytes = b"") -> tuple[bytes, int]:
    """Return what the compressed stream at the start of ``stream`` holds, and how many bytes it takes there.

    Raises:
        FileFormatError: as :func:`inflate`.
    """
    decoder = zlib.decompressobj(_RAW, zdict=dictionary) if dictionary else zlib.decompressobj(_RAW)
    try:
        # One byte more than allowed, so that a stream of exactly the limit can be told from a longer one; zlib grows
        # its buffer with what it really produces, so a large limit alone allocates nothing.
        data = decoder.decompress(stream, limit + 1)
    except zlib.error as error:
        raise FileFormatError(f"a compressed stream is corrupt ({error}).") from error
    if len(data) > limit:
        raise FileFormatError(f"a compressed stream holds more than the {limit} bytes that it may.")
    if not decoder.eof:
        raise FileFormatError("a compressed stream ends early.")
    return data, len(stream) - len(decoder.unused_data)
