"""Extrusion: a network trains densely while a growing penalty drives what a random mask leaves out to zero.

Bai et al. 2022 ("Dual Lottery Ticket Hypothesis", random sparse network transformation): the mask is given, and the
weights that suit it are looked for.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...models.tensors import to_numpy
from ..rule import MaskRule
from ..saliency import UnitEvidence
from ..scores.random import random
from .dynamics import FlopCounter, Masks, no_cost
from .growing import GrowingPenalty
from .weights import weight_arrays


class Extrusion(GrowingPenalty):
    """Training with a gradient term ``coefficient * w`` on the weights outside a random mask.

    Args:
        module: the network.
        masks: of an earlier cycle: what they leave out is zero and stays so; empty for the first.
        rule: space, structure and allocation.
        sparsity: the share removed after this cycle.
        seed: the run's; one draw serves all cycles, so that their masks are nested.
        ceiling: coefficient at which growth ends.
        end: step at which growth ends.
        every: steps between two increments.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        rule: MaskRule,
        sparsity: float,
        *,
        seed: int,
        ceiling: float,
        end: int,
        every: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        parameters = dict(module.named_parameters())
        self._within = {name: mask.to(parameters[name].device) for name, mask in masks.items()}
        self._seed = seed
        super().__init__(module, rule, sparsity, kind="greg-1", ceiling=ceiling, end=end, every=every, flops=flops)
        self._before = self._outside()
        self._left = self._before
        if self._within:
            self.flops_per_example = flops(self._within)

    def after_backward(self, step: int) -> bool:
        """Add the penalty's gradient; what an earlier cycle removed has none."""
        super().after_backward(step)
        for name, mask in self._within.items():
            gradient = self._weights[name].grad
            if gradient is not None:
                gradient.mul_(mask)
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the coefficients, the choice, and the norm at the start."""
        return {**super().tensors(), "before": torch.tensor(self._before, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        self._before = float(tensors["before"])

    def finish(self) -> None:
        """Remove what lies outside the mask."""
        self._left = self._outside()
        super().finish()

    def figures(self) -> dict[str, float]:
        """Return the norm of what was removed, as a share of its norm at the start."""
        return {"removed_norm_share": self._left / self._before if self._before else 0.0}

    def _choose(self) -> Masks:
        scores = random({tensor.name: tensor.shape for tensor in self._rule.space.tensors}, self._seed)
        within = {name: to_numpy(mask) for name, mask in self._within.items()} or None
        evidence = UnitEvidence({}, weight_arrays(self.module, list(self._rule.names)), seed=self._seed)
        chosen = self._rule.select(scores, self._sparsity, within, evidence)
        return {name: torch.from_numpy(mask).to(self._weights[name].device) for name, mask in chosen.items()}

    def _outside(self) -> float:
        parts = [self._weights[name].detach()[~mask].double().square().sum() for name, mask in self._chosen.items()]
        return float(torch.stack(parts).sum().sqrt())
