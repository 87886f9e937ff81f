"""Positions of a mask of blocks: the mask of the blocks themselves, coded like any other.

Stream: one byte, the codec of what follows (0 gaps, 1 bitmap, 2 bitmap-deflate), and its stream for one weight a block,
row of blocks by row of blocks.
"""

from __future__ import annotations

import numpy as np

from ...compressor.block import Block, block_of
from ...compressor.mask import BoolArray
from ...errors import FileFormatError
from .base import Layout
from .bitmap import Bitmap, DeflatedBitmap
from .gaps import Gaps

_CODECS = (Gaps(), Bitmap(), DeflatedBitmap())


class Tiles:
    """The mask of blocks of the structure ``block:RxC``."""

    id = "blocks"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the stream; None when the structure is no block, or a block is kept in part."""
        block = block_of(layout.structure, layout.shape, layout.output_axis)
        kept = None if block is None else kept_tiles(mask, block, layout.output_axis)
        if block is None or kept is None or not 0 < layout.kept < layout.size:
            return None
        inner = _inner(layout, block)
        streams = [codec.encode(kept, inner) for codec in _CODECS]
        coded = [bytes([number]) + stream for number, stream in enumerate(streams) if stream is not None]
        return min(coded, key=len)

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        block = block_of(layout.structure, layout.shape, layout.output_axis)
        if block is None or layout.kept % (block.rows * block.columns):
            raise FileFormatError(f"a stream of blocks does not fit a tensor of structure '{layout.structure}'.")
        if not stream or stream[0] >= len(_CODECS):
            raise FileFormatError("a stream of blocks names no codec.")
        kept = _CODECS[stream[0]].decode(stream[1:], _inner(layout, block))
        return block.spread(kept, layout.shape, layout.output_axis)


def kept_tiles(mask: BoolArray, block: Block, output_axis: int) -> BoolArray | None:
    """Return which blocks a mask keeps, flat; None when it keeps one in part."""
    whole: BoolArray = np.asarray(block.tiles(mask, output_axis).all(axis=(1, 3)))
    if np.count_nonzero(whole) * block.rows * block.columns != np.count_nonzero(mask):
        return None
    return whole.reshape(-1)


def _inner(layout: Layout, block: Block) -> Layout:
    size = block.rows * block.columns
    return Layout((layout.size // size,), "element", 0, layout.kept // size)
