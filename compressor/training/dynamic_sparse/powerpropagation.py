"""Powerpropagation: theta = phi |phi|**(alpha - 1), so that small weights stay small (Schwarz et al. 2021).

The optimiser trains phi; the network's own parameters hold theta, and everything else (forward, evaluation, pruning by
magnitude) sees only these.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import torch
from torch import nn

from ..dynamics import Dynamics, FlopCounter, no_cost


class Powerpropagation(Dynamics):
    """Dense training of a power of the weights.

    Args:
        module: the network; its weights are theta at the start, so it begins as usual.
        names: the weights that are reparametrised; biases and the rest are trained as they are.
        alpha: the power, at least 1; 1 is ordinary training.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, names: Sequence[str], alpha: float, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._alpha = alpha
        self._weights = {name: parameters[name] for name in names if parameters[name].requires_grad}
        self._phi = {
            name: nn.Parameter(weight.detach().sign() * weight.detach().abs() ** (1 / alpha))
            for name, weight in self._weights.items()
        }
        if alpha == 1:
            # The powers above would lose a bit of some weights.
            self._phi = {name: nn.Parameter(weight.detach().clone()) for name, weight in self._weights.items()}
        self._show()

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return phi in the place of each reparametrised weight, and all other parameters."""
        return [
            (f"phi/{name}", self._phi[name]) if name in self._phi else (name, parameter)
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad
        ]

    def after_backward(self, step: int) -> bool:
        """Turn dL/dtheta into dL/dphi = alpha |phi|**(alpha - 1) dL/dtheta."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                phi = self._phi[name]
                phi.grad = weight.grad * (self._alpha * phi.detach().abs() ** (self._alpha - 1))
                weight.grad = None
        return True

    def after_step(self, step: int) -> None:
        """Compute theta from phi."""
        self._show()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return phi."""
        return {f"phi/{name}": phi.detach() for name, phi in self._phi.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back phi."""
        with torch.no_grad():
            for name, phi in self._phi.items():
                phi.copy_(tensors[f"phi/{name}"])
        self._show()

    def _show(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                phi = self._phi[name].detach()
                weight.copy_(phi * phi.abs() ** (self._alpha - 1))
