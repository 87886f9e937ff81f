"""From a finished run to its sparse checkpoint: masks, kept values, seeds, and everything worth telling."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
import numpy as np
import torch
from torch import nn

from .. import __version__
from ..files import Array
from ..models.chain import chain_of
from ..models.seeding.rebuild import rebuild
from ..models.seeding.record import REBUILDABLE, SeedRecord
from .allocation import kept_count
from .checkpoint import FORMAT, VERSION, CheckpointMetadata, Provenance, SparseCheckpoint, SparseTensor, make_tensor
from .engine import Engine
from .mask import empty_layers, kept
from .settings import PruneRecipe
from .structure import recorded_structure
from .training.weights import state_arrays, state_tensors


def assemble(engine: Engine, threads: int) -> SparseCheckpoint:
    """Build the checkpoint of a run whose plan is done.

    Args:
        engine: the run.
        threads: that it used.
    """
    owners = tied_names(engine.module)
    prunable = {tensor.name: tensor for tensor in engine.prunable}
    tensors: dict[str, SparseTensor] = {}
    warnings = engine_warnings(engine)
    for name, array in state_arrays(engine.module).items():
        fields: dict[str, Any] = {"role": _role(engine.module, name, owners, prunable)}
        if name in prunable:
            fields["output_axis"] = prunable[name].output_axis
        # Biases and norm entries that went with their units are zeros like any other value.
        mask = engine.masks.get(name) if name in prunable else None
        if owners[name] != name:
            fields["alias_of"] = owners[name]
        elif mask is not None:
            fields |= {"structure": recorded_structure(engine.recipe.structure), **_parametrisation(engine, name)}
        elif engine.method.parametrisation != "identity":
            fields["seed"] = _untouched(engine.seeds.get(name), array)
        tensors[name] = make_tensor(name, array, mask=mask, record=fields)
    metadata = CheckpointMetadata(
        format=FORMAT,
        version=VERSION,
        model=engine.source.record,
        recipe=recorded(engine.recipe, threads),
        provenance=Provenance(
            {"sparsepack": __version__, "torch": str(torch.__version__), "numpy": np.__version__},
            engine.recipe.seed,
            threads,
            _device_name(engine.device),
        ),
        tensors=[tensor.record for tensor in tensors.values()],
        chain=chain_of(engine.module.cpu(), engine.source.example_inputs(2)),
        training=engine.totals.cost(),
        warnings=warnings,
    )
    return SparseCheckpoint(metadata, tensors)


def recorded(recipe: PruneRecipe, threads: int) -> dict[str, Any]:
    """Return the recipe as plain data, with the number of threads that it ran with."""
    plain: dict[str, Any] = msgspec.to_builtins(msgspec.structs.replace(recipe, threads=threads))
    return plain


def engine_warnings(engine: Engine) -> list[str]:
    """Return what the user should know about the result, in full sentences."""
    warnings = [] if engine.rule is None else list(engine.rule.space.warnings)
    warnings += engine.warnings
    empty = "trains no weight" if engine.method.frozen else "keeps no weight, so nothing flows through it"
    masked = () if engine.rule is None else engine.rule.space.names
    warnings += [
        f"layer '{name}' {empty}; a lower sparsity or keep_alive prevents that."
        for name in empty_layers(engine.masks)
        if name in masked
    ]
    if engine.rule is not None and engine.masks:
        total = engine.rule.space.total
        wanted = kept_count(total, engine.sparsity)
        missing = wanted - kept({name: engine.masks[name] for name in engine.rule.space.names})
        if missing and not engine.method.exact:
            warnings.append(
                f"the sparsity came out as {1 - (wanted - missing) / total:.4f}: method '{engine.method.name}' finds "
                f"it itself, and was asked for {engine.sparsity:.4f}."
            )
        elif missing > 0:
            warnings.append(
                f"structure {engine.recipe.structure} cannot keep exactly {wanted} weights; {missing} fewer stay."
            )
    if engine.method.parametrisation != "identity" and any(name not in engine.seeds for name in engine.masks):
        warnings.append(_no_seed(engine))
    if engine.plan_computes and not engine.counter.known:
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


def _parametrisation(engine: Engine, name: str) -> dict[str, Any]:
    kind = engine.method.parametrisation
    seed = engine.seeds.get(name)
    if kind == "selected" and seed is None:
        # Without a seed the kept weights have to be stored, which is what identity does.
        return {"parametrisation": "identity"}
    return {"parametrisation": kind} if kind == "identity" else {"parametrisation": kind, "seed": seed}


def _untouched(seed: SeedRecord | None, array: Array) -> SeedRecord | None:
    """Return the record of a tensor that training has left as it was drawn, for formats that need not store it."""
    if seed is None or array.dtype != np.float32:
        return None
    return seed if rebuild(seed, array.shape).tobytes() == array.tobytes() else None


def _no_seed(engine: Engine) -> str:
    what = "frozen" if engine.method.frozen else "selected"
    if engine.recipe.init is None:
        reason = "the model brings its own weights"
    else:
        reason = (
            f"the initialiser '{engine.recipe.init}' does not rebuild bit for bit everywhere; "
            f"{', '.join(REBUILDABLE)} do"
        )
    return f"the {what} weights are stored as values, not as a seed: {reason}."


def _device_name(device: torch.device) -> str:
    return torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
