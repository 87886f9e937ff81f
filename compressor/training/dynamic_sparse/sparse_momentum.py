"""SNFS, sparse momentum: layers whose momentum is large receive more connections (Dettmers and Zettlemoyer 2019).

Momentum is kept of every weight, kept or not, so each step needs dense gradients; that is where new weights are found.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ....models.tensors import to_numpy
from ...mask import BoolArray
from ...schedule import never_updates, updates_at
from ..dynamics import FlopCounter, Masks, no_cost
from ..exact import keep_largest
from ..static import StaticMask
from .growth import apportion, grow
from .sparse_evolution import surviving

_LAST_RATE = 0.005
# A layer grows into at most this share of its zeros, and one denser than this bound drops no more than it has zeros.
_GROWTH_CAP, _DENSE = 0.99, 0.8


class SparseMomentum(StaticMask):
    """Dynamic sparse training that moves weights between layers; the count of the network stays.

    Args:
        module: the network.
        masks: where it begins.
        rate: share of each layer that leaves at first; it falls to 0.005 along a cosine.
        every: steps between two exchanges.
        total_steps: of the training.
        smoothing: beta of the momentum m <- beta m + g.
        flops: counts the operations of an example, its dense gradients included.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        rate: float,
        every: int,
        total_steps: int,
        smoothing: float,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._rate, self._every, self._total = rate, every, total_steps
        self._smoothing = smoothing
        self._momentum = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}

    def after_backward(self, step: int) -> bool:
        """Remember the dense gradients, then mask them."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._momentum[name].mul_(self._smoothing).add_(weight.grad)
        return super().after_backward(step)

    def after_step(self, step: int) -> None:
        """Exchange weights when the step is one of the schedule's."""
        if updates_at(step + 1, self._total, self._every):
            self.exchange(drop_rate(step + 1, self._total, self._rate))

    def remarks(self) -> list[str]:
        """Tell of a training that was too short for any exchange."""
        return never_updates(self._total, self._every)

    def exchange(self, rate: float) -> None:
        """Drop ``rate`` of every layer and grow as many in all, where momentum is largest.

        Args:
            rate: share of a layer's kept weights.
        """
        names = list(self._weights)
        kept: dict[str, BoolArray] = {}
        shares, room, free, dropped = [], [], [], 0
        for name in names:
            old = to_numpy(self.masks[name])
            momentum = np.abs(to_numpy(self._momentum[name]))
            kept[name] = self._survivors(name, old, rate)
            dropped += int(np.count_nonzero(old)) - int(np.count_nonzero(kept[name]))
            zeros = kept[name].size - int(np.count_nonzero(kept[name]))
            shares.append(float(momentum[old].mean()) if old.any() else 0.0)
            room.append(int(_GROWTH_CAP * zeros))
            free.append(zeros)
        counts = apportion(dropped, shares, room if dropped <= sum(room) else free)
        for name, count in zip(names, counts, strict=True):
            device = self._weights[name].device
            self.move(name, torch.from_numpy(kept[name]).to(device))
            candidates = np.flatnonzero(~kept[name])
            strength = np.abs(to_numpy(self._momentum[name]).reshape(-1)[candidates])
            places = candidates[keep_largest(strength, count)]
            self.move(name, torch.from_numpy(grow(kept[name], places)).to(device))
        self.count_flops()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return masks and momentum."""
        return super().tensors() | {f"momentum/{name}": tensor for name, tensor in self._momentum.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back masks and momentum."""
        super().restore(tensors)
        for name, tensor in self._momentum.items():
            tensor.copy_(tensors[f"momentum/{name}"])

    def _survivors(self, name: str, old: BoolArray, rate: float) -> BoolArray:
        density = np.count_nonzero(old) / old.size
        share = min(rate, 1 - density) if density > _DENSE else rate
        return surviving(to_numpy(self._weights[name].detach()), old, share, by_sign=False)


def drop_rate(step: int, total: int, first: float) -> float:
    """Return the share that leaves at ``step``: from ``first`` to 0.005 along half a cosine."""
    return _LAST_RATE + (first - _LAST_RATE) / 2 * (1 + math.cos(math.pi * step / total))
