"""How a recurrent network's state depends on its state some steps ago, and each weight's part in that.

Zhang and Stadie 2020: chi = ||J 1||_2 with J = dh_T / dh_{T-s}, the product of the last recurrent Jacobians.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ...errors import UnsupportedError
from ...files import Array
from ...models.prunable import layer_weights
from ...models.tensors import to_numpy
from .gradients import scoring_mode, trained
from .probe import Probe


def temporal_jacobian(probe: Probe) -> dict[str, Array]:
    """Return d chi / dw by weight name, for the weights that the Jacobian depends on; mean over the examples.

    The state at a step is what a layer that runs once a step is given, where it depends on what the layer was given a
    step before. The options ``batch_size`` and ``span`` (s) say from what; with fewer steps s is all there are.

    Raises:
        UnsupportedError: the network has no such layer.
    """
    named = trained(probe.module, probe.names)
    drawn = probe.dataset.batches(
        "train", probe.options["batch_size"], seed=probe.seed, epoch=probe.draw, shuffle=True, device=probe.device
    )
    inputs, labels = next(iter(drawn))
    with ExitStack() as stack:
        seen: dict[nn.Module, list[torch.Tensor]] = {}
        for layer in probe.module.modules():
            if any(True for _ in layer_weights(layer)):
                stack.callback(layer.register_forward_pre_hook(_remembering(seen)).remove)
        stack.enter_context(scoring_mode(probe.module, "eval"))
        probe.module(inputs)
        chi = inputs.new_zeros(())
        states = [found for found in map(_states, seen.values()) if found is not None]
        for steps in states:
            span = min(probe.options["span"], len(steps) - 1)
            chi = chi + _response(steps[-1], steps[-1 - span])
        if not states:
            raise UnsupportedError(
                "this method needs a recurrent network: a layer that runs once a step on the state of the step before. "
                "The zoo's lstm is one; recurrent layers that the framework runs as a whole hide their steps."
            )
        gradients = torch.autograd.grad(chi, list(named.values()), allow_unused=True)
    # A second derivative, back through the steps.
    probe.charge(len(labels), 3)
    return {name: to_numpy(g) for name, g in zip(named, gradients, strict=True) if g is not None}


def _remembering(seen: dict[nn.Module, list[torch.Tensor]]) -> Any:
    def remember(layer: nn.Module, inputs: tuple[torch.Tensor, ...]) -> None:
        seen.setdefault(layer, []).append(inputs[0])

    return remember


def _states(given: list[torch.Tensor]) -> list[torch.Tensor] | None:
    """Return what a layer was given if each depends on the one before; the first state may be a constant."""
    steps = [x for x in given if x.requires_grad]
    if len(steps) < 2:
        return None
    (before,) = torch.autograd.grad(steps[-1].sum(), [steps[-2]], retain_graph=True, allow_unused=True)
    return None if before is None or steps[-1] is steps[-2] else steps


def _response(last: torch.Tensor, earlier: torch.Tensor) -> torch.Tensor:
    """Return the mean over examples of ||J 1||, J = d last / d earlier: forward mode by differentiating twice."""
    direction = torch.zeros_like(last, requires_grad=True)
    (pulled,) = torch.autograd.grad(last, earlier, direction, create_graph=True)
    (pushed,) = torch.autograd.grad(pulled, direction, torch.ones_like(earlier), create_graph=True)
    size: torch.Tensor = pushed.flatten(1).norm(dim=1).mean()
    return size
