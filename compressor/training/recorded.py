"""Dense training that notes how far every weight has been moved, for Karnin's sensitivity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from .dynamics import Dynamics, FlopCounter, no_cost

LABEL = "update-squares"


class UpdateSquares(Dynamics):
    """Training that adds up (dw)**2 / eta of every weight (Karnin 1990).

    Args:
        module: the network.
        names: the weights to follow; two more copies of them are held.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in names}
        self._before = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._sums = {name: torch.zeros_like(weight) for name, weight in self._before.items()}
        self._optimiser: torch.optim.Optimizer | None = None

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser, whose learning rate the sums are divided by."""
        self._optimiser = optimiser

    def after_step(self, step: int) -> None:
        """Add this step's squared changes."""
        rate = self._optimiser.param_groups[0]["lr"] if self._optimiser else 1.0
        if rate == 0:
            return
        with torch.no_grad():
            for name, weight in self._weights.items():
                moved = weight - self._before[name]
                self._sums[name].addcmul_(moved, moved, value=1.0 / rate)
                self._before[name].copy_(weight)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the sums; the weights before the next step are the network's own."""
        return dict(self._sums)

    def recordings(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the sums for the tape."""
        return {LABEL: dict(self._sums)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back the sums."""
        for name, total in self._sums.items():
            total.copy_(tensors[name])
            self._before[name].copy_(self._weights[name].detach())
