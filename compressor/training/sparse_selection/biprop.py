"""biprop: binary weights out of random ones, chosen by scores (multi-prize lottery tickets, Diffenderfer 2021)."""

from __future__ import annotations

import torch

from ....models.tensors import to_numpy
from ...parametrisations import Handover, signs
from .edge_popup import EdgePopup


class Biprop(EdgePopup):
    """edge-popup whose layers compute with alpha * sign(w_0) * mask, alpha = ||w_0 * mask||_1 / kept.

    alpha is the scale at which the signs lie closest to the kept weights (Rastegari et al. 2016); no gradient goes
    through it, so that a score learns as in edge-popup: dL/ds = dL/dw * w_0 * sign(s).
    """

    def scale(self, name: str) -> torch.Tensor:
        """Return alpha of one tensor, a scalar; 0 when nothing is kept."""
        kept = self.masks[name]
        return (self._initial[name].abs() * kept).sum() / kept.sum().clamp(min=1)

    def shown(self, name: str, kept: torch.Tensor, out: torch.Tensor) -> None:
        """Write the scaled signs of what is kept."""
        torch.sign(self._initial[name], out=out)
        out.mul_(kept).mul_(self.scale(name))

    def handover(self) -> dict[str, Handover]:
        """Return the scale of every tensor; the signs are those that the seed draws."""
        return {
            name: Handover("signs", signs.parts_of(to_numpy(mask), scale=to_numpy(self.scale(name))))
            for name, mask in self.masks.items()
        }
