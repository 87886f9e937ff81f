"""``nm``: N:M structured weights, ready to be packed for sparse tensor cores when they are loaded.

A masked tensor is taken in reduction order: one row an output unit, [O, I] along I, a convolution as (O, kH, kW, I), an
ONNX MatMul's [K, N] along K; each row falls into blocks of M of which exactly N weights are kept. Its arrays are
``<name>.values`` (rows, kept weights of a row, in that order) and ``<name>.indices`` (uint8: the place of each kept
weight in its block, ceil(log2 M) bits each, lowest bits first, no padding but in the last byte). A selected tensor has
indices only. A tensor without a mask (its length is no multiple of M) stands under its own name.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.mask import BoolArray
from ..compressor.structure import NofM, from_blocks, n_of_m_of, to_blocks
from ..errors import FileFormatError, RuntimeUnavailableError, UnsupportedError, unknown_name
from ..files import Array, TensorFile
from .arrays import ArraysArtifact, ArraySpec, scale_arrays, scale_spec, whole_arrays, write_arrays
from .codecs import bits
from .container import StoredTensor
from .manifest import TensorEntry
from .materialise import zero_outside
from .parts import Part

if TYPE_CHECKING:
    import torch

FORMAT = "nm"
VERSION = 1
# Rows and columns that the half-precision kernels behind torch.sparse.to_sparse_semi_structured take whole.
SEMI_STRUCTURED = (32, 64)


def index_width(m: int) -> int:
    """Return the bits of a place in a block of ``m``: ceil(log2 m)."""
    return (m - 1).bit_length()


def write_nm(checkpoint: SparseCheckpoint, path: Path, *, values: str = "fp32", force: bool = False) -> None:
    """Write a checkpoint whose masks are N:M as ``nm``.

    Args:
        checkpoint: every mask in it is N:M; tensors that stayed dense are stored whole.
        path: where to.
        values: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        force: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: a mask is not N:M, a tensor is frozen, there is no mask, or a value is too large.
    """
    masked = [t.record for t in checkpoint.tensors.values() if t.record.masked]
    if not masked:
        raise UnsupportedError("the format 'nm' stores N:M masks, and this checkpoint has no mask; use 'packed'.")
    for record in masked:
        if not zero_outside(record):
            frozen = record.parametrisation == "frozen"
            there = "frozen there at its initial values" if frozen else f"'{record.parametrisation}', dense there"
            raise UnsupportedError(
                f"the format 'nm' stores weights that are zero outside an N:M mask; tensor '{record.name}' is {there}. "
                "Use 'packed' or 'csr'."
            )
        if n_of_m_of(record.structure) is None:
            raise UnsupportedError(
                f"the format 'nm' stores N:M masks only; the mask of tensor '{record.name}' has the structure "
                f"'{record.structure}'. Use 'packed' or 'csr', or prune with --structure 2:4."
            )
    write_arrays(checkpoint, path, format=FORMAT, version=VERSION, arrays_of=_arrays, values=values, force=force)


def _arrays(part: Part) -> dict[str, Array]:
    name, axis = part.entry.name, part.entry.output_axis
    if part.mask is None:
        return whole_arrays(part)
    structure = n_of_m_of(part.entry.structure)
    rows = _rows(part.entry.shape, axis)
    if structure is None or rows is None or rows[1] % structure.m:
        raise UnsupportedError(f"tensor '{name}' of shape {part.entry.shape} has no blocks of {part.entry.structure}.")
    blocks: BoolArray = to_blocks(part.mask, axis, structure.m)
    if not (np.count_nonzero(blocks, axis=1) == structure.n).all():
        raise UnsupportedError(
            f"the mask of tensor '{name}' does not keep {structure.n} weights in every {structure.m}."
        )
    places = np.nonzero(blocks)[1].astype(np.uint64)
    arrays: dict[str, Array] = {}
    if part.values is not None:
        values = part.values if part.coded is None else part.coded.codes
        dense = np.empty(part.mask.shape, values.dtype)
        dense[part.mask] = values
        arrays[f"{name}.values"] = to_blocks(dense, axis, structure.m)[blocks].reshape(rows[0], -1)
    arrays[f"{name}.indices"] = bits.pack(places, index_width(structure.m))
    return arrays | scale_arrays(part)


def _rows(shape: tuple[int, ...], axis: int) -> tuple[int, int] | None:
    """Return output units and reduction length, or None for a tensor that has no such axes or no weights."""
    if len(shape) < 2 or 0 in shape:
        return None
    return shape[axis], math.prod(shape) // shape[axis]


def from_semi_structured(tensor: torch.Tensor) -> Array:
    """Return what :meth:`NmArtifact.to_semi_structured` made, dense, in its own type, on the CPU."""
    from ..models.tensors import to_numpy

    return to_numpy(tensor.to_dense())


class NmArtifact(ArraysArtifact):
    """An opened ``nm`` file."""

    def __init__(self, file: TensorFile) -> None:
        super().__init__(file, FORMAT, VERSION)

    def spec(self, entry: TensorEntry) -> ArraySpec:
        """Return the arrays of a tensor; see :meth:`.arrays.ArraysArtifact.spec`."""
        if not entry.masked:
            return {entry.name: (entry.stored_dtype, entry.shape), **scale_spec(entry)}
        structure, (rows, columns) = self._blocks(entry)
        kept = columns // structure.m * structure.n
        spec: ArraySpec = {}
        if entry.parametrisation != "selected":
            spec[f"{entry.name}.values"] = (entry.stored_dtype, (rows, kept))
        width = index_width(structure.m)
        spec[f"{entry.name}.indices"] = ("uint8", (bits.packed_size(rows * kept, width),))
        return spec | scale_spec(entry)

    def to_semi_structured(self, name: str, dtype: str = "float16") -> torch.Tensor:
        """Return a 2:4 matrix as PyTorch's semi-structured tensor on the CUDA device, packed for its tensor cores now.

        :func:`from_semi_structured` is the way back.

        Args:
            name: a masked tensor of two axes with output axis 0.
            dtype: ``float16`` or ``bfloat16``; the values are rounded to it.

        Raises:
            UnsupportedError: it is no 2:4 matrix, or its shape is none that the kernels take.
            RuntimeUnavailableError: there is no CUDA device.
        """
        entry = self._entry(self._entry(name).alias_of or name)
        if not entry.masked or entry.structure != "2:4" or len(entry.shape) != 2 or entry.output_axis != 0:
            raise UnsupportedError(
                f"tensor '{name}' is no 2:4 matrix of [outputs, inputs]; the hardware takes no other."
            )
        if entry.shape[0] % SEMI_STRUCTURED[0] or entry.shape[1] % SEMI_STRUCTURED[1]:
            raise UnsupportedError(
                f"tensor '{name}' of shape {entry.shape} does not divide into tiles of {SEMI_STRUCTURED}, which the "
                "kernels behind PyTorch's semi-structured tensors ask for."
            )
        if dtype not in ("float16", "bfloat16"):
            raise unknown_name("type of a semi-structured tensor", dtype, ("float16", "bfloat16"))
        import torch

        from ..models.tensors import to_torch

        if not torch.cuda.is_available():
            raise RuntimeUnavailableError("PyTorch's semi-structured tensors live on a CUDA device, and there is none.")
        dense = to_torch(self.tensor(name)).to("cuda", getattr(torch, dtype))
        packed: torch.Tensor = torch.sparse.to_sparse_semi_structured(dense)
        return packed

    def read(self, entry: TensorEntry) -> StoredTensor:
        """Return mask and values; see :meth:`.container.ContainerArtifact.read`."""
        if not entry.masked:
            return self.scaled(entry, None, self.file.read(entry.name).reshape(-1), "dense")
        structure, (rows, columns) = self._blocks(entry)
        count = rows * columns // structure.m
        packed = self.file.read(f"{entry.name}.indices").tobytes()
        places = bits.unpack(packed, count * structure.n, index_width(structure.m)).astype(np.int64)
        places = places.reshape(count, structure.n)
        if (places >= structure.m).any() or (np.diff(places, axis=1) <= 0).any():
            raise FileFormatError(f"the places of a {structure.text} block do not rise from 0 to {structure.m - 1}.")
        blocks = np.zeros((count, structure.m), np.bool_)
        np.put_along_axis(blocks, places, True, axis=1)
        mask: BoolArray = from_blocks(blocks, entry.shape, entry.output_axis)
        if entry.parametrisation == "selected":
            return StoredTensor(mask, None, f"{structure.text} + seeded")
        values = self.file.read(f"{entry.name}.values").reshape(-1)
        dense = np.empty(blocks.shape, values.dtype)
        dense[blocks] = values
        ordered = from_blocks(dense, entry.shape, entry.output_axis)[mask]
        return self.scaled(entry, mask, ordered, structure.text)

    def _blocks(self, entry: TensorEntry) -> tuple[NofM, tuple[int, int]]:
        structure, rows = n_of_m_of(entry.structure), _rows(entry.shape, entry.output_axis)
        if structure is None or rows is None or rows[1] % structure.m:
            raise FileFormatError(f"{self.path}: tensor '{entry.name}' has no blocks of '{entry.structure}'.")
        if entry.kept_count * structure.m != entry.size * structure.n:
            raise FileFormatError(f"{self.path}: tensor '{entry.name}' cannot keep {entry.kept_count} weights.")
        return structure, rows
