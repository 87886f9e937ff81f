"""From a finished run to its sparse checkpoint: masks, kept values, seeds, and everything worth telling."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from .. import __version__
from ..errors import ModelError
from ..files import Array
from ..models.chain import chain_of
from ..models.seeding.record import REBUILDABLE, SeedRecord
from .allocation import kept_count
from .checkpoint import FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint
from .mask import BoolArray, empty_layers, kept
from .masked_network import MaskedNetwork
from .parametrisations import PARAMETRISATIONS, Handover
from .parametrisations.signs import SCALE, SIGNS_AND_SCALES
from .parametrisations.signs import parts_of as signs_of
from .settings import PruneRecipe
from .sparse_tensor import SparseTensor, handed_tensor, make_tensor
from .structure import recorded_structure
from .training.weights import set_some, state_arrays, state_tensors

# A decoder that computes agrees with the training to this share of a tensor's largest weight.
_ROUNDING = 1e-4


def assemble(network: MaskedNetwork, threads: int) -> SparseCheckpoint:
    """Build the checkpoint of a run whose plan is done.

    Args:
        network: trained and masked as the plan says.
        threads: that it used.
    """
    owners = tied_names(network.module)
    prunable = {tensor.name: tensor for tensor in network.prunable}
    tensors: dict[str, SparseTensor] = {}
    handed = storable(network)
    warnings = warnings_of(network, handed)
    for name, array in state_arrays(network.module).items():
        fields: dict[str, Any] = {"role": _role(network.module, name, owners, prunable)}
        if name in prunable:
            fields["output_axis"] = prunable[name].output_axis
        # Biases and norm entries that went with their units are zeros like any other value.
        mask = network.masks.get(name) if name in prunable else None
        if owners[name] != name:
            fields["alias_of"] = owners[name]
        elif mask is not None:
            structure = recorded_structure(network.recipe.structure)
            fields |= {"structure": structure, **_parametrisation(network, name, array)}
        else:
            fields["seed"] = _drawn(network, name, array)
        handover = handed.get(name) if owners[name] == name else None
        if handover is None:
            tensors[name] = make_tensor(name, array, mask=mask, record=fields)
        else:
            tensors[name] = _taken(network, name, array, mask, fields, handover)
    metadata = CheckpointMetadata(
        format=FORMAT,
        version=VERSION,
        model=network.record,
        recipe=recorded(network.recipe, threads),
        provenance=Provenance(
            {"sparsepack": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
            network.recipe.seed,
            threads,
            _device_name(network.device),
        ),
        tensors=[tensor.record for tensor in tensors.values()],
        chain=chain_of(network.module.cpu(), network.example_inputs(2)),
        training=network.totals.cost(),
        warnings=warnings,
    )
    return SparseCheckpoint(metadata, tensors)


def recorded(recipe: PruneRecipe, threads: int) -> dict[str, Any]:
    """Return the recipe as plain data, with the number of threads that it ran with."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(recipe, threads=threads))
    return plain


def warnings_of(network: MaskedNetwork, handed: Mapping[str, Handover]) -> list[str]:
    """Return what the user should know about the result, in full sentences; ``handed`` is :func:`storable`'s."""
    warnings = [] if network.rule is None else list(network.rule.space.warnings)
    warnings += network.warnings
    empty = "trains no weight" if network.method.frozen else "keeps no weight, so nothing flows through it"
    masked = () if network.rule is None else network.rule.space.names
    warnings += [
        f"layer '{name}' {empty}; a lower sparsity or keep_alive prevents that."
        for name in empty_layers(network.masks)
        if name in masked and network.method.sparsity is None
    ]
    if network.rule is not None and network.masks:
        total = network.rule.space.total
        wanted = kept_count(total, network.sparsity)
        missing = wanted - kept({name: network.masks[name] for name in network.rule.space.names})
        if missing and not network.method.exact:
            warnings.append(
                f"the sparsity came out as {1 - (wanted - missing) / total:.4f}: method '{network.method.name}' finds "
                f"it itself, and was asked for {network.sparsity:.4f}."
            )
        elif missing > 0:
            warnings.append(
                f"structure {network.recipe.structure} cannot keep exactly {wanted} weights; {missing} fewer stay."
            )
    unstored = network.handed.keys() - handed.keys()
    if unstored or (
        network.method.parametrisation in ("frozen", "selected")
        and any(name not in network.seeds for name in network.masks)
    ):
        warnings.append(_no_seed(network))
    if network.plan_computes and not network.counter.known:
        warnings.append("the first axis of the model's inputs is no batch, so its operations were not counted.")
    return warnings


