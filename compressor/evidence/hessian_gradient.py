"""The Hessian times the gradient of the loss: how removing a weight changes the gradient's norm (Wang et al. 2020).

Removing q changes |g|^2 by about -2 w_q (Hg)_q, so its sign says whether gradient flow falls or rises.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F

from ...files import Array
from ...models.class_scores import class_scores
from ...models.dataset import Dataset
from ...models.tensors import to_numpy
from .gradients import scoring_mode, trained
from .probe import Probe

_READ_AT_ONCE = 256
# Inputs and labels.
Batch = tuple[torch.Tensor, torch.Tensor]
# By weight; None where the loss does not reach.
Found = list[torch.Tensor | None]


def hessian_gradient(probe: Probe) -> dict[str, Array]:
    """Return Hg of the cross-entropy by weight name; missing where the loss does not reach.

    The options ``examples_per_class``, ``temperature`` (logits are divided by it, which keeps the Hessian of confident
    outputs informative) and ``mode`` say from what. As in the authors' code the examples pass in two halves: g is the
    sum of both, H that of each half in turn.
    """
    inputs, labels = balanced_batch(
        probe.dataset, probe.options["examples_per_class"], probe.seed, probe.draw, probe.device
    )
    named = trained(probe.module, probe.names)
    wanted = list(named.values())
    # Stride two, because the classes come in order.
    halves = [(inputs[part::2], labels[part::2]) for part in (0, 1) if len(labels[part::2])]

    def loss(part: Batch) -> torch.Tensor:
        return F.cross_entropy(class_scores(probe.module(part[0])) / probe.options["temperature"], part[1])

    with scoring_mode(probe.module, probe.options["mode"]):
        gradient, product = hessian_product(loss, halves, wanted)
    # A product costs about twice a gradient, on top of the two gradients themselves.
    probe.charge(len(labels), 4)
    return {
        name: to_numpy(torch.zeros_like(weight) if found is None else found)
        for name, weight, g, found in zip(named, wanted, gradient, product, strict=True)
        if g is not None
    }


def hessian_product(
    loss: Callable[[Batch], torch.Tensor],
    parts: Sequence[Batch],
    wanted: Sequence[torch.Tensor],
    masks: Sequence[torch.Tensor] | None = None,
) -> tuple[Found, Found]:
    """Return the gradient g of the sum of some losses, and Hg; None for each weight that none of them reaches.

    Args:
        loss: of one part of a batch.
        parts: the batch; only one is in memory with its graph at a time.
        wanted: the weights.
        masks: what of g stays, in the weights' shapes; None: all of it.
    """
    gradient: Found = [None] * len(wanted)
    for part in parts:
        gradient = _added(gradient, torch.autograd.grad(loss(part), wanted, allow_unused=True))
    if masks is not None:
        gradient = [None if g is None else g * mask for g, mask in zip(gradient, masks, strict=True)]
    product: Found = [None] * len(wanted)
    for part in parts:
        with_graph = torch.autograd.grad(loss(part), wanted, create_graph=True, allow_unused=True)
        inner = sum((a * b).sum() for a, b in zip(gradient, with_graph, strict=True) if a is not None and b is not None)
        if isinstance(inner, torch.Tensor) and inner.requires_grad:
            product = _added(product, torch.autograd.grad(inner, wanted, allow_unused=True))
    return gradient, product


def balanced_batch(
    data: Dataset, examples_per_class: int, seed: int, epoch: int, device: torch.device
) -> tuple[torch.Tensor, torch.Tensor]:
    """Return the first ``examples_per_class`` training examples of each class in an epoch's order, class by class."""
    kept: dict[int, list[torch.Tensor]] = {label: [] for label in range(data.classes)}
    for inputs, labels in data.batches("train", _READ_AT_ONCE, seed=seed, epoch=epoch, device=device):
        for label, found in kept.items():
            places = torch.nonzero(labels == label).flatten()[: examples_per_class - len(found)]
            found.extend(inputs.index_select(0, places).unbind(0))
        if all(len(found) >= examples_per_class for found in kept.values()):
            break
    order = [label for label, found in kept.items() for _ in found]
    return torch.stack([x for found in kept.values() for x in found]), torch.tensor(order, device=device)


def _added(total: Found, more: Sequence[torch.Tensor | None]) -> Found:
    return [b if a is None else a if b is None else a + b for a, b in zip(total, more, strict=True)]
