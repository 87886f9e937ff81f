"""Synaptic flow: how much of a network's output passes through each weight, with no data at all.

Every parameter and buffer is replaced by its absolute value (Tanaka et al. 2020) or its square (the L2 path norm, as
Patil and Dovrolis 2021 use it), the input is ones, and R is the sum of the outputs in eval mode.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch.func import functional_call

from ...errors import UnsupportedError
from ...files import Array
from .gradients import scoring_mode
from .probe import Probe


def absolute_flow(probe: Probe) -> dict[str, Array]:
    """Return dR/d|w| of every weight of the space, float64."""
    return _flow(probe, torch.abs)


def squared_flow(probe: Probe) -> dict[str, Array]:
    """Return dR/d(w^2) of every weight of the space, float64."""
    return _flow(probe, torch.square)


def _flow(probe: Probe, positive: Callable[[torch.Tensor], torch.Tensor]) -> dict[str, Array]:
    # The product of many layers leaves the range of float32; float64 holds a thousand.
    parameters = {
        name: positive(p.detach().double()).requires_grad_(name in probe.names)
        for name, p in probe.module.named_parameters()
    }
    buffers = {name: positive(b.double()) if b.is_floating_point() else b for name, b in probe.module.named_buffers()}
    inputs = tuple(
        torch.ones_like(x, dtype=torch.float64 if x.is_floating_point() else x.dtype, device=probe.device)
        for x in probe.examples(1)
    )
    with scoring_mode(probe.module, "eval"):
        total = functional_call(probe.module, (parameters, buffers), inputs).sum()
        if not total.requires_grad:
            raise UnsupportedError("no path of the network leads to its outputs, so nothing flows through any weight.")
        found = torch.autograd.grad(total, [parameters[name] for name in probe.names], allow_unused=True)
    probe.charge(1)
    # Where no path leads through a layer, nothing flows through its weights.
    return {
        name: torch.zeros_like(parameters[name]).detach().cpu().numpy() if flow is None else flow.cpu().numpy()
        for name, flow in zip(probe.names, found, strict=True)
    }
