"""Loss scaling: taking the factor out of every gradient, also of those that a method passes on to its own tensors."""

from __future__ import annotations

import math

import torch
from torch import nn


def unscale(scaler: torch.amp.GradScaler, optimiser: torch.optim.Optimizer, module: nn.Module) -> bool:
    """Divide the gradients of a backward pass by the scale, in place; return whether all of them are finite.

    The scaler itself sees only what the optimiser holds. A method whose optimiser trains scores or powers turns the
    weights' gradients into theirs afterwards, so these weights are unscaled here, and the scaler learns from the
    tensors that still wait for their gradients whether to leave this step out.

    Args:
        scaler: of the loop.
        optimiser: what it steps.
        module: the network.
    """
    trained = [tensor for group in optimiser.param_groups for tensor in group["params"]]
    held = {id(tensor) for tensor in trained}
    passing = [p for p in module.parameters() if p.grad is not None and id(p) not in held]
    gradients = [parameter.grad for parameter in passing if parameter.grad is not None]
    waiting = [tensor for tensor in trained if tensor.grad is None] if passing else []
    if gradients:
        torch._foreach_mul_(gradients, 1.0 / scaler.get_scale())
        verdict = 0.0 if _finite(gradients) else math.inf
        for tensor in waiting:
            tensor.grad = torch.full_like(tensor, verdict)
    scaler.unscale_(optimiser)
    finite = _finite([tensor.grad for tensor in trained if tensor.grad is not None])
    for tensor in waiting:
        tensor.grad = None
    if not finite:
        # No optimiser clears these, and the next gradients would be added to them.
        for parameter in passing:
            parameter.grad = None
    return finite


def _finite(gradients: list[torch.Tensor]) -> bool:
    # One answer for all, so that a GPU is waited for once.
    return not gradients or bool(torch.stack([torch.isfinite(gradient).all() for gradient in gradients]).all())
