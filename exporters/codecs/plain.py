"""Values as they are, and values that repeat."""

from __future__ import annotations

import numpy as np

from ...errors import FileFormatError
from ...files import Array, little_endian_bytes
from .deflate import deflate, inflate

# Deflate is slow on noise: a long row is tried only when its beginning shrinks to this share.
_PROBE_BYTES = 65536
_PROMISING = 0.75


class Raw:
    """Little-endian bytes."""

    id = "raw"

    def encode(self, values: Array) -> bytes | None:
        """Return the bytes."""
        return little_endian_bytes(values).tobytes()

    def decode(self, stream: bytes, count: int, dtype: np.dtype[np.generic]) -> Array:
        """Return the values; see :class:`.base.ValueCodec`."""
        if len(stream) != count * dtype.itemsize:
            raise FileFormatError(f"{count} values of {dtype} take {count * dtype.itemsize} bytes, not {len(stream)}.")
        plain = np.frombuffer(bytearray(stream), np.uint8)
        if dtype == np.bool_ and (plain > 1).any():
            raise FileFormatError("a bool is neither 0 nor 1.")
        return plain.view(dtype.newbyteorder("<"))


class Deflated:
    """Ordinary deflate over the raw bytes: constants, counters, values of a small set."""

    id = "deflate"

    def encode(self, values: Array) -> bytes | None:
        """Return the stream; None when a long row does not begin like something that repeats."""
        plain = little_endian_bytes(values).tobytes()
        probe = plain[:_PROBE_BYTES]
        if len(plain) > _PROBE_BYTES and len(deflate(probe)) > _PROMISING * len(probe):
            return None
        return deflate(plain)

    def decode(self, stream: bytes, count: int, dtype: np.dtype[np.generic]) -> Array:
        """Return the values; see :class:`.base.ValueCodec`."""
        return Raw().decode(inflate(stream, count * dtype.itemsize), count, dtype)
