"""A smaller checkpoint: the torch network itself without its dead channels, neurons and heads.

What :mod:`.slim` cuts out of a graph is cut out of the checkpoint's tensors; the record of the model says which indices
stay. Whatever takes a checkpoint takes the result: it can be pruned and trained further, exported to any format, and
rebuilt as a module by :func:`sparsepack.load`. No code is stored.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import torch

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from ..errors import UnsupportedError
from ..files import Array, refuse_existing
from ..models.chain import chain_of
from ..models.evaluating import evaluating
from ..models.slimming.kept import Flags, to_record
from ..models.slimming.source import slimmed_source
from ..models.source import OnnxSource, TorchSource, source_from_record
from .materialise import zero_outside
from .onnx_model import lowered
from .slim import Removal, dead_structure
from .slim_account import Account
from .slim_fold import source as initializer_behind

_BOUND = 1e-4
_ROUNDING = 1e-5


@dataclass(frozen=True)
class SlimmedCheckpoint:
    """What slimming a checkpoint returns.

    Attributes:
        checkpoint: the smaller one.
        account: what went, what stayed and why.
    """

    checkpoint: SparseCheckpoint
    account: Account


def write_slimmed(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    model: str | None = None,
    approximate: bool = False,
    force: bool = False,
) -> Account:
    """Write a checkpoint without its dead structure.

    Args:
        checkpoint: of a torch network.
        path: where to.
        model: the user's own code that it was made from.
        approximate: also remove constant channels that are read across zero padding.
        force: whether an existing file may be replaced.

    Returns:
        What went, what stayed and why.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: the network cannot be lowered or followed; see :func:`slim_module_of`.
        ModelError: the checkpoint is not that of the model.
    """
    refuse_existing(path, force)
    source = source_from_record(checkpoint.metadata.model, model)
    slimmed = slim_module_of(checkpoint, source, approximate=approximate)
    slimmed.checkpoint.save(path, force=force)
    return slimmed.account


def slim_module_of(
    checkpoint: SparseCheckpoint, source: TorchSource | OnnxSource, *, approximate: bool = False
) -> SlimmedCheckpoint:
    """Return a checkpoint without its dead structure.

    Guaranteed: unless ``approximate``, the smaller module computes what the masked one computes, which is compared.

    Args:
        checkpoint: of a torch network; frozen and selected weights are materialised.
        source: the network.
        approximate: also remove constant channels that are read across zero padding.

    Raises:
        UnsupportedError: an ONNX file (slim the file itself), a network that cannot be lowered or that torch.fx does
            not follow, or a constant that no layer can take over.
    """
    if isinstance(source, OnnxSource):
        raise UnsupportedError("the checkpoint is that of an ONNX file; 'compress export --to onnx-slim' slims it.")
    removal = dead_structure(lowered(source, checkpoint), approximate)
    state = {name: array.copy() for name, array in checkpoint.dense_state().items()}
    kept = _kept(removal, checkpoint)
    for name, values in _shifts(removal, state).items():
        if name not in state:
            weight = f"{name.removesuffix('.bias')}.weight"
            flags = removal.cut.keep(weight, 0)
            state[name] = np.zeros(values.size, state[weight].dtype)
            kept[name] = (np.ones(values.size, np.bool_) if flags is None else flags,)
        state[name] = (state[name].astype(np.float64) + values).astype(state[name].dtype)
    small = {name: _cut(array, kept.get(name, ())) for name, array in state.items()}
    before = slimmed_source(source, {}, checkpoint.dense_state()).build()
    after_source = slimmed_source(source, to_record(kept), small)
    after = after_source.build()
    if not approximate:
        _compare(before, after, source.example_inputs(4, seed=1))
    tensors = _tensors(checkpoint, small, kept)
    metadata = msgspec.structs.replace(
        checkpoint.metadata,
        model=after_source.record,
        tensors=[tensor.record for tensor in tensors.values()],
        chain=chain_of(after, source.example_inputs(2)),
    )
    return SlimmedCheckpoint(SparseCheckpoint(metadata, tensors), removal.account)


def _kept(removal: Removal, checkpoint: SparseCheckpoint) -> dict[str, tuple[Flags | None, ...]]:
    found = {}
    for name, tensor in checkpoint.tensors.items():
        axes = removal.cut.kept.get(tensor.record.alias_of or name)
        if axes is not None:
            found[name] = axes
    return found


def _shifts(removal: Removal, state: Mapping[str, Array]) -> dict[str, Array]:
    """Return the constants that removed units contributed, by the bias that takes them over."""
    found: dict[str, Array] = {}
    for shift in removal.shifts:
        if not shift.values.any():
            continue
        weight = initializer_behind(removal.cut.dimensions, removal.cut.dimensions.nodes[shift.node].inputs[1])
        bias = f"{weight.removesuffix('.weight')}.bias"
        if not weight.endswith(".weight") or weight not in state or (bias in state and state[bias].ndim != 1):
            raise UnsupportedError(
                f"removed units leave a constant that the layer of '{weight}' has no bias for; mask their biases too "
                "(structure channel does), or use --to onnx-slim."
            )
        found[bias] = found.get(bias, np.zeros(shift.values.shape)) + shift.values
    return found


def _cut(array: Array, axes: tuple[Flags | None, ...]) -> Array:
    for axis, flags in enumerate(axes):
        if flags is not None:
            array = np.compress(flags, array, axis)
    return array


def _tensors(
    checkpoint: SparseCheckpoint, small: Mapping[str, Array], kept: Mapping[str, tuple[Flags | None, ...]]
) -> dict[str, SparseTensor]:
    tensors: dict[str, SparseTensor] = {}
    for name, array in small.items():
        old = checkpoint.tensors.get(name)
        if old is None:
            tensors[name] = make_tensor(name, array)
            continue
        record = old.record
        fields: dict[str, Any] = {"role": record.role, "output_axis": record.output_axis, "alias_of": record.alias_of}
        mask = None
        if old.mask is not None and zero_outside(record):
            mask = _cut(old.mask, kept.get(name, ())).astype(np.bool_)
        if mask is not None and not mask.all():
            fields["structure"] = record.structure
            tensors[name] = make_tensor(name, array, mask=mask, record=fields)
        else:
            tensors[name] = make_tensor(name, array, record=fields)
    return tensors


def _compare(before: torch.nn.Module, after: torch.nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
    with evaluating(before), evaluating(after):
        expected, found = before(*inputs), after(*inputs)
    if not isinstance(expected, torch.Tensor):
        return
    difference = float((expected - found).abs().max())
    allowed = max(_BOUND * float(expected.std(dim=0).mean()), _ROUNDING * float(expected.abs().max()))
    if not difference <= allowed:
        raise UnsupportedError(
            f"the slimmed module does not compute what the masked one computes (difference {difference:.3g}), so "
            "nothing was written: its forward uses channel numbers in a way that is not followed; --to onnx-slim can."
        )
