"""Positions as bits: one a weight, one an output unit, or none at all where there is nothing to say."""

from __future__ import annotations

import numpy as np

from ...compressor.mask import BoolArray, pack_bits, unpack_bits
from ...errors import FileFormatError
from .base import Layout
from .deflate import deflate, huffman, inflate


class Everything:
    """Every weight is kept: an empty stream."""

    id = "all"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return an empty stream when the mask keeps everything."""
        return b"" if layout.kept == layout.size else None

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return a mask of ones; see :class:`.base.PositionCodec`."""
        _require(not stream and layout.kept == layout.size, self.id)
        return np.ones(layout.shape, np.bool_)


class Nothing:
    """No weight is kept: an empty stream."""

    id = "none"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return an empty stream when the mask keeps nothing."""
        return b"" if layout.kept == 0 else None

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return a mask of zeros; see :class:`.base.PositionCodec`."""
        _require(not stream and layout.kept == 0, self.id)
        return np.zeros(layout.shape, np.bool_)


class Bitmap:
    """One bit a weight, row-major, lowest bit first."""

    id = "bitmap"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the packed bits."""
        return pack_bits(mask).tobytes()

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        return _checked(unpack_bits(np.frombuffer(stream, np.uint8), layout.shape), layout)


class DeflatedBitmap:
    """The bitmap through deflate: with matches for blocks, rows or any other repetition, without for chance."""

    id = "bitmap-deflate"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the deflated bits."""
        packed = pack_bits(mask).tobytes()
        # Level 9 needs five times as long on a sparse bitmap, where bytes without matches win anyway.
        return min(huffman(packed), deflate(packed, level=6), key=len)

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        packed = inflate(stream, (layout.size + 7) // 8)
        return _checked(unpack_bits(np.frombuffer(packed, np.uint8), layout.shape), layout)


class Channels:
    """One bit an output unit, for a mask that keeps or drops units whole."""

    id = "channels"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the packed bits of the units; None when a unit is kept in part."""
        if mask.ndim == 0 or mask.size == 0:
            return None
        units = np.moveaxis(mask, layout.output_axis, 0).reshape(mask.shape[layout.output_axis], -1)
        if not (units == units[:, :1]).all():
            return None
        return pack_bits(units[:, 0]).tobytes()

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        _require(len(layout.shape) > 0 and layout.size > 0, self.id)
        extent = [1] * len(layout.shape)
        extent[layout.output_axis] = layout.shape[layout.output_axis]
        units = unpack_bits(np.frombuffer(stream, np.uint8), tuple(extent))
        return _checked(np.ascontiguousarray(np.broadcast_to(units, layout.shape)), layout)


def _checked(mask: BoolArray, layout: Layout) -> BoolArray:
    kept = int(np.count_nonzero(mask))
    if kept != layout.kept:
        raise FileFormatError(f"a mask keeps {kept} weights, its entry says {layout.kept}.")
    return mask


def _require(condition: bool, codec: str) -> None:
    if not condition:
        raise FileFormatError(f"the position codec '{codec}' does not fit its tensor.")
