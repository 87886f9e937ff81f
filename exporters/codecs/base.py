"""What a codec is: a stable id and two pure functions between arrays and bytes.

A tensor in a ``packed`` file is two streams: where its kept weights are (a position codec) and what they are (a value
codec). ``encode`` returns None where the codec does not apply; ``decode`` never trusts its input: counts are checked
before anything is allocated, and loose ends (set padding bits, trailing bytes) are refused.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Protocol

import numpy as np

from ...compressor.mask import BoolArray
from ...files import Array


@dataclass(frozen=True)
class Layout:
    """What a position codec may know about a tensor beside its stream.

    Attributes:
        shape: the dense shape.
        structure: what the mask was selected as: ``element``, ``N:M``, ``block:RxC``, ``channel`` or ``input-channel``.
        output_axis: the axis of the output units.
        kept: how many weights the mask keeps.
        name: of the tensor; only a seeded mask is drawn by it.
        seed: of the run, for the encoder; None when no seed is known.
    """

    shape: tuple[int, ...]
    structure: str
    output_axis: int
    kept: int
    name: str = ""
    seed: int | None = None

    @property
    def size(self) -> int:
        """The number of weights, kept or not."""
        return math.prod(self.shape)


class PositionCodec(Protocol):
    """A way to write a mask."""

    @property
    def id(self) -> str:
        """The id in the file; never reused for another encoding."""

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the stream for ``mask`` (bool, dense shape), or None when the codec does not apply."""

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask in its dense shape.

        Raises:
            FileFormatError: the stream is truncated, too long, or promises what the layout does not allow.
        """


class ValueCodec(Protocol):
    """A way to write a row of numbers without loss."""

    @property
    def id(self) -> str:
        """The id in the file; never reused for another encoding."""

    def encode(self, values: Array) -> bytes | None:
        """Return the stream for ``values`` (1-D, contiguous), or None when the codec does not apply."""

    def decode(self, stream: bytes, count: int, dtype: np.dtype[np.generic]) -> Array:
        """Return ``count`` values of ``dtype``, bit for bit.

        Raises:
            FileFormatError: the stream is truncated, too long, or malformed.
        """
