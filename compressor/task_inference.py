"""Which task a batch belongs to, when one network holds a mask for each: by the entropy of the outputs.

All masks compute at once, each with a coefficient; the mask of the right task is the one whose coefficient, if it grew,
would make the outputs most certain (Wortsman et al. 2020, SupSup, section 3.3). No label is needed.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn
from torch.func import functional_call

from ..errors import UsageError, unknown_name

WAYS = ("one-shot", "binary")


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
