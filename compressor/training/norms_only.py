"""Training of normalisation alone: scales and shifts move, every other parameter stays as it was drawn.

Sources: Frankle et al., Training BatchNorm and Only BatchNorm, ICLR 2021; Rosenfeld and Tsotsos, Intriguing Properties
of Randomly Weighted Networks, CRV 2019.
"""

from __future__ import annotations

import torch
from torch import nn

from ...errors import UnsupportedError
from .dynamics import Dynamics, FlopCounter, Masks, no_cost

_NORMS = (
    nn.BatchNorm1d,
    nn.BatchNorm2d,
    nn.BatchNorm3d,
    nn.SyncBatchNorm,
    nn.InstanceNorm1d,
    nn.InstanceNorm2d,
    nn.InstanceNorm3d,
    nn.LayerNorm,
    nn.GroupNorm,
    nn.RMSNorm,
)


class NormsOnly(Dynamics):
    """Training of the affine parameters of normalisation layers.

    Gradients flow through everything, and are computed for nothing else.

    Args:
        module: the network.
        masks: of its weights, none of which is kept.
        flops: counts the operations of an example.

    Raises:
        UnsupportedError: the network has no such parameter.
    """

    def __init__(self, module: nn.Module, masks: Masks, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        norms = {
            id(parameter)
            for layer in module.modules()
            if isinstance(layer, _NORMS)
            for parameter in layer.parameters(recurse=False)
        }
        self._still = {
            name: parameter
            for name, parameter in module.named_parameters()
            if id(parameter) not in norms and parameter.requires_grad
        }
        if not self.named_parameters():
            raise UnsupportedError(
                "only the scales and shifts of normalisation layers are trained, and this network has none; use "
                "another method, for example random-filters."
            )
        self.masks = {name: mask.to(dict(module.named_parameters())[name].device) for name, mask in masks.items()}
        self.untrained = frozenset(self._still)
        self.flops_per_example = self._count_flops(self.masks)

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return scales and shifts."""
        return [(name, p) for name, p in super().named_parameters() if name not in self._still]

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser; no gradient of what stays is computed from here on."""
        for parameter in self._still.values():
            parameter.requires_grad_(False)

    def finish(self) -> None:
        """Leave every parameter as trainable as it was."""
        for parameter in self._still.values():
            parameter.requires_grad_(True)
