"""DSR, dynamic sparse reparameterization: one threshold for all layers, adapted; growth where weights survive.

Source: Mostafa and Wang, ICML 2019, algorithm 1.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ....models.tensors import to_numpy
from ...mask import BoolArray
from ...schedule import never_updates, updates_at
from ..dynamics import FlopCounter, Masks, no_cost
from ..static import StaticMask
from .growth import apportion, grow, random_places


class DynamicReparameterization(StaticMask):
    """Dynamic sparse training with a global threshold; the count of the network stays.

    Args:
        module: the network.
        masks: where it begins.
        fraction: share of all kept weights that an exchange aims to move.
        threshold: H at first.
        every: steps between two exchanges.
        end: the step from which on the masks stay.
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        fraction: float,
        threshold: float,
        every: int,
        end: int,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._target = fraction * sum(int(mask.sum()) for mask in masks.values())
        self._every, self._end, self._seed = every, end, seed
        self.threshold = threshold

    def after_step(self, step: int) -> None:
        """Exchange weights when the step is one of the schedule's."""
        if updates_at(step + 1, self._end, self._every):
            self.exchange(step + 1)

    def remarks(self) -> list[str]:
        """Tell of a training that was too short for any exchange."""
        return never_updates(self._end, self._every)

    def exchange(self, step: int) -> None:
        """Drop what lies below the threshold, grow as many among places that were already free, adapt the threshold."""
        names = list(self._weights)
        kept: dict[str, BoolArray] = {}
        survivors, room = [], []
        for name in names:
            old = to_numpy(self.masks[name])
            kept[name] = old & (np.abs(to_numpy(self._weights[name].detach())) >= self.threshold)
            survivors.append(int(np.count_nonzero(kept[name])))
            room.append(old.size - int(np.count_nonzero(old)))
        dropped = sum(int(self.masks[name].sum()) for name in names) - sum(survivors)
        # Where the free places do not suffice, the weights that have just left stay instead.
        counts = apportion(min(dropped, sum(room)), survivors, room)
        back = dropped - sum(counts)
        for name, count in zip(names, counts, strict=True):
            old = to_numpy(self.masks[name])
            device = self._weights[name].device
            if back:
                leaving = np.flatnonzero(old & ~kept[name])[:back]
                kept[name] = grow(kept[name], leaving)
                back -= leaving.size
            self.move(name, torch.from_numpy(kept[name]).to(device))
            places = random_places(np.flatnonzero(~old), count, self._seed, f"{name}/growth/{step}")
            self.move(name, torch.from_numpy(grow(kept[name], places)).to(device))
        self.threshold = adapted(self.threshold, dropped, self._target)
        self.count_flops()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return masks and threshold."""
        return super().tensors() | {"threshold": torch.tensor(self.threshold, dtype=torch.float64)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back masks and threshold."""
        super().restore(tensors)
        self.threshold = float(tensors["threshold"])


def adapted(threshold: float, dropped: int, target: float) -> float:
    """Return the next threshold: halved when more than 1.1 of the target left, doubled when less than 0.9 did."""
    if dropped > 1.1 * target:
        return threshold / 2
    return threshold * 2 if dropped < 0.9 * target else threshold
