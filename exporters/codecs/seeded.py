"""Positions that a seed draws: the mask of the highest random scores, as static random sparsity selects it.

Within a tensor such a mask keeps the k highest of its scores (:mod:`...compressor.scores.random`), whatever the other
tensors were given, so that the run's seed, the number of the draw and k say all of it.

Stream: the seed, four bytes; the number of the draw, one byte.
"""

from __future__ import annotations

import struct

import numpy as np

from ...compressor.mask import BoolArray
from ...compressor.scores.random import random
from ...compressor.selection import top_k
from ...errors import FileFormatError
from ...files import Array
from .base import Layout

_STREAM = struct.Struct("<IB")
# Rounds of a schedule; only the first selects among all weights.
_DRAWS = (0, 1)
# Scores of so many weights are drawn before all are: a mask from elsewhere shows at once.
_PROBE = 4096


class SeededMask:
    """The positions of the k highest of a tensor's random scores."""

    id = "seeded-mask"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the stream; None for a mask that the run's seed does not draw again, bit for bit."""
        if layout.seed is None or not 0 <= layout.seed < 2**32 or not 0 < layout.kept < layout.size:
            return None
        flat = mask.reshape(-1)
        for draw in _DRAWS:
            stream = _STREAM.pack(layout.seed, draw)
            if _agrees(flat[:_PROBE], _scores(layout, layout.seed, draw, _PROBE)) and np.array_equal(
                self.decode(stream, layout), mask
            ):
                return stream
        return None

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        if len(stream) != _STREAM.size or not 0 < layout.kept < layout.size:
            raise FileFormatError(f"a seeded mask takes {_STREAM.size} bytes and keeps some weights, not all.")
        seed, draw = _STREAM.unpack(stream)
        (flat,) = top_k([_scores(layout, seed, draw, layout.size)], layout.kept)
        return flat.reshape(layout.shape)


def _scores(layout: Layout, seed: int, draw: int, count: int) -> Array:
    """Return the first scores of a tensor, 1-D; word i of its stream is weight i's, however many are drawn."""
    return random({layout.name: (min(count, layout.size),)}, seed, draw)[layout.name]


def _agrees(kept: BoolArray, scores: Array) -> bool:
    """Tell whether every kept weight scores at least as high as every other."""
    lowest, highest = scores[kept].min(initial=2.0), scores[~kept].max(initial=-1.0)
    return bool(lowest >= highest)
