"""Signed supermasks: a random weight may be kept, dropped, or kept with the other sign (Koster et al. 2022)."""

from __future__ import annotations

import math

import torch
from torch import nn

from ....models.seeding.initialisers import draw_with
from ....models.tensors import to_numpy
from ...parametrisations import Handover, signs
from ...rule import MaskRule
from ..dynamics import FlopCounter, no_cost
from .edge_popup import EdgePopup


class SignedSupermask(EdgePopup):
    """Training of real masks v; a layer computes with w_0 * sign(v) where |v| is large, and with 0 elsewhere.

    The gradient passes straight through: dL/dv = dL/dw * w_0. The paper fixes the threshold of |v| and lets weight
    decay find the sparsity; here, unless a threshold is given, it is the one that keeps the asked share.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the share of weights left out; without effect beside a threshold.
        threshold: tau; 0: whichever keeps the asked share, at every step.
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        threshold: float,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        self._threshold = threshold
        super().__init__(module, rule, sparsity, seed=seed, scores=first_masks(rule, seed), flops=flops)

    def choose(self) -> None:
        """Keep what lies beyond the threshold, or the asked share of the largest."""
        if not self._threshold:
            super().choose()
            return
        with torch.no_grad():
            for name, weight in self._weights.items():
                self.masks[name] = self._scores[name].abs() > self._threshold
                self.shown(name, self.masks[name], weight.data)

    def shown(self, name: str, kept: torch.Tensor, out: torch.Tensor) -> None:
        """Write the kept weights with the sign of their product with v."""
        torch.sign(self._scores[name].detach(), out=out)
        out.mul_(self._initial[name]).mul_(kept)

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w_0, for every v."""
        return gradient.mul_(self._initial[name])

    def handover(self) -> dict[str, Handover]:
        """Return the sign of every kept weight; the magnitudes are those that the seed draws."""
        return {
            name: Handover("signs", signs.parts_of(to_numpy(mask), to_numpy(self._weights[name].signbit())))
            for name, mask in self.masks.items()
        }


def first_masks(rule: MaskRule, seed: int) -> dict[str, torch.Tensor]:
    """Return v before the first step, Xavier-uniform: U(-b, b) with b = sqrt(6 / (fan_in + fan_out)), by name."""
    return {
        tensor.name: torch.from_numpy(
            draw_with(
                "uniform", math.sqrt(6 / (tensor.fan_in + tensor.fan_out)), tensor.shape, seed, f"{tensor.name}/scores"
            )[0]
        )
        for tensor in rule.space.tensors
    }
