"""Freezing: weights outside the mask keep the value they were drawn with; gradients flow through all of them.

The network computes with w = mask * w + (1 - mask) * w_0, so activations and their gradients are those of a dense
network; only the update is sparse (Wimmer et al. 2020, FreezeNet).
"""

from __future__ import annotations

from typing import Any

import torch
from torch import nn

from ..settings import TrainSettings
from .dynamics import FlopCounter, Masks, no_cost
from .static import StaticMask


class FrozenPart(StaticMask):
    """Training on the kept weights, the others untouched at their initial value, bit for bit.

    The optimiser would decay every weight it knows, so the decay of masked tensors is added to their gradients here,
    before these are masked (L2), or taken from the kept weights alone (AdamW's decoupled decay).
    """

    def __init__(self, module: nn.Module, masks: Masks, settings: TrainSettings, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, masks, flops)
        self._decay = settings.weight_decay
        self._decoupled = settings.optimiser == "adamw"
        self._frozen = {name: weight.detach()[~self.masks[name]].clone() for name, weight in self._weights.items()}

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return two groups: masked tensors, whose decay is done here, and the rest."""
        return self.groups_without_decay(self.masks)

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser; no weight changes."""
        self._optimiser = optimiser

    def after_backward(self, step: int) -> bool:
        """Decay and mask: what reaches the optimiser is zero wherever the mask is."""
        if self._decay:
            self._apply_decay()
        self.mask_gradients()
        return True

    def _apply_decay(self) -> None:
        weights, gradients, multipliers = [], [], []
        for name, weight in self._weights.items():
            if weight.grad is not None:
                weights.append(weight.detach())
                gradients.append(weight.grad)
                multipliers.append(self._multipliers[name])
        if not weights:
            return
        if self._decoupled and self._optimiser is not None:
            rate = self._optimiser.param_groups[0]["lr"]
            torch._foreach_addcmul_(weights, weights, multipliers, value=-rate * self._decay)
        else:
            torch._foreach_add_(gradients, weights, alpha=self._decay)

    def finish(self) -> None:
        """Write the frozen values once more: adding a zero may have turned a negative zero into a positive one."""
        self.put_back()

    def put_back(self) -> None:
        """Write the values of what is not trained, whatever an optimiser did to them."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight[~self.masks[name]] = self._frozen[name]


class FadingPart(FrozenPart):
    """Training on the kept weights while the others, which are not trained, decay to nothing.

    This is weight decay of the frozen part at a rate that follows from what it shall leave: each step multiplies by
    the same factor, and after the last one what is left is set to zero.

    Args:
        module: the network.
        masks: what is trained.
        settings: of the training.
        left: the share of a frozen weight that is left after ``total_steps``, before it is cut.
        total_steps: of the training.
        flops: counts an example's operations.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        settings: TrainSettings,
        *,
        left: float,
        total_steps: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, settings, flops)
        self._factor = left ** (1 / max(1, total_steps))

    def after_step(self, step: int) -> None:
        """Shrink what is not trained."""
        for frozen in self._frozen.values():
            frozen.mul_(self._factor)
        self.put_back()

    def finish(self) -> None:
        """Cut what the decay has left."""
        for frozen in self._frozen.values():
            frozen.zero_()
        self.put_back()


class PartlyFrozen(FrozenPart):
    """Training of some kept weights; the other kept ones stay as they are, and what no mask keeps stays zero.

    Args:
        module: the network; weights outside the masks are zero.
        masks: what computes.
        fixed: what computes and is not trained, within the masks; a tensor that is not named is trained whole.
        settings: of the training.
        flops: counts an example's operations from the masks of what is trained.
    """

    def __init__(
        self, module: nn.Module, masks: Masks, fixed: Masks, settings: TrainSettings, flops: FlopCounter = no_cost
    ) -> None:
        trained = {name: mask & ~fixed[name] if name in fixed else mask for name, mask in masks.items()}
        super().__init__(module, trained, settings, flops)
        self._whole = {name: mask.to(self.masks[name].device) for name, mask in masks.items()}
        self.flops_per_example = self._count_flops(self._whole)

    def finish(self) -> None:
        """Write the fixed values once more, and show the masks of what computes."""
        super().finish()
        self.masks = self._whole
