"""Penalties that drive channels towards zero while a network trains, so that removing them costs little.

Their (sub)gradients are added to the loss's, which goes through momentum like the rest, as in the authors' code.
"""

from __future__ import annotations

import torch
from torch import nn

from ...errors import UnsupportedError
from ..rule import MaskRule
from .dynamics import Dynamics, FlopCounter, no_cost

_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class ScalePenalty(Dynamics):
    """Network slimming: L1 on the scales of batch normalisation (Liu et al. 2017, eq. 1).

    Args:
        module: the network.
        strength: lambda: the gradient is lambda * sign(scale).
        flops: counts the operations of an example.

    Raises:
        UnsupportedError: there is no batch normalisation with scales.
    """

    def __init__(self, module: nn.Module, strength: float, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        self._strength = strength
        self._scales = [m.weight for m in module.modules() if isinstance(m, _NORMS) and m.weight is not None]
        if not self._scales:
            raise UnsupportedError(
                "channels are ranked by the scales of batch normalisation here, and this network has none; use another "
                "method, for example l1-filters."
            )

    def after_backward(self, step: int) -> bool:
        """Add the penalty's gradient."""
        for scale in self._scales:
            if scale.grad is not None:
                scale.grad.add_(scale.detach().sign(), alpha=self._strength)
        return True


class GroupLasso(Dynamics):
    """SSL: the L2 norms of filters and of input channels as a penalty (Wen et al. 2016, eq. 4).

    Args:
        module: the network.
        rule: its space.
        filters: lambda_n, of output filters.
        channels: lambda_c, of input channels.
        flops: counts the operations of an example.
    """

    def __init__(
        self, module: nn.Module, rule: MaskRule, *, filters: float, channels: float, flops: FlopCounter = no_cost
    ) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._weights = [parameters[name] for name in rule.space.names]
        self._strengths = (filters, channels)

    def after_backward(self, step: int) -> bool:
        """Add the penalty's gradient."""
        for weight in self._weights:
            if weight.grad is not None:
                for axis, strength in enumerate(self._strengths):
                    weight.grad.add_(group_lasso_gradient(weight.detach(), axis), alpha=strength)
        return True


def group_lasso_gradient(weight: torch.Tensor, axis: int) -> torch.Tensor:
    """Return the gradient of the sum of the slices' L2 norms: W / ||W|| of each slice, 0 where that is 0."""
    others = [other for other in range(weight.dim()) if other != axis]
    norm = weight.square().sum(dim=others, keepdim=True).sqrt() if others else weight.abs()
    return torch.where(norm > 0, weight / norm, torch.zeros_like(weight))
