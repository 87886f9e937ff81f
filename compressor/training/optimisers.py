"""Optimisers by their recipe names, and their state as plain named tensors."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch

from ...errors import ModelError
from ..settings import TrainSettings

NamedParameters = Sequence[tuple[str, torch.Tensor]]


def make_optimiser(groups: Sequence[Mapping[str, Any]], settings: TrainSettings) -> torch.optim.Optimizer:
    """Build the optimiser; weight decay reaches every parameter of a group that does not say otherwise.

    Args:
        groups: torch parameter groups (``params`` and, where it differs, ``weight_decay``).
        settings: optimiser, momentum (SGD only), weight decay and precision.

    The fused implementations do decay, momentum and update in one pass over the weights; on the CPU that buys back
    what masking the gradients costs. Loss scaling (float16) drives the optimiser step itself and goes without.

    Raises:
        ModelError: no parameter of the groups has a gradient.
    """
    fused = settings.precision != "float16"
    listed = [dict(group) for group in groups]
    if not any(parameter.requires_grad for group in listed for parameter in group["params"]):
        raise ModelError(
            "nothing of the network is trained: every parameter that the method may train has requires_grad=False. "
            "Leave it on in the factory, or train nothing (--epochs 0)."
        )
    if settings.optimiser == "sgd":
        return torch.optim.SGD(
            listed,
            lr=settings.learning_rate,
            momentum=settings.momentum,
            weight_decay=settings.weight_decay,
            fused=fused,
        )
    kind = torch.optim.AdamW if settings.optimiser == "adamw" else torch.optim.Adam
    return kind(listed, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=fused)


def optimiser_tensors(optimiser: torch.optim.Optimizer, named: NamedParameters) -> dict[str, torch.Tensor]:
    """Return the optimiser's state as ``name/slot`` -> tensor; slots that do not exist yet are left out."""
    return {
        f"{name}/{slot}": value
        for name, parameter in named
        for slot, value in optimiser.state.get(parameter, {}).items()
        if isinstance(value, torch.Tensor)
    }


def restore_optimiser(
    optimiser: torch.optim.Optimizer, named: NamedParameters, tensors: Mapping[str, torch.Tensor]
) -> None:
    """Put back what :func:`optimiser_tensors` returned."""
    parameters = dict(named)
    for key, value in tensors.items():
        name, _, slot = key.rpartition("/")
        parameter = parameters[name]
        # Adam's step count is a scalar that only the fused implementation keeps beside the weights.
        moves = value.dim() > 0 or optimiser.defaults.get("fused")
        optimiser.state[parameter][slot] = value.to(parameter.device) if moves else value


def clear_slots(optimiser: torch.optim.Optimizer, parameter: torch.Tensor, where: torch.Tensor) -> None:
    """Zero the optimiser's memory of the entries of ``parameter`` at which the bool tensor ``where`` is True."""
    for value in optimiser.state.get(parameter, {}).values():
        if isinstance(value, torch.Tensor) and value.shape == parameter.shape:
            value.masked_fill_(where, 0.0)
