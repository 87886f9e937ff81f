"""Lottery jackpots: which of the weights of a trained network compute, learned without touching them (Zhang 2021)."""

from __future__ import annotations

import torch
from torch import nn

from ...rule import MaskRule
from ..dynamics import FlopCounter, no_cost
from .edge_popup import EdgePopup


class Jackpots(EdgePopup):
    """edge-popup over trained weights, with their magnitudes as first scores: the search begins at magnitude pruning.

    Scores are ranked with their sign, and learn as dL/ds = dL/dw * w.

    Args:
        module: the network, trained.
        rule: space, structure and allocation.
        sparsity: the share of weights left out.
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self, module: nn.Module, rule: MaskRule, sparsity: float, *, seed: int, flops: FlopCounter = no_cost
    ) -> None:
        parameters = dict(module.named_parameters())
        scores = {name: parameters[name].detach().abs().to(torch.float32) for name in rule.space.names}
        super().__init__(module, rule, sparsity, seed=seed, scores=scores, flops=flops)

    def ranking(self, score: torch.Tensor) -> torch.Tensor:
        """Return the score: one below zero is a low one."""
        return score

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w, for every score."""
        return gradient.mul_(self._initial[name])
