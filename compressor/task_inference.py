"""The tasks of one network that holds a mask for each, and which of them a batch belongs to.

A checkpoint of ``supsup`` computes its first task. :func:`for_task` gives another's network, :func:`tasks_of` all masks
at once, and :func:`infer_task` says whose inputs a batch holds, by the entropy of the outputs.

All masks compute at once, each with a coefficient; the mask of the right task is the one whose coefficient, if it grew,
would make the outputs most certain (Wortsman et al. 2020, SupSup, section 3.3). No label is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import msgspec
import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from ..errors import UsageError, unknown_name
from ..files import sha256_array
from ..models.seeding.rebuild import rebuild
from ..models.tensors import to_torch
from .checkpoint import SparseCheckpoint
from .mask import unpack_bits
from .parametrisations.masks import INITIAL, MASKS
from .sparse_tensor import SparseTensor

WAYS = ("one-shot", "binary")


def tasks_of(checkpoint: SparseCheckpoint) -> tuple[dict[str, torch.Tensor], list[dict[str, torch.Tensor]]]:
    """Return the weights under all masks, and the masks of every task, both by weight name.

    Raises:
        UsageError: the checkpoint holds no masks of tasks.
    """
    initial: dict[str, torch.Tensor] = {}
    masks: list[dict[str, torch.Tensor]] = []
    for name, tensor in _with_tasks(checkpoint).items():
        record = tensor.record
        stored = tensor.parts.get(INITIAL)
        if stored is None and record.seed is not None:
            stored = rebuild(record.seed, record.shape)
        initial[name] = to_torch(np.asarray(stored).reshape(record.shape))
        for task, bits in enumerate(tensor.parts[MASKS]):
            if task == len(masks):
                masks.append({})
            masks[task][name] = torch.from_numpy(unpack_bits(bits, record.shape))
    return initial, masks


def for_task(checkpoint: SparseCheckpoint, task: int) -> SparseCheckpoint:
    """Return the checkpoint with the network of another task; everything else is shared.

    Args:
        checkpoint: of several tasks.
        task: from 0.

    Raises:
        UsageError: the checkpoint holds no masks of tasks, or not so many.
    """
    tensors = dict(checkpoint.tensors)
    for name, tensor in _with_tasks(checkpoint).items():
        record = tensor.record
        if not 0 <= task < record.count:
            raise UsageError(f"there is no task {task}: the checkpoint holds {record.count}, the first of which is 0.")
        mask = unpack_bits(tensor.parts[MASKS][task], record.shape)
        chosen = SparseTensor(msgspec.structs.replace(record, task=task), mask, None, tensor.parts)
        digest = sha256_array(chosen.dense())
        tensors[name] = replace(chosen, record=msgspec.structs.replace(chosen.record, sha256=digest))
    records = [tensor.record for tensor in tensors.values()]
    return SparseCheckpoint(msgspec.structs.replace(checkpoint.metadata, tensors=records), tensors)


def _with_tasks(checkpoint: SparseCheckpoint) -> dict[str, SparseTensor]:
    found = {name: tensor for name, tensor in checkpoint.tensors.items() if MASKS in tensor.parts}
    if not found:
        raise UsageError("the checkpoint holds one network, not a mask for each of several tasks (method 'supsup').")
    return found


def superposed(
    initial: Mapping[str, torch.Tensor], masks: Sequence[Mapping[str, torch.Tensor]], coefficients: torch.Tensor
) -> dict[str, torch.Tensor]:
    """Return w_0 * sum_i a_i M_i by weight name.

    Args:
        initial: w_0 by weight name.
        masks: bool tensors by weight name, for each task.
        coefficients: a, 1-D, as long as ``masks``.
    """
    return {
        name: weight * sum(a * mask[name] for a, mask in zip(coefficients, masks, strict=True))
        for name, weight in initial.items()
    }


def entropy_gradient(
    module: nn.Module,
    initial: Mapping[str, torch.Tensor],
    masks: Sequence[Mapping[str, torch.Tensor]],
    coefficients: torch.Tensor,
    inputs: torch.Tensor,
) -> torch.Tensor:
    """Return the derivative of the outputs' mean entropy by the coefficient of each mask.

    Args:
        module: the network; its masked weights are not used, and nothing of it changes.
        initial: w_0 by weight name.
        masks: bool tensors by weight name, for each task.
        coefficients: a, 1-D, as long as ``masks``.
        inputs: a batch of one task.
    """
    free = coefficients.detach().clone().requires_grad_()
    logits = functional_call(module, superposed(initial, masks, free), (inputs,))
    chances = logits.log_softmax(dim=1)
    entropy = -(chances.exp() * chances).sum(dim=1).mean()
    return torch.autograd.grad(entropy, free)[0]


def infer_task(
    module: nn.Module,
    initial: Mapping[str, torch.Tensor],
    masks: Sequence[Mapping[str, torch.Tensor]],
    inputs: torch.Tensor,
    way: str = "one-shot",
) -> int:
    """Return the number of the task, from 0, that a batch most likely belongs to.

    Args:
        module: the network; evaluated as it is (call ``eval()`` first).
        initial: w_0 by weight name.
        masks: bool tensors by weight name, for each task.
        inputs: a batch of one task; one example is enough, more are surer.
        way: ``one-shot`` follows one gradient at equal coefficients; ``binary`` halves the tasks that are left, by
            their gradients, until one is (log2 of their number gradients).

    Raises:
        UsageError: there is no mask.
        UnknownNameError: no such way.
    """
    if way not in WAYS:
        raise unknown_name("way to infer a task", way, WAYS)
    if not masks:
        raise UsageError("there are no masks to choose a task from.")
    left = torch.arange(len(masks))
    while len(left) > 1:
        coefficients = torch.zeros(len(masks), device=inputs.device)
        coefficients[left] = 1 / len(left)
        gradient = entropy_gradient(module, initial, masks, coefficients, inputs).cpu()[left]
        # Ties fall to the earlier task.
        order = torch.argsort(gradient, stable=True)
        if way == "one-shot":
            return int(left[order[0]])
        left = left[order[: (len(left) + 1) // 2].sort().values]
    return int(left[0])
