"""Gradients of gates through a few training steps: what a weight is worth to the network that it becomes.

Alizadeh et al. 2022 (ProsPr): the effective weights are w c with gates c = 1; M steps of SGD with momentum are taken
on the weights, and the loss of a further batch is differentiated with respect to c, back through the steps.
"""

from __future__ import annotations

from itertools import islice

import torch
import torch.nn.functional as F
from torch.func import functional_call

from ...files import Array
from ...models.class_scores import class_scores
from ...models.tensors import to_numpy
from .gradients import scoring_mode, trained
from .probe import Probe

Tensors = dict[str, torch.Tensor]


def unrolled_gates(probe: Probe) -> dict[str, Array]:
    """Return dL_M/dc by weight name; zero where the loss does not reach.

    The options ``steps`` (M), ``inner_rate``, ``inner_momentum``, ``first_order`` (only the last gradient is taken
    through the gates), ``batch_size`` and ``mode`` say how. Memory grows with M times the network.
    """
    options, full = probe.options, not probe.options["first_order"]
    weights: Tensors = {name: p.detach() for name, p in probe.module.named_parameters() if p.requires_grad}
    weights = {name: p.requires_grad_() for name, p in weights.items()}
    masked = trained(probe.module, probe.names)
    gates = {name: torch.ones_like(weight, requires_grad=True) for name, weight in masked.items()}
    speed = {name: torch.zeros_like(w) for name, w in weights.items()}
    drawn = probe.dataset.batches(
        "train", options["batch_size"], seed=probe.seed, epoch=probe.draw, shuffle=True, device=probe.device
    )
    examples = 0
    with scoring_mode(probe.module, options["mode"]):
        batches = list(islice(drawn, options["steps"] + 1))
        for inputs, labels in batches[:-1]:
            names = list(weights)
            found = torch.autograd.grad(
                _loss(probe, weights, gates, inputs, labels),
                [weights[name] for name in names],
                create_graph=full,
                allow_unused=True,
            )
            for name, gradient in zip(names, found, strict=True):
                if gradient is not None:
                    speed[name] = options["inner_momentum"] * speed[name] + gradient
                moved = weights[name] - options["inner_rate"] * speed[name]
                weights[name] = moved if full else moved.detach().requires_grad_()
            examples += len(labels)
        inputs, labels = batches[-1]
        loss = _loss(probe, weights, gates, inputs, labels)
        result = torch.autograd.grad(loss, list(gates.values()), allow_unused=True)
        examples += len(labels)
    # Going back through a step costs about as much again.
    probe.charge(examples, 2.0 if full else 1.0)
    return {
        name: to_numpy(torch.zeros_like(gate) if gradient is None else gradient)
        for (name, gate), gradient in zip(gates.items(), result, strict=True)
    }


def _loss(probe: Probe, weights: Tensors, gates: Tensors, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
    effective = {name: w * gates[name] if name in gates else w for name, w in weights.items()}
    outputs = class_scores(functional_call(probe.module, effective, (inputs,)))
    return F.cross_entropy(outputs, labels)
