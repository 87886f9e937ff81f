"""Neural tangent transfer: a sparse student that starts with the outputs and the tangent kernel of its dense teacher.

Liu and Zenke 2020 ("Finding trainable sparse networks through Neural Tangent Transfer"): no labels; the loss is
||f_s - f_t||^2 / n + kernel ||K_s - K_t||_F^2 / n^2 + (decay / density) ||w_s||^2, K the empirical tangent kernel
between the two halves of a batch, and the mask is chosen by magnitude again every so many steps.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.func import functional_call, jacrev, vmap

from ...models.tensors import to_numpy, to_torch
from ..mask import BoolArray
from ..scores.magnitude import magnitude
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe

Tensors = dict[str, torch.Tensor]


def tangent_transfer(probe: Probe) -> Outcome:
    """Train the student; mask and weights are both what comes out.

    The options ``transfer_epochs``, ``transfer_rate`` (of Adam), ``transfer_batch``, ``kernel_weight``,
    ``kernel_decay`` and ``mask_interval`` say how. Norm layers use their running statistics, which do not move. Memory
    grows with the batch times the outputs times the parameters.
    """
    options, module = probe.options, probe.module
    buffers = {name: b.detach().clone() for name, b in module.named_buffers()}
    trained = [name for name, p in module.named_parameters() if p.requires_grad]
    state = probe.tape("initial")
    teacher = {name: to_torch(state[name]).to(probe.device) for name, _ in module.named_parameters()}
    student = {name: teacher[name].clone().requires_grad_(name in trained) for name in teacher}
    optimiser = torch.optim.Adam([student[name] for name in trained], lr=options["transfer_rate"])
    masks: Mapping[str, BoolArray] = probe.masks
    density = 1 - probe.sparsity
    step, examples = 0, 0
    was_training = module.training
    module.eval()
    for epoch in range(options["transfer_epochs"]):
        drawn = probe.dataset.batches(
            "train", options["transfer_batch"], seed=probe.seed, epoch=epoch, shuffle=True, device=probe.device
        )
        for inputs, _ in drawn:
            if step and step % options["mask_interval"] == 0:
                masks = _chosen(probe, student)
            kept = {name: to_torch(mask).to(probe.device) for name, mask in masks.items()}
            effective = {name: w * kept[name] if name in kept else w for name, w in student.items()}
            distance = transfer_distance(module, effective, teacher, buffers, inputs, trained, options["kernel_weight"])
            size = torch.stack([effective[name].square().sum() for name in probe.names]).sum()
            loss = distance + options["kernel_decay"] / density * size
            optimiser.zero_grad()
            loss.backward()
            optimiser.step()
            step += 1
            examples += len(inputs)
    module.train(was_training)
    # The kernels differentiate every output of teacher and student, and the student's once more.
    probe.charge(examples, 3)
    return Outcome(masks=_chosen(probe, student), weights={name: to_numpy(student[name]) for name in trained})


def transfer_distance(
    module: nn.Module,
    student: Tensors,
    teacher: Tensors,
    buffers: Tensors,
    inputs: torch.Tensor,
    trained: list[str],
    kernel_weight: float,
) -> torch.Tensor:
    """Return how far the student's outputs and tangent kernel are from the teacher's on a batch."""
    outputs = functional_call(module, (student, buffers), (inputs,))
    with torch.no_grad():
        wanted = functional_call(module, (teacher, buffers), (inputs,))
    distance: torch.Tensor = (outputs - wanted).square().sum() / len(inputs)
    if kernel_weight == 0 or len(inputs) < 2:
        return distance
    first, second = inputs[: len(inputs) // 2], inputs[len(inputs) // 2 :]
    kernel = tangent_kernel(module, student, buffers, first, second, trained)
    with torch.no_grad():
        target = tangent_kernel(module, teacher, buffers, first, second, trained)
    return distance + kernel_weight * (kernel - target).square().sum() / (len(first) * len(second))


def tangent_kernel(
    module: nn.Module, weights: Tensors, buffers: Tensors, first: torch.Tensor, second: torch.Tensor, trained: list[str]
) -> torch.Tensor:
    """Return K [first, second, outputs, outputs]: the sum over parameters of df(x)/dp df(y)/dp."""
    fixed = {name: w for name, w in weights.items() if name not in trained}

    def output(parameters: Tensors, x: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = functional_call(module, ({**parameters, **fixed}, buffers), (x.unsqueeze(0),))
        return found.squeeze(0)

    moving = {name: weights[name] for name in trained}
    jacobian = vmap(jacrev(output), in_dims=(None, 0))
    left, right = jacobian(moving, first), jacobian(moving, second)
    parts = [torch.einsum("nap,mbp->nmab", left[n].flatten(2), right[n].flatten(2)) for n in trained]
    return torch.stack(parts).sum(dim=0)


def _chosen(probe: Probe, student: Tensors) -> Mapping[str, BoolArray]:
    return probe.rule.select(magnitude({name: to_numpy(student[name]) for name in probe.names}), probe.sparsity)
