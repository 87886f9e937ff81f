"""Early-Bird tickets: channels are drawn as soon as the ranking of their scales has settled (You et al. 2020).

The network trains with an L1 penalty on the scales of batch normalisation; after each epoch the mask that they would
give goes into a window. When the newest is near all older ones the ticket is drawn, and the same training goes on with
its channels alone, on the weights and the learning rates that it has.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ..mask import BoolArray
from ..rule import MaskRule
from .behind import choose_now
from .dynamics import FlopCounter, Masks, no_cost
from .mask_window import MaskWindow
from .penalties import ScalePenalty
from .static import StaticMask

_DRAWN = "drawn/epoch"


class EarlyBird(StaticMask):
    """Training that draws its ticket on the way.

    Args:
        module: the network.
        rule: space, structure and allocation; whole channels.
        sparsity: the share removed.
        penalty: lambda of the L1 norm of the scales, until the ticket is drawn.
        window: masks that have to agree.
        tolerance: largest distance between them.
        flops: counts the operations of an example.

    Raises:
        UnsupportedError: there is no batch normalisation with scales.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        penalty: float,
        window: int,
        tolerance: float,
        flops: FlopCounter = no_cost,
    ) -> None:
        parameters = dict(module.named_parameters())
        full = {name: torch.ones_like(parameters[name], dtype=torch.bool) for name in rule.names}
        super().__init__(module, full, flops)
        self._penalty = ScalePenalty(module, penalty)
        self._rule, self._sparsity = rule, sparsity
        self._window = MaskWindow(window, tolerance)
        # The epoch after which the ticket was drawn; 0 while it is not.
        self._drawn = 0

    def after_backward(self, step: int) -> bool:
        """Add the penalty's gradient while the ticket is not drawn; mask the gradients once it is."""
        if not self._drawn:
            return self._penalty.after_backward(step)
        return super().after_backward(step)

    def after_epoch(self, epoch: int) -> bool:
        """Draw the ticket if the ranking has settled; the training goes on."""
        if not self._drawn:
            masks = self._choose()
            if self._window.push(self._bits(masks)):
                self._draw(masks, epoch)
        return True

    def figures(self) -> dict[str, float]:
        """Return the epoch after which the ticket was drawn; 0 where that was at the end of the training."""
        return {"drawn_after_epoch": self._drawn}

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return masks, window and epoch."""
        return {**super().tensors(), **self._window.tensors(), _DRAWN: torch.tensor(self._drawn)}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        self._window.restore(tensors)
        self._drawn = int(tensors[_DRAWN])

    def finish(self) -> None:
        """Draw the ticket now if it was not drawn before."""
        if not self._drawn:
            self._draw(self._choose(), 0)
        super().finish()

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser."""
        self._optimiser = optimiser
        super().finish()

    def _choose(self) -> Masks:
        return choose_now(self.module, self._rule, {}, self._sparsity)

    def _draw(self, masks: Masks, epoch: int) -> None:
        for name, mask in masks.items():
            self.move(name, mask)
        self._drawn = epoch
        self.count_flops()

    def _bits(self, masks: Masks) -> BoolArray:
        """Return one entry a channel; without coupled units, one a weight."""
        arrays = {name: mask.cpu().numpy() for name, mask in masks.items()}
        if self._rule.units is None:
            return np.concatenate([array.reshape(-1) for array in arrays.values()])
        return np.concatenate(self._rule.units.coupling.alive(arrays))
