"""Which inputs of a layer anything reaches: units that a mask cut off give zero for every input."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn
from torch.func import functional_call

from ...models.prunable import layer_weights
from .gradients import scoring_mode
from .probe import Probe


def reached_inputs(probe: Probe) -> dict[str, float]:
    """Return, by weight name, the share of a layer's input units that a path of kept weights leads to.

    Ones are sent through the network of absolute weights, whose biases, shifts and means are zero.
    """
    shares: dict[str, float] = {}
    module = probe.module
    parameters = {
        name: (p.detach().double().abs() if p.dim() > 1 or name.endswith("weight") else torch.zeros_like(p).double())
        for name, p in module.named_parameters()
    }
    buffers = {
        name: (torch.zeros_like(b) if name.endswith("running_mean") else b).double() if b.is_floating_point() else b
        for name, b in module.named_buffers()
    }
    inputs = tuple(
        torch.ones_like(x, dtype=torch.float64 if x.is_floating_point() else x.dtype, device=probe.device)
        for x in probe.examples(1)
    )
    with ExitStack() as stack, torch.no_grad():
        for prefix, layer in module.named_modules():
            if any(attribute == "weight" for attribute, _ in layer_weights(layer)):
                name = f"{prefix}.weight" if prefix else "weight"
                stack.callback(layer.register_forward_hook(_looking(shares, name)).remove)
        stack.enter_context(scoring_mode(module, "eval"))
        functional_call(module, (parameters, buffers), inputs)
    return {name: share for name, share in shares.items() if name in probe.names}


def _looking(shares: dict[str, float], name: str) -> Callable[[nn.Module, Any, torch.Tensor], None]:
    def look(layer: nn.Module, inputs: tuple[torch.Tensor, ...], _output: torch.Tensor) -> None:
        x = inputs[0]
        # Units of a linear layer's input are the last axis, those of a convolution's the one after the batch.
        units = x.movedim(-1 if isinstance(layer, nn.Linear) else 1, 0).flatten(1)
        shares[name] = float((units != 0).any(dim=1).double().mean())

    return look
