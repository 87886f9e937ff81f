"""Blocks of a weight's matrix as a structure: what one is, its score, and the mask that a choice of them stands for."""

from __future__ import annotations

import math
import re
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError
from ..files import Array
from .mask import BoolArray
from .structure import Groups

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor


@dataclass(frozen=True)
class Block:
    """``rows`` x ``columns`` weights of a tensor's matrix as a whole, on a grid that begins at its first weight.

    The matrix has one row an output unit: [O, I] as it is, a convolution's [O, I, kH, kW] as (O, I x kH x kW), so that
    ``block:1x9`` is a 3x3 kernel; the matrix of block sparse rows (BSR; Narang et al. 2017, Block-Sparse Recurrent
    Neural Networks).
    """

    rows: int
    columns: int

    @property
    def text(self) -> str:
        """The structure as a recipe writes it."""
        return f"block:{self.rows}x{self.columns}"

    @property
    def kind(self) -> str:
        """The entry of :data:`STRUCTURES` that this is."""
        return "block"

    def eligible(self, tensor: PrunableTensor) -> str | None:
        """Return None, or why the tensor stays dense: the blocks do not tile its matrix."""
        rows = tensor.shape[tensor.output_axis]
        columns = tensor.size // rows
        if rows % self.rows == 0 and columns % self.columns == 0:
            return None
        return f"its {rows} x {columns} weights are no whole number of blocks of {self.rows} x {self.columns}"

    def reachable(self, sparsity: float) -> str | None:
        """Return None: every sparsity can be approached from above to within one block."""
        return None

    def groups(self, tensor: PrunableTensor) -> Groups:
        """Return the number of blocks, and the weights of one."""
        size = self.rows * self.columns
        return Groups(tensor.size // size, size)

    def group_scores(self, scores: Array, tensor: PrunableTensor, *, normalise: bool = False) -> Array:
        """Return the float64 sum of each block's scores, row of blocks by row of blocks; of their mean to normalise."""
        sums: Array = self.tiles(scores, tensor.output_axis).sum(axis=(1, 3), dtype=np.float64).reshape(-1)
        return sums / (self.rows * self.columns) if normalise else sums

    def expand(self, group_mask: BoolArray, tensor: PrunableTensor) -> BoolArray:
        """Return the mask of blocks in the tensor's shape."""
        return self.spread(group_mask, tensor.shape, tensor.output_axis)

    def tiles(self, array: Array, output_axis: int) -> Array:
        """Return an array in a tensor's shape as [rows of blocks, R, columns of blocks, C]."""
        units = array.shape[output_axis]
        rows = np.moveaxis(array, output_axis, 0).reshape(units, -1)
        return rows.reshape(units // self.rows, self.rows, -1, self.columns)

    def spread(self, group_mask: BoolArray, shape: tuple[int, ...], output_axis: int) -> BoolArray:
        """Return a mask of blocks, flat, as the mask of a tensor's weights."""
        units = shape[output_axis]
        tiles = group_mask.reshape(units // self.rows, -1).repeat(self.rows, axis=0).repeat(self.columns, axis=1)
        rest = [extent for axis, extent in enumerate(shape) if axis != output_axis]
        return np.ascontiguousarray(np.moveaxis(tiles.reshape([units, *rest]), 0, output_axis))


def parse_block(text: str) -> Block | None:
    """Return the structure that ``block:RxC`` names; None for a text of another form.

    Raises:
        UsageError: a block of fewer than two weights, or numbers that are not written plainly.
    """
    match = re.fullmatch(r"block:(\d{1,5})x(\d{1,5})", text)
    if match is None:
        return None
    rows, columns = int(match[1]), int(match[2])
    if rows * columns < 2 or text != f"block:{rows}x{columns}":
        raise UsageError(f"structure '{text}' is no block of two weights or more (for example block:4x1).")
    return Block(rows, columns)


def block_of(text: str, shape: tuple[int, ...], output_axis: int) -> Block | None:
    """Return the block structure that a recorded text names where its blocks tile a tensor; None for any other."""
    block = parse_block(text)
    size = math.prod(shape)
    if block is None or not shape or size == 0:
        return None
    units = shape[output_axis]
    return block if units % block.rows == 0 and size // units % block.columns == 0 else None
