"""What moves the mask, and what the optimiser may touch, while a network trains: one small object that the loop asks.

:class:`Dynamics` itself is dense training: no mask, every parameter trained. The others (static, frozen, gradual,
RigL, learned scores) override what differs. The loop calls, for every batch,

    before_forward(step): may change what the network computes with
    forward -> objective(...): the loss to go back from
    backward -> after_backward(step): may change the gradients; False replaces the optimiser's step
    optimiser step -> after_step(step): may change weights and masks
    end of an epoch -> after_epoch(epoch): False ends the training there
"""

from __future__ import annotations

from collections.abc import Callable, Container, Mapping
from typing import Any

import torch
from torch import nn

from ..parametrisations import Handover

Masks = dict[str, torch.Tensor]
# Element masks -> FLOPs of one training example (forward and backward) when each weight tensor has that mask.
FlopCounter = Callable[[Mapping[str, torch.Tensor]], int]


def no_cost(masks: Mapping[str, torch.Tensor]) -> int:
    """Return 0: for callers that do not count operations."""
    return 0


class Dynamics:
    """Dense training.

    Attributes:
        module: the network.
        masks: bool tensors by weight name, True = kept; empty for dense training.
        flops_per_example: of the step being taken, forward and backward.
        searches: whether this training only looks for the mask, and the weights that come out were never trained.
        added: numbers that are trained and are no parameters of the network.
        untrained: names of parameters that stay as they are, besides what the masks leave out.
    """

    searches = False
    untrained: frozenset[str] = frozenset()
    added: int = 0

    def __init__(self, module: nn.Module, flops: FlopCounter = no_cost) -> None:
        self.module = module
        self.masks: Masks = {}
        self._count_flops = flops
        self.flops_per_example = flops({})

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return what the optimiser trains, in a fixed order."""
        return [(name, p) for name, p in self.module.named_parameters() if p.requires_grad]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return the optimiser's parameter groups."""
        return [{"params": [parameter for _, parameter in self.named_parameters()]}]

    def groups_without_decay(self, names: Container[str]) -> list[dict[str, Any]]:
        """Return two groups: these parameters, whose weight decay is not the optimiser's, and the rest."""
        named = self.named_parameters()
        apart = [parameter for name, parameter in named if name in names]
        rest = [parameter for name, parameter in named if name not in names]
        groups: list[dict[str, Any]] = [{"params": apart, "weight_decay": 0.0}, {"params": rest}]
        return [group for group in groups if group["params"]]

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser whose memory must follow the mask, and make the weights obey it."""

    def before_forward(self, step: int) -> None:
        """Change what this step computes with."""

    def objective(
        self, loss: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Return what is minimised; ``loss`` is the cross-entropy of this batch."""
        return loss

    def after_backward(self, step: int) -> bool:
        """Change the gradients of this step; return whether the optimiser shall use them."""
        return True

    def after_step(self, step: int) -> None:
        """Change weights or masks once the optimiser has stepped."""

    def after_epoch(self, epoch: int) -> bool:
        """Look back on epoch number ``epoch`` (the first is 1); return whether the training goes on."""
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what must survive a kill, besides the weights and the optimiser."""
        return dict(self.masks)

    def recordings(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return what goes on the tape once the training is over: by label, tensors by weight name."""
        return {}

    def remarks(self) -> list[str]:
        """Return what the user should know of this training, in full sentences; asked once, after :meth:`finish`."""
        return []

    def handover(self) -> dict[str, Handover]:
        """Return what the checkpoint stores in place of the weights, by name; asked once, after :meth:`finish`.

        A method that trains signs, choices, coefficients or coordinates hands these over, not the weights that come of
        them. For each tensor (weights, and biases or norm entries too) the parametrisation, and the arrays that the
        function ``parts_of`` beside it makes of plain dense arrays:

            signs.parts_of(mask, negative=..., scale=...)      options.parts_of(choices, count, mask)
            masks.parts_of([mask of each task], initial=None)  basis.parts_of(coefficients, basis, mask)
            offset.parts_of(sparse, mask, scale)               projection.parts_of(coordinates, initial=None)

            return {"fc1.weight": Handover("options", options.parts_of(chosen, 8, mask), count=8)}

        The mask is that of :attr:`masks` (for ``masks``: the mask of the ``task`` that computes). The seed is the one
        that the network was drawn with, unless the handover has its own. The network's parameters must hold the
        weights that the parts decode to when the training ends: bit for bit where the parametrisation is ``exact``,
        to rounding where it computes (they are then set to what the file decodes to). A tensor that is not named is
        stored as the method's declaration says.
        """
        return {}

    def figures(self) -> dict[str, float]:
        """Return what the log is to say of the training once it is over."""
        return {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`tensors` returned; called before :meth:`attach`."""

    def finish(self) -> None:
        """Leave the network as the checkpoint is to hold it."""
