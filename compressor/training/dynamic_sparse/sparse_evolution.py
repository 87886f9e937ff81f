"""SET: after each epoch the smallest weights leave and as many random ones come in (Mocanu et al. 2018)."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ....files import Array
from ....models.tensors import to_numpy
from ...mask import BoolArray
from ...schedule import never_updates, updates_at
from ..dynamics import FlopCounter, Masks, no_cost
from ..exact import keep_largest
from ..static import StaticMask
from .growth import grow, random_places


class SparseEvolution(StaticMask):
    """Dynamic sparse training that grows at random; the count of every layer stays.

    Args:
        module: the network.
        masks: where it begins.
        fraction: zeta, the share of a layer that leaves at an exchange.
        every: steps between two exchanges.
        end: the step from which on the masks stay; the authors make no exchange after the last epoch.
        by_sign: the authors' code drops that share of the positive and of the negative weights apart; otherwise the
            smallest magnitudes of all.
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        fraction: float,
        every: int,
        end: int,
        by_sign: bool,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._fraction = fraction
        self._every, self._end = every, end
        self._by_sign = by_sign
        self._seed = seed

    def after_step(self, step: int) -> None:
        """Exchange weights when the step is one of the schedule's."""
        if updates_at(step + 1, self._end, self._every):
            self.exchange(step + 1)

    def remarks(self) -> list[str]:
        """Tell of a training that was too short for any exchange."""
        return never_updates(self._end, self._every)

    def exchange(self, step: int) -> None:
        """Drop and grow in every layer; what comes in starts at zero, also where it has just left."""
        for name, weight in self._weights.items():
            old = to_numpy(self.masks[name])
            kept = surviving(to_numpy(weight.detach()), old, self._fraction, by_sign=self._by_sign)
            count = int(np.count_nonzero(old)) - int(np.count_nonzero(kept))
            if count == 0:
                continue
            self.move(name, torch.from_numpy(kept).to(weight.device))
            places = random_places(np.flatnonzero(~kept), count, self._seed, f"{name}/growth/{step}")
            self.move(name, torch.from_numpy(grow(kept, places)).to(weight.device))


def surviving(weights: Array, mask: BoolArray, fraction: float, *, by_sign: bool) -> BoolArray:
    """Return the mask without ``int(fraction * count)`` of its smallest weights, of all or of each sign.

    Args:
        weights: any shape.
        mask: in the same shape.
        fraction: in [0, 1).
        by_sign: count positive and negative weights apart; a kept zero counts as positive.
    """
    flat = weights.reshape(-1)
    kept = mask.reshape(-1)
    result = kept.copy()
    parts = (kept & (flat >= 0), kept & (flat < 0)) if by_sign else (kept,)
    for part in parts:
        places = np.flatnonzero(part)
        magnitudes = np.abs(flat[places].astype(np.float32))
        stays = keep_largest(magnitudes, places.size - int(fraction * places.size))
        result[places[~stays]] = False
    return result.reshape(mask.shape)
