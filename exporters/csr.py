"""``csr``: compressed sparse rows that scipy and torch take as they are.

A masked tensor is a matrix with one row an output unit: [O, I] as it is, a convolution's [O, I, kH, kW] as
(O, I*kH*kW), an ONNX MatMul's [K, N] (output axis 1) transposed to (N, K). Its arrays are ``<name>.crow_indices``
(rows + 1), ``<name>.col_indices`` (rising within a row) and ``<name>.values``; a selected tensor has no values, its
seed draws them. A tensor without a mask stands under its own name. Frozen weights come from the seed too.

A mask of blocks (structure ``block:RxC``) is stored as block sparse rows (BSR): the same arrays with one row a row of
blocks and one column a column of them, ``<name>.values`` as [blocks, R, C]; see :mod:`.bsr`.

Indices are int32; int64 where a consumer wants it (torch with MKL takes either, both of one type), uint16 for files of
half the index bytes (scipy widens them; row pointers stay int32).
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import NamedTuple

import numpy as np

from ..compressor.block import Block, block_of
from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.mask import BoolArray
from ..errors import FileFormatError, UnsupportedError, unknown_name
from ..files import Array, TensorFile
from .arrays import ArraysArtifact, ArraySpec, scale_arrays, scale_spec, whole_arrays, write_arrays
from .bsr import BsrMatrix, from_tiles, to_tiles
from .codecs.tiles import kept_tiles
from .container import StoredTensor
from .manifest import TensorEntry
from .parts import Part

FORMAT = "csr"
VERSION = 1
# Index type -> type of the row pointers, and the largest number of columns.
INDEX_DTYPES = {"int32": ("int32", 2**31 - 1), "int64": ("int64", 2**63 - 1), "uint16": ("int32", 2**16)}


class CsrMatrix(NamedTuple):
    """One tensor as CSR arrays: ``scipy.sparse.csr_matrix((values, col_indices, crow_indices), shape)``."""

    crow_indices: Array
    col_indices: Array
    values: Array
    shape: tuple[int, int]


def matrix_shape(shape: tuple[int, ...], output_axis: int) -> tuple[int, int]:
    """Return rows (output units) and columns of the matrix that a tensor of ``shape`` is stored as."""
    if not shape:
        return 1, 1
    return shape[output_axis], math.prod(extent for axis, extent in enumerate(shape) if axis != output_axis)


def write_csr(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    values: str = "fp32",
    force: bool = False,
    index_dtype: str = "int32",
) -> None:
    """Write a checkpoint as ``csr``.

    Args:
        checkpoint: any checkpoint.
        path: where to.
        values: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        force: whether an existing file may be replaced.
        index_dtype: of the column indices, one of :data:`INDEX_DTYPES`.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnknownNameError: no such index type.
        UnsupportedError: a tensor is too large for the indices, or a value for the value type.
    """
    if index_dtype not in INDEX_DTYPES:
        raise unknown_name("index type", index_dtype, INDEX_DTYPES)
    write_arrays(
        checkpoint,
        path,
        format=FORMAT,
        version=VERSION,
        arrays_of=lambda part: _arrays(part, index_dtype),
        values=values,
        force=force,
        index_dtype=index_dtype,
    )


def _arrays(part: Part, index_dtype: str) -> dict[str, Array]:
    name, shape = part.entry.name, part.entry.shape
    if part.mask is None:
        return whole_arrays(part)
    rows, columns = matrix_shape(shape, part.entry.output_axis)
    pointers, most = INDEX_DTYPES[index_dtype]
    if columns > most or part.entry.kept_count > np.iinfo(pointers).max:
        wider = "int32" if max(columns, part.entry.kept_count) <= INDEX_DTYPES["int32"][1] else "int64"
        raise UnsupportedError(
            f"tensor '{name}' of shape {shape} has {columns} columns and keeps {part.entry.kept_count} weights, "
            f"too many for {index_dtype} indices; give --index-dtype {wider}, or use 'packed'."
        )
    block = block_of(part.entry.structure, shape, part.entry.output_axis)
    tiles = None if block is None else kept_tiles(part.mask, block, part.entry.output_axis)
    if block is None or tiles is None:
        matrix = _as_matrix(part.mask, part.entry)
    else:
        matrix = tiles.reshape(rows // block.rows, -1)
    crow, col = _pointers(matrix, index_dtype)
    arrays: dict[str, Array] = {f"{name}.crow_indices": crow, f"{name}.col_indices": col}
    if part.values is not None:
        values = part.values if part.coded is None else part.coded.codes
        if block is None or tiles is None:
            arrays[f"{name}.values"] = reorder(values, part.mask, matrix, part.entry)
        else:
            arrays[f"{name}.values"] = to_tiles(values, part.mask, block, part.entry.output_axis)
    return arrays | scale_arrays(part)


def _pointers(matrix: BoolArray, index_dtype: str) -> tuple[Array, Array]:
    """Return row pointers and column indices of what a matrix keeps."""
    crow = np.zeros(len(matrix) + 1, INDEX_DTYPES[index_dtype][0])
    np.cumsum(np.count_nonzero(matrix, axis=1), out=crow[1:])
    return crow, np.nonzero(matrix)[1].astype(index_dtype)


def _as_matrix(array: Array, entry: TensorEntry) -> Array:
    moved = np.moveaxis(array, entry.output_axis, 0) if array.ndim else array
    return moved.reshape(matrix_shape(entry.shape, entry.output_axis))


def _from_matrix(matrix: Array, entry: TensorEntry) -> Array:
    if not entry.shape:
        return matrix.reshape(())
    rest = [extent for axis, extent in enumerate(entry.shape) if axis != entry.output_axis]
    moved = matrix.reshape([entry.shape[entry.output_axis], *rest])
    return np.ascontiguousarray(np.moveaxis(moved, 0, entry.output_axis))


def reorder(values: Array, mask: BoolArray, matrix: BoolArray, entry: TensorEntry) -> Array:
    """Return kept values, given in the tensor's row-major order, in the matrix's; see :func:`_as_matrix`."""
    if entry.output_axis == 0:
        return values
    dense = np.empty(mask.shape, values.dtype)
    dense[mask] = values
    ordered: Array = _as_matrix(dense, entry)[matrix]
    return ordered


class CsrArtifact(ArraysArtifact):
    """An opened ``csr`` file."""

    def __init__(self, file: TensorFile) -> None:
        super().__init__(file, FORMAT, VERSION)

    def spec(self, entry: TensorEntry) -> ArraySpec:
        """Return the arrays of a tensor; see :meth:`.arrays.ArraysArtifact.spec`."""
        if not entry.masked:
            return {entry.name: (entry.stored_dtype, entry.shape), **scale_spec(entry)}
        rows, _ = matrix_shape(entry.shape, entry.output_axis)
        if self.manifest.index_dtype not in INDEX_DTYPES:
            raise FileFormatError(f"{self.path} has indices of the unknown type '{self.manifest.index_dtype}'.")
        pointers, _ = INDEX_DTYPES[self.manifest.index_dtype]
        block = self.block(entry)
        height = 1
        shape: tuple[int, ...] = (entry.kept_count,)
        if block is not None:
            height = block.rows
            shape = (entry.kept_count // (block.rows * block.columns), block.rows, block.columns)
        spec: ArraySpec = {
            f"{entry.name}.crow_indices": (pointers, (rows // height + 1,)),
            f"{entry.name}.col_indices": (self.manifest.index_dtype, shape[:1]),
        }
        if entry.parametrisation != "selected":
            spec[f"{entry.name}.values"] = (entry.stored_dtype, shape)
        return spec | scale_spec(entry)

    def block(self, entry: TensorEntry) -> Block | None:
        """Return the blocks in which a tensor is stored; None where it is stored weight by weight.

        A mask may have lost the structure that it was selected as: then there is a column index for each weight.
        """
        block = block_of(entry.structure, entry.shape, entry.output_axis)
        name = f"{entry.name}.col_indices"
        if block is None or name not in self.file:
            return None
        blocks, rest = divmod(entry.kept_count, block.rows * block.columns)
        return None if rest or self.file.shape(name) != (blocks,) else block

    def csr(self, name: str) -> CsrMatrix:
        """Return a masked tensor's matrix, checked; values in the tensor's own dtype, a selected tensor's drawn.

        Raises:
            FileFormatError: the tensor has no mask, or its arrays are malformed.
        """
        entry = self._entry(self._entry(name).alias_of or name)
        if not entry.masked:
            raise FileFormatError(f"{self.path}: tensor '{name}' has no mask; it is stored whole, under its own name.")
        matrix = _as_matrix(np.asarray(self.read(entry).mask), entry)
        crow, col = _pointers(matrix, self.manifest.index_dtype)
        values = _as_matrix(self.tensor(entry.name), entry)[matrix]
        return CsrMatrix(crow, col, values, matrix_shape(entry.shape, entry.output_axis))

    def bsr(self, name: str) -> BsrMatrix:
        """Return the matrix of a tensor whose mask is one of blocks, as :meth:`csr` does.

        Raises:
            FileFormatError: the tensor has no mask of blocks, or its arrays are malformed.
        """
        entry = self._entry(self._entry(name).alias_of or name)
        block = self.block(entry) if entry.masked else None
        if block is None:
            raise FileFormatError(f"{self.path}: tensor '{name}' is not stored in blocks.")
        mask = np.asarray(self.read(entry).mask)
        crow, col = (self.file.read(f"{entry.name}.{part}_indices") for part in ("crow", "col"))
        values = to_tiles(self.tensor(entry.name)[mask], mask, block, entry.output_axis)
        return BsrMatrix(crow, col, values, matrix_shape(entry.shape, entry.output_axis))

    def read(self, entry: TensorEntry) -> StoredTensor:
        """Return mask and values; see :meth:`.container.ContainerArtifact.read`."""
        if not entry.masked:
            return self.scaled(entry, None, self.file.read(entry.name).reshape(-1), "dense")
        block = self.block(entry)
        rows, columns = matrix_shape(entry.shape, entry.output_axis)
        if block is not None:
            rows, columns = rows // block.rows, columns // block.columns
        matrix = self._kept(entry, rows, columns)
        kind = "csr" if block is None else "bsr"
        if block is None:
            mask: BoolArray = _from_matrix(matrix, entry)
        else:
            mask = block.spread(matrix.reshape(-1), entry.shape, entry.output_axis)
        if entry.parametrisation == "selected":
            return StoredTensor(mask, None, f"{kind} + seeded")
        values = self.file.read(f"{entry.name}.values")
        if block is not None:
            values = from_tiles(values, matrix, block, mask, entry.output_axis)
        elif entry.output_axis != 0:
            dense = np.empty(matrix.shape, values.dtype)
            dense[matrix] = values
            values = _from_matrix(dense, entry)[mask]
        return self.scaled(entry, mask, values, kind)

    def _kept(self, entry: TensorEntry, rows: int, columns: int) -> BoolArray:
        """Return which weights, or blocks, of the matrix the indices name; they are checked."""
        crow = self.file.read(f"{entry.name}.crow_indices").astype(np.int64)
        col = self.file.read(f"{entry.name}.col_indices").astype(np.int64)
        counts = np.diff(crow)
        if crow[0] != 0 or crow[-1] != col.size or (counts < 0).any():
            raise FileFormatError("its row pointers do not rise from 0 to the number of kept weights.")
        if col.size and (int(col.min()) < 0 or int(col.max()) >= columns):
            raise FileFormatError(f"a column index is outside 0 to {columns - 1}.")
        flat = np.repeat(np.arange(rows, dtype=np.int64), counts) * columns + col
        if (np.diff(flat) <= 0).any():
            raise FileFormatError("column indices do not rise within a row.")
        matrix = np.zeros((rows, columns), np.bool_)
        matrix.reshape(-1)[flat] = True
        return matrix
