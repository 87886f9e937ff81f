"""What a checkpoint's tensor becomes in a file: its mask, its stored values, its seed, and a manifest entry.

Guaranteed: for ``fp32`` nothing is rounded and the hash is the checkpoint's; for ``fp16`` the hash is that of the
tensor that the file decodes to. A tensor that is frozen at values that no seed rebuilds is stored whole, and its mask,
which nothing needs to decode it, is dropped.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, dense_tensor
from ..compressor.mask import BoolArray
from ..errors import UnsupportedError, unknown_name
from ..files import Array, numpy_dtype, sha256_array
from ..models.seeding.rebuild import rebuild
from ..models.seeding.record import SeedRecord
from .manifest import TensorEntry

# How values may be stored: unchanged, or rounded to IEEE half precision.
VALUES = ("fp32", "fp16")
_PROBE = 1024


@dataclass(frozen=True)
class Part:
    """One tensor on its way into a file.

    Attributes:
        entry: its manifest entry, without seed and codecs.
        mask: bool, dense shape; None when every weight is stored.
        values: the stored values, 1-D in row-major order, in the stored dtype; None when the seed draws them all.
        seed: what the decoder needs; for an unmasked tensor, what may draw it (see :func:`drawn`); None for neither.
        max_abs_error: of rounding; 0.0 when nothing was rounded.
    """

    entry: TensorEntry
    mask: BoolArray | None
    values: Array | None
    seed: SeedRecord | None
    max_abs_error: float = 0.0


def check_values(values: str) -> None:
    """Raise :class:`UnknownNameError` unless ``values`` is one of :data:`VALUES`."""
    if values not in VALUES:
        raise unknown_name("value type", values, VALUES)


def parts(checkpoint: SparseCheckpoint, values: str) -> Iterator[Part]:
    """Yield every tensor of a checkpoint, in order, as it will be stored.

    Args:
        checkpoint: a sparse checkpoint.
        values: one of :data:`VALUES`.

    Raises:
        UnsupportedError: a value is too large for half precision.
    """
    check_values(values)
    for tensor in checkpoint.tensors.values():
        yield part_of(tensor, values)


def part_of(tensor: SparseTensor, values: str) -> Part:
    """Return one tensor as it will be stored; see :func:`parts`."""
    record = tensor.record
    entry = TensorEntry(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        role=record.role,
        parametrisation="identity",
        output_axis=record.output_axis,
        alias_of=record.alias_of,
    )
    if record.alias_of is not None:
        return Part(entry, None, None, None)
    seeded = record.parametrisation != "identity" and record.seed is not None
    mask = tensor.mask
    if record.masked:
        entry = msgspec.structs.replace(entry, kept=tensor.kept, structure=record.structure)
    if record.parametrisation == "frozen" and not seeded:
        mask = None
    elif record.masked:
        entry = msgspec.structs.replace(entry, masked=True, parametrisation=record.parametrisation)
    stored = None if tensor.values is None else np.ascontiguousarray(tensor.values).reshape(-1)
    error = 0.0
    digest = record.sha256
    if values == "fp16" and stored is not None and rounds(record.role, record.dtype):
        stored, error = half(record.name, stored)
        entry = msgspec.structs.replace(entry, stored="float16")
        decoded = stored.astype(numpy_dtype(record.dtype))
        digest = sha256_array(dense_tensor(record, mask, decoded) if mask is not None else decoded)
    seed = record.seed if seeded or (mask is None and error == 0.0 and entry.stored is None) else None
    return Part(msgspec.structs.replace(entry, sha256=digest), mask, stored, seed, error)


def drawn(part: Part) -> bool:
    """Tell whether the seed of an unmasked tensor draws every stored value, bit for bit: none need be stored."""
    if part.mask is not None or part.values is None or part.seed is None:
        return False
    dtype = part.values.dtype
    for count in (min(part.values.size, _PROBE), part.values.size):
        # Trained tensors differ at once; only a promising one is drawn whole.
        again = rebuild(part.seed, part.entry.shape, 0, count).astype(dtype, copy=False)
        if again.tobytes() != part.values[:count].tobytes():
            return False
    return True


def rounds(role: str, dtype: str) -> bool:
    """Tell whether ``fp16`` rounds a tensor; statistics of normalisation layers and bfloat16 stay as they are."""
    return role != "buffer" and dtype in ("float32", "float64")


def half(name: str, values: Array) -> tuple[Array, float]:
    """Round to IEEE half precision (nearest, ties to even).

    Args:
        name: the tensor's, for the error.
        values: float32 or float64, any shape.

    Returns:
        float16 values in the same shape, and the largest difference that rounding made.

    Raises:
        UnsupportedError: a finite value would become infinite.
    """
    with np.errstate(over="ignore", invalid="ignore"):
        rounded = values.astype(np.float16)
        overflown = np.isinf(rounded) & np.isfinite(values)
        if overflown.any():
            worst = float(np.abs(values[overflown]).max())
            raise UnsupportedError(
                f"tensor '{name}' holds {worst:.6g}, which half precision (largest number 65504) cannot; "
                "export with --values fp32."
            )
        differences = np.abs(rounded.astype(values.dtype) - values)
    finite = differences[np.isfinite(differences)]
    return rounded, float(finite.max()) if finite.size else 0.0