def tied_names(module: nn.Module) -> dict[str, str]:
    """Return for every state_dict name the first name of the same tensor (itself, unless tied)."""
    first: dict[int, str] = {}
    owners: dict[str, str] = {}
    everything = [*module.named_parameters(remove_duplicate=False), *module.named_buffers(remove_duplicate=False)]
    found = {name: id(tensor) for name, tensor in everything}
    for name in state_tensors(module):
        owners[name] = first.setdefault(found.get(name, id(name)), name)
    return owners


def _role(module: nn.Module, name: str, owners: Mapping[str, str], prunable: Mapping[str, Any]) -> str:
    if owners[name] in prunable:
        return "prunable"
    return "parameter" if name in dict(module.named_parameters(remove_duplicate=False)) else "buffer"


def _parametrisation(network: MaskedNetwork, name: str, array: Array) -> dict[str, Any]:
    kind = network.method.parametrisation
    # What is neither of these two is handed over by the training, or stored as the values that came of it; without a
    # seed the weights that it would draw have to be stored, which is what identity does.
    identity = kind not in ("frozen", "selected") or (kind == "selected" and name not in network.seeds)
    seed = _drawn(network, name, array) if identity else network.seeds.get(name)
    return {"parametrisation": "identity" if identity else kind, "seed": seed}


def storable(network: MaskedNetwork) -> dict[str, Handover]:
    """Return what was handed over, as far as it can be stored: not where it takes a seed that the network lacks."""
    found = {}
    for name, handover in network.handed.items():
        kind = PARAMETRISATIONS[handover.parametrisation]
        parts = handover.fields()["parts"]
        if handover.seed or name in network.seeds or parts in kind.unseeded:
            found[name] = handover
        elif kind is SIGNS_AND_SCALES and parts == (SCALE,):
            negative = np.signbit(state_arrays(network.module)[name])
            stored = signs_of(network.masks[name], negative, handover.parts[SCALE])
            found[name] = replace(handover, parts=stored)
    return found


def _taken(
    network: MaskedNetwork,
    name: str,
    array: Array,
    mask: BoolArray | None,
    fields: Mapping[str, Any],
    handover: Handover,
) -> SparseTensor:
    """Return a tensor that was handed over; the network then holds what it decodes to."""
    seed = handover.seed or network.seeds.get(name)
    kind = PARAMETRISATIONS[handover.parametrisation]
    tensor = handed_tensor(name, array.shape, array.dtype.name, handover, mask=mask, record={**fields, "seed": seed})
    decoded = tensor.dense()
    difference = np.abs(decoded.astype(np.float64) - array.astype(np.float64)).max(initial=0.0)
    if not difference <= (0.0 if kind.exact else _ROUNDING * np.abs(array.astype(np.float64)).max(initial=0.0)):
        raise ModelError(
            f"method '{network.method.name}' hands over {handover.parametrisation} for tensor '{name}' that decode to "
            f"other weights than it trained (difference {difference:.3g})."
        )
    set_some(network.module, {name: decoded})
    return tensor


def _drawn(network: MaskedNetwork, name: str, array: Array) -> SeedRecord | None:
    """Return what drew a tensor before it was trained: formats tell its values from there, or need not store them."""
    return network.seeds.get(name) if array.dtype == np.float32 else None


def _no_seed(network: MaskedNetwork) -> str:
    what = "frozen" if network.method.frozen else "selected" if not network.handed else "random"
    if network.recipe.init is None:
        reason = "the model brings its own weights"
    else:
        reason = (
            f"the initialiser '{network.recipe.init}' does not rebuild bit for bit everywhere; "
            f"{', '.join(REBUILDABLE)} do"
        )
    return f"the {what} weights are stored as values, not as a seed: {reason}."


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
