"""Supermasks: each random weight computes with a probability, and the probabilities are trained (Zhou et al. 2019)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import msgspec
import torch
from torch import nn

from ....models.seeding.initialisers import float32
from ....models.seeding.rebuild import rebuild
from ....models.seeding.record import SeedRecord
from ....models.tensors import to_numpy
from ...parametrisations import Handover
from ...rule import MaskRule
from ..dynamics import FlopCounter, no_cost
from .learned import LearnedScores


class Supermask(LearnedScores):
    """Training of a logit for each weight: every forward pass draws the mask anew from p = sigmoid(logit).

    The gradient passes the draw by: dL/dlogit = dL/dw * w_0 * p (1 - p). The paper starts at p = 1/2 and draws masks
    at test time too; here p starts at the asked density, and the final mask keeps the asked number of largest p.

    Args:
        module: the network.
        rule: space, structure and allocation of the final mask.
        sparsity: the share of weights left out in the end.
        rescaled: whether a layer's weights are multiplied by their number over the number that computes (the paper's
            dynamic weight rescaling), which keeps the scale of what comes out; no gradient goes through the factor.
        seeds: how the weights are drawn, by name; those of rescaled ones are drawn with a larger bound in the end.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        rescaled: bool,
        seeds: Mapping[str, SeedRecord] | None = None,
        flops: FlopCounter = no_cost,
    ) -> None:
        # A density of 1 would start at an infinite logit.
        density = min(1 - sparsity, 0.999)
        logit = math.log(density / (1 - density))
        parameters = dict(module.named_parameters())
        scores = {
            name: torch.full_like(parameters[name], logit, dtype=torch.float32, requires_grad=False)
            for name in rule.space.names
        }
        super().__init__(module, scores, flops)
        self._rule, self._sparsity, self._rescaled = rule, sparsity, rescaled
        self._seeds = seeds or {}

    def before_forward(self, step: int) -> None:
        """Draw the masks of this step."""
        for name, score in self._scores.items():
            self.masks[name] = torch.rand_like(score) < score.detach().sigmoid()
        self._show()

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w_0 * factor * p (1 - p), for every logit."""
        chance = self._scores[name].detach().sigmoid()
        return gradient.mul_(self._initial[name]).mul_(self.factor(name)).mul_(chance).mul_(1 - chance)

    def factor(self, name: str) -> float:
        """Return by what the kept weights of one tensor are multiplied."""
        mask = self.masks[name]
        return mask.numel() / max(1, int(mask.sum())) if self._rescaled else 1.0

    def after_step(self, step: int) -> None:
        """Nothing is chosen between two steps: the next one draws."""

    def choose(self) -> None:
        """Keep the asked number of the most probable weights."""
        logits = {name: to_numpy(score.detach()) for name, score in self._scores.items()}
        for name, mask in self._rule.select(logits, self._sparsity).items():
            self.masks[name] = torch.from_numpy(mask).to(self._weights[name].device)
        self._show()

    def finish(self) -> None:
        """Choose the final mask; rescaled weights are what their seed draws with the bound times the factor."""
        self.choose()
        with torch.no_grad():
            for name, seed in self._stretched().items():
                weight = torch.from_numpy(rebuild(seed, tuple(self._weights[name].shape)))
                self._weights[name].copy_(weight.to(self.masks[name].device) * self.masks[name])
        super().finish()
        self.flops_per_example = self._count_flops(self.masks)

    def handover(self) -> dict[str, Handover]:
        """Return the seeds of rescaled weights."""
        return {name: Handover("selected", {}, seed=seed) for name, seed in self._stretched().items()}

    def _stretched(self) -> dict[str, SeedRecord]:
        if not self._rescaled:
            return {}
        return {
            name: msgspec.structs.replace(self._seeds[name], bound=float32(self._seeds[name].bound * self.factor(name)))
            for name in self._weights
            if name in self._seeds
        }

    def _show(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                torch.mul(self._initial[name], self.masks[name], out=weight.data)
                if self._rescaled:
                    weight.mul_(self.factor(name))
