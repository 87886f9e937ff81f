"""Global sparse momentum: at every step only the most useful weights learn, all the others decay (Ding et al. 2019)."""

from __future__ import annotations

import torch
from torch import nn

from ...models.tensors import to_numpy
from ..rule import MaskRule
from .behind import choose_now
from .dynamics import Dynamics, FlopCounter, no_cost


class GlobalSparseMomentum(Dynamics):
    """SGD whose loss gradient reaches the weights of largest |g w| only; weight decay and momentum reach all.

    As many weights learn as are to stay; the others run towards zero along their momentum. The final mask keeps the
    largest.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the share removed.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, rule: MaskRule, sparsity: float, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._rule, self._sparsity = rule, sparsity
        self._weights = {name: parameters[name] for name in rule.space.names}

    def after_backward(self, step: int) -> bool:
        """Leave the gradient to the most useful weights."""
        useful = {
            name: to_numpy((weight.detach() * weight.grad).abs())
            if weight.grad is not None
            else to_numpy(torch.zeros_like(weight))
            for name, weight in self._weights.items()
        }
        active = choose_now(self.module, self._rule, useful, self._sparsity)
        for name, weight in self._weights.items():
            if weight.grad is not None:
                weight.grad.mul_(active[name])
        return True

    def finish(self) -> None:
        """Remove the smallest."""
        magnitudes = {name: to_numpy(weight.detach().abs()) for name, weight in self._weights.items()}
        self.masks = choose_now(self.module, self._rule, magnitudes, self._sparsity)
        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(~mask, 0.0)
        self.flops_per_example = self._count_flops(self.masks)
