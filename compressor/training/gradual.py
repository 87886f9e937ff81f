"""Gradual magnitude pruning: the mask shrinks along a cubic while the network trains (Zhu and Gupta 2017)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ...models.tensors import to_numpy
from ..rule import MaskRule
from ..saliency import UnitEvidence
from ..schedule import cubic, prunes_at
from .dynamics import FlopCounter, no_cost
from .static import StaticMask
from .weights import weight_arrays


class GradualMask(StaticMask):
    """Training during which more and more of the smallest weights leave for good.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the final one.
        start: first step at which weights are removed.
        end: the step from which on the final sparsity holds.
        every: steps between two removals.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        start: int,
        end: int,
        every: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        parameters = dict(module.named_parameters())
        full = {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in rule.names}
        super().__init__(module, full, flops)
        self._rule = rule
        self._sparsity = sparsity
        self._start, self._end, self._every = start, end, every

    def after_step(self, step: int) -> None:
        """Remove the smallest weights when the step is one of the schedule's."""
        # The first step of training is done when step 0 is; the schedule counts steps done.
        done = step + 1
        if prunes_at(done, self._start, self._end, self._every):
            self._shrink(cubic(done, self._start, self._end, self._sparsity))

    def _shrink(self, sparsity: float) -> None:
        weights = weight_arrays(self.module, list(self._rule.names))
        within = {name: to_numpy(mask) for name, mask in self.masks.items()}
        scores = {name: np.abs(weights[name]) for name in self._rule.space.names}
        masks = self._rule.select(scores, sparsity, within, UnitEvidence({}, weights))
        for name, mask in masks.items():
            self.move(name, torch.from_numpy(mask).to(self.masks[name].device))
        self.count_flops()
