"""A fixed mask: pruned weights are exactly zero, and stay so, for the price of one multiplication a step."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from .dynamics import Dynamics, FlopCounter, Masks, no_cost
from .optimisers import clear_slots


class StaticMask(Dynamics):
    """Training on the kept weights only.

    Weights are zeroed once and their gradients are masked at every step. The optimiser then has nothing to add: weight
    decay of a zero is zero, and so are momentum and both Adam moments when every gradient they saw was zero. That makes
    masking the weights and the optimiser's memory again after each step unnecessary.
    """

    def __init__(self, module: nn.Module, masks: Masks, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in masks}
        self.masks = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        # Gradients are multiplied in one call over all tensors, which needs the masks in the weights' own dtype.
        self._multipliers = {name: mask.to(parameters[name].dtype) for name, mask in self.masks.items()}
        self._optimiser: torch.optim.Optimizer | None = None
        self.flops_per_example = self._count_flops(self.masks)

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Zero the pruned weights, and what an optimiser that has run before remembers of them."""
        self._optimiser = optimiser
        self.finish()
        for name, weight in self._weights.items():
            clear_slots(optimiser, weight, ~self.masks[name])

    def after_backward(self, step: int) -> bool:
        """Mask the gradients."""
        self.mask_gradients()
        return True

    def mask_gradients(self) -> None:
        """Zero the gradients of pruned weights; a weight that the loss does not reach has none."""
        gradients, multipliers = [], []
        for name, weight in self._weights.items():
            if weight.grad is not None:
                gradients.append(weight.grad)
                multipliers.append(self._multipliers[name])
        if gradients:
            torch._foreach_mul_(gradients, multipliers)

    def move(self, name: str, mask: torch.Tensor) -> None:
        """Replace one mask: weights that leave become zero and are forgotten by the optimiser.

        Args:
            name: the weight's name.
            mask: bool tensor in its shape, on its device.
        """
        weight = self._weights[name]
        with torch.no_grad():
            gone = ~mask
            weight.masked_fill_(gone, 0.0)
            if self._optimiser is not None:
                clear_slots(self._optimiser, weight, gone)
        self.masks[name] = mask
        self._multipliers[name].copy_(mask)

    def count_flops(self) -> None:
        """Count an example's operations again after masks have moved."""
        self.flops_per_example = self._count_flops(self.masks)

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back the masks."""
        for name in self.masks:
            mask = tensors[name].to(self._weights[name].device, torch.bool)
            self.masks[name] = mask
            self._multipliers[name].copy_(mask)
        self.count_flops()

    def finish(self) -> None:
        """Zero the pruned weights (they are zero; a negative zero becomes a positive one)."""
        with torch.no_grad():
            for name, mask in self.masks.items():
                self._weights[name].masked_fill_(~mask, 0.0)
