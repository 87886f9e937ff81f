"""Training of signs alone: mask and magnitudes stay as they are, a momentum of gradients flips signs (Bop).

Sources: Helwegen et al. 2019 (Bop); Chen et al. 2022 (Peek-a-Boo), who train the signs of a pruned random network.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ....models.tensors import to_numpy
from ...parametrisations import Handover, signs
from ..dynamics import FlopCounter, Masks, no_cost
from ..static import StaticMask


class SignTraining(StaticMask):
    """Training of the signs of the kept weights; whatever is not masked is trained by the optimiser as usual.

    m <- (1 - gamma) m + gamma g; a weight's sign flips where |m| >= threshold and m has the sign of the weight, that
    is, where the gradient has long asked for a smaller weight. gamma falls by ``decay`` at each quarter of the
    training.

    Args:
        module: the network.
        masks: what computes; its magnitudes never change.
        gamma: adaptivity rate at the first step.
        decay: by which it is multiplied at each quarter.
        threshold: tau.
        total_steps: of the training.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        gamma: float,
        decay: float,
        threshold: float,
        total_steps: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._gamma, self._decay, self._threshold = gamma, decay, threshold
        self._total_steps = total_steps
        self._momentum = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        # An optimiser wants something, and a network without biases and norm layers has nothing for it.
        self._nothing = torch.zeros(1, requires_grad=True)

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return what is not masked."""
        return [(name, parameter) for name, parameter in super().named_parameters() if name not in self._weights]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group, of what is not masked."""
        return [{"params": [parameter for _, parameter in self.named_parameters()] or [self._nothing]}]

    def rate(self, step: int) -> float:
        """Return gamma at a step."""
        return self._gamma * self._decay ** (4 * step // max(1, self._total_steps))

    def after_backward(self, step: int) -> bool:
        """Move the momentum and flip signs; the optimiser does not see these weights."""
        gamma = self.rate(step)
        with torch.no_grad():
            for name, weight in self._weights.items():
                if weight.grad is None:
                    continue
                momentum = self._momentum[name].lerp_(weight.grad, gamma)
                flips = flipped(weight, momentum, self._threshold)
                weight.copy_(torch.where(flips & self.masks[name], -weight, weight))
                weight.grad = None
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the masks and the momenta."""
        return super().tensors() | {f"momentum/{name}": value for name, value in self._momentum.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        for name, value in self._momentum.items():
            value.copy_(tensors[f"momentum/{name}"])

    def handover(self) -> dict[str, Handover]:
        """Return the sign of every kept weight; the magnitudes are those that the seed draws."""
        return {
            name: Handover("signs", signs.parts_of(to_numpy(mask), to_numpy(self._weights[name].signbit())))
            for name, mask in self.masks.items()
        }


def flipped(weight: torch.Tensor, momentum: torch.Tensor, threshold: float) -> torch.Tensor:
    """Return where a sign flips: |m| >= threshold and sign(m) = sign(w) (Helwegen et al. 2019, algorithm 1)."""
    return (momentum.abs() >= threshold) & (momentum.sign() == weight.sign())
