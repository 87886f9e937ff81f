"""Block sparse rows: kept blocks of a tensor's matrix as [blocks, R, C], in order of their row, then their column.

scipy.sparse.bsr_matrix((values, col_indices, crow_indices), shape)
torch.sparse_bsr_tensor(crow_indices, col_indices, values, shape)
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from ..compressor.block import Block
from ..compressor.mask import BoolArray
from ..files import Array


class BsrMatrix(NamedTuple):
    """One tensor as BSR arrays; ``values`` [blocks, R, C]."""

    crow_indices: Array
    col_indices: Array
    values: Array
    shape: tuple[int, int]


def to_tiles(values: Array, mask: BoolArray, block: Block, output_axis: int) -> Array:
    """Return the kept blocks [blocks, R, C].

    Args:
        values: kept values, 1-D in the tensor's row-major order.
        mask: of whole blocks, in the tensor's shape.
        block: its structure.
        output_axis: the axis of the output units.
    """
    dense = np.zeros(mask.shape, values.dtype)
    dense[mask] = values
    kept = block.tiles(mask, output_axis)[:, 0, :, 0]
    tiles: Array = block.tiles(dense, output_axis).transpose(0, 2, 1, 3)[kept]
    return np.ascontiguousarray(tiles)


def from_tiles(tiles: Array, kept: BoolArray, block: Block, mask: BoolArray, output_axis: int) -> Array:
    """Return what :func:`to_tiles` made blocks of.

    Args:
        tiles: [blocks, R, C].
        kept: bool [rows of blocks, columns of blocks].
        block: the structure.
        mask: in the tensor's shape.
        output_axis: the axis of the output units.
    """
    grid = np.zeros((*kept.shape, block.rows, block.columns), tiles.dtype)
    grid[kept] = tiles
    rest = [extent for axis, extent in enumerate(mask.shape) if axis != output_axis]
    matrix = grid.transpose(0, 2, 1, 3).reshape([mask.shape[output_axis], *rest])
    values: Array = np.moveaxis(matrix, 0, output_axis)[mask]
    return values
