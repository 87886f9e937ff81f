"""DeepR, deep rewiring: a connection that changes its sign is cut, and another one begins (Bellec et al. 2018).

A weight is w = s * theta with a fixed sign s; it computes while theta > 0. Every step adds a pull towards zero and
noise, so that weights of no use reach zero and leave; as many dormant ones begin, at random places.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ....models.seeding.philox import words
from ....models.tensors import to_numpy
from ..dynamics import FlopCounter, Masks, no_cost
from ..static import StaticMask
from .growth import grow, random_places

# What a connection begins with; a zero would be no connection of a sign.
_BEGINNING = 1e-12


class DeepRewiring(StaticMask):
    """Rewiring at every step; the count of every layer stays.

    Args:
        module: the network.
        masks: where it begins; the signs of these weights are theirs, those of dormant ones are drawn.
        pull: alpha, the L1 pull: each step moves theta by -rate * alpha.
        noise: standard deviation of the noise, in units of the learning rate, as in the authors' code (the paper has
            sqrt(2 rate T)).
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        pull: float,
        noise: float,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._pull, self._noise, self._seed = pull, noise, seed
        self._signs = {name: self._first_signs(name, weight) for name, weight in self._weights.items()}

    def after_step(self, step: int) -> None:
        """Pull, shake, cut what changed its sign, and begin as many others."""
        rate = 0.0 if self._optimiser is None else self._optimiser.param_groups[0]["lr"]
        for name, weight in self._weights.items():
            mask, sign = self.masks[name], self._signs[name]
            with torch.no_grad():
                shift = -rate * self._pull * sign
                if self._noise:
                    shift = shift + rate * self._noise * torch.randn_like(weight)
                weight.add_(shift * self._multipliers[name])
                cut = mask & (weight * sign < 0)
            if bool(cut.any()):
                self._rewire(name, cut, step)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return masks and signs."""
        return super().tensors() | {f"signs/{name}": sign for name, sign in self._signs.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back masks and signs."""
        super().restore(tensors)
        for name, sign in self._signs.items():
            sign.copy_(tensors[f"signs/{name}"])

    def _first_signs(self, name: str, weight: torch.Tensor) -> torch.Tensor:
        drawn = words(self._seed, f"{name}/signs", 0, weight.numel()) & np.uint32(1)
        sign = torch.from_numpy(drawn.astype(np.float32)).mul_(2).sub_(1).reshape(weight.shape).to(weight)
        return torch.where(weight.detach() == 0, sign, weight.detach().sign())

    def _rewire(self, name: str, cut: torch.Tensor, step: int) -> None:
        weight = self._weights[name]
        kept = to_numpy(self.masks[name] & ~cut)
        dormant = np.flatnonzero(~kept)
        places = random_places(dormant, int(cut.sum()), self._seed, f"{name}/rewiring/{step}")
        self.move(name, torch.from_numpy(kept).to(weight.device))
        self.move(name, torch.from_numpy(grow(kept, places)).to(weight.device))
        begun = torch.from_numpy(places).to(weight.device)
        with torch.no_grad():
            weight.view(-1)[begun] = _BEGINNING * self._signs[name].view(-1)[begun]
