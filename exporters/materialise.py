"""Tensors that a format cannot keep as signs, choices, coefficients or coordinates, as values; and what that costs."""

from __future__ import annotations

from collections.abc import Collection

import msgspec

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, TensorRecord
from ..compressor.parametrisations import PARAMETRISATIONS as KINDS
from .manifest_checks import PARAMETRISATIONS


def plain(tensor: SparseTensor, keeps: Collection[str] = PARAMETRISATIONS) -> SparseTensor:
    """Return a tensor as mask and values, the same bits dense.

    A tensor that is zero outside its mask keeps the mask; any other is stored whole, as one frozen at values is.

    Args:
        tensor: of a checkpoint.
        keeps: parametrisations that are returned as they are.
    """
    record = tensor.record
    if record.parametrisation in keeps or record.alias_of is not None:
        return tensor
    dense = tensor.dense()
    masked = record.masked and tensor.mask is not None
    zeros = KINDS[record.parametrisation].zero_outside
    values = dense[tensor.mask] if masked and zeros else dense
    kind = "identity" if zeros or not masked else "frozen"
    made = msgspec.structs.replace(
        record, parametrisation=kind, seed=None, parts=(), count=0, task=0, shares=None, masked=masked
    )
    return SparseTensor(made, tensor.mask, values)


def plain_checkpoint(checkpoint: SparseCheckpoint, keeps: Collection[str] = PARAMETRISATIONS) -> SparseCheckpoint:
    """Return a checkpoint whose tensors are all :func:`plain`; itself where they are."""
    if all(record.parametrisation in keeps for record in checkpoint.metadata.tensors):
        return checkpoint
    tensors = {name: plain(tensor, keeps) for name, tensor in checkpoint.tensors.items()}
    metadata = msgspec.structs.replace(checkpoint.metadata, tensors=[tensor.record for tensor in tensors.values()])
    return SparseCheckpoint(metadata, tensors)


def stored_bytes(tensor: SparseTensor) -> int:
    """Return what a checkpoint stores of a tensor besides its mask, in bytes; a shared part counts where it lies."""
    record = tensor.record
    kind = KINDS[record.parametrisation]
    own = [tensor.parts[part] for part in record.parts if not (record.shares and part in kind.shared)]
    return sum(array.nbytes for array in own) + (0 if tensor.values is None else tensor.values.nbytes)


def materialisation(checkpoint: SparseCheckpoint, keeps: Collection[str] = PARAMETRISATIONS) -> str | None:
    """Return a sentence on what a format stores more because it keeps only some parametrisations; None for nothing."""
    names: set[str] = set()
    before = after = 0
    for record in checkpoint.metadata.tensors:
        if record.parametrisation in keeps or record.alias_of is not None:
            continue
        tensor = checkpoint.tensors[record.name]
        names.add(record.parametrisation)
        before += stored_bytes(tensor)
        made = plain(tensor, keeps).values
        after += 0 if made is None else made.nbytes
    if not names:
        return None
    return (
        f"this format stores values where the checkpoint stores {' and '.join(sorted(names))}: {after} bytes of values "
        f"instead of {before}, before any coding. Export to 'packed' to keep what the method saved."
    )


def zero_outside(record: TensorRecord) -> bool:
    """Tell whether every weight that a tensor's mask leaves out is zero."""
    return KINDS[record.parametrisation].zero_outside
