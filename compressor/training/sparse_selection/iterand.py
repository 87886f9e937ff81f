"""IteRand: edge-popup over weights of which those that are out are drawn anew from time to time (Chijiwa 2021)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from ....files import Array
from ....models.seeding.philox import words
from ....models.tensors import to_numpy
from ...parametrisations import Handover, options
from ...rule import MaskRule
from ..dynamics import FlopCounter, no_cost
from .edge_popup import EdgePopup

# The draw of a number: fresh initial weights by name.
Draws = Callable[[int], Mapping[str, Array]]


class IteRand(EdgePopup):
    """edge-popup by the scores themselves, their sign included, with a random share of the pruned weights redrawn.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the share of weights left out.
        seed: the run's seed.
        redraw: the initialiser's further draws, by number from 1.
        every: steps between two redrawings.
        share: probability with which a pruned weight is redrawn then.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        seed: int,
        redraw: Draws,
        every: int,
        share: float,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, rule, sparsity, seed=seed, flops=flops)
        # The draw that each weight stands at; 0 is the initialisation.
        self._draws = {name: torch.zeros_like(weight, dtype=torch.int32) for name, weight in self._initial.items()}
        self._seed, self._drawn, self._every, self._share = seed, redraw, every, share
        if share:
            redraw(1)  # where weights cannot be drawn again, it says so before anything is trained

    def ranking(self, score: torch.Tensor) -> torch.Tensor:
        """Return the score: one below zero is a low one."""
        return score

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w_0, for every score."""
        return gradient.mul_(self._initial[name])

    def after_step(self, step: int) -> None:
        """Choose anew; at the end of a period, redraw among what is out."""
        super().after_step(step)
        number, rest = divmod(step + 1, self._every)
        if self._share and not rest:
            # As many draws as a file can tell apart; a training that goes on begins with the first again.
            self._redraw(1 + (number - 1) % (options.MOST_CANDIDATES - 1))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return scores, weights, and the draw of each weight."""
        return super().tensors() | {f"draws/{name}": draws for name, draws in self._draws.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        for name, draws in self._draws.items():
            draws.copy_(tensors[f"draws/{name}"])
        super().restore(tensors)

    def handover(self) -> dict[str, Handover]:
        """Return the number of the draw that each kept weight comes from."""
        found = {}
        for name, draws in self._draws.items():
            count = max(2, int(draws.max()) + 1)
            parts = options.parts_of(to_numpy(draws), count, to_numpy(self.masks[name]))
            found[name] = Handover("options", parts, count=count)
        return found

    def _redraw(self, number: int) -> None:
        drawn = self._drawn(number)
        for name, initial in self._initial.items():
            uniform = words(self._seed, f"{name}/redraw/{number}", 0, initial.numel())
            chance = torch.from_numpy((uniform < self._share * 2.0**32).reshape(initial.shape)).to(initial.device)
            chance &= ~self.masks[name]
            self._draws[name].masked_fill_(chance, number)
            initial.copy_(torch.where(chance, torch.from_numpy(drawn[name]).to(initial.device), initial))
