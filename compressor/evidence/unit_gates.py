"""Gradients of gates on output units: how the loss reacts when a whole channel or neuron is switched off."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from itertools import islice
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

from ...files import Array
from ...models.class_scores import class_scores
from ...models.prunable import layer_weights
from ...models.tensors import to_numpy
from .gradients import scoring_mode
from .probe import Probe


def unit_gates(probe: Probe) -> dict[str, Array]:
    """Return dL/dc [units], c a gate of 1 on what a layer gives out, by the name of its weight; summed with signs.

    The last prunable layer has none: its units are the network's outputs. Neither have layers whose outputs are not
    its units (the stacked projections of MultiheadAttention). The options ``batches``, ``batch_size`` and ``mode`` say
    from what.
    """
    options = probe.options
    owners = _owners(probe)
    if not owners:
        return {}
    parameters = dict(probe.module.named_parameters())
    gates = {name: torch.ones(parameters[name].shape[0], device=probe.device, requires_grad=True) for name in owners}
    sums = {name: torch.zeros_like(gate) for name, gate in gates.items()}
    drawn = probe.dataset.batches(
        "train", options["batch_size"], seed=probe.seed, epoch=probe.draw, shuffle=True, device=probe.device
    )
    with ExitStack() as stack:
        for name, layer in owners.items():
            stack.callback(layer.register_forward_hook(_gating(gates[name])).remove)
        stack.enter_context(scoring_mode(probe.module, options["mode"]))
        for inputs, labels in islice(drawn, options["batches"]):
            loss = F.cross_entropy(class_scores(probe.module(inputs)), labels)
            found = torch.autograd.grad(loss, list(gates.values()), allow_unused=True)
            for name, gradient in zip(gates, found, strict=True):
                if gradient is not None:
                    sums[name] += gradient
            probe.charge(len(labels))
    return {name: to_numpy(total) for name, total in sums.items()}


def _owners(probe: Probe) -> dict[str, nn.Module]:
    """Return the layer that holds each weight of the space, but for the last."""
    owners: dict[str, nn.Module] = {}
    for prefix, layer in probe.module.named_modules():
        for attribute, _ in layer_weights(layer):
            name = f"{prefix}.{attribute}" if prefix else attribute
            if attribute == "weight" and name in probe.names[:-1]:
                owners[name] = layer
    return owners


def _gating(gate: torch.Tensor) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    def switch(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> torch.Tensor:
        if isinstance(layer, nn.Linear):
            return output * gate
        # Channels of a convolution come after the batch.
        return output * gate.reshape(1, -1, *[1] * (output.dim() - 2))

    return switch
