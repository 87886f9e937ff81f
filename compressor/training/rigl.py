"""RigL: every so often the smallest weights of a layer leave and the largest gradients come in (Evci et al. 2020).

The number of kept weights of every layer never changes. A weight that comes in starts at zero, with an empty optimiser
memory, so that the network computes at that instant what it computed without it; one that leaves and comes back in the
same exchange keeps both. The exchange replaces the optimiser's step, as in the authors' code.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ...errors import TrainingDivergedError
from ...files import Array
from ...models.tensors import to_numpy
from ..mask import BoolArray
from ..schedule import cosine_drop_fraction, never_updates, updates_at
from .dynamics import FlopCounter, Masks, no_cost
from .exact import keep_largest
from .static import StaticMask


class RigL(StaticMask):
    """Dynamic sparse training that grows by the gradient's magnitude.

    Args:
        module: the network.
        masks: where it begins.
        drop_fraction: alpha, the share exchanged at first; it fades out along a cosine.
        end: the step from which on the masks stay.
        every: steps between two exchanges.
        flops: counts the operations of an example.
        exchange_flops: operations of an example at an exchange: sparse forward, dense backward.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        *,
        drop_fraction: float,
        end: int,
        every: int,
        flops: FlopCounter = no_cost,
        exchange_flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._fraction = drop_fraction
        self._end, self._every = end, every
        self._count_exchange_flops = exchange_flops
        self._usual_flops = self.flops_per_example
        self._explored = {name: mask.clone() for name, mask in self.masks.items()}

    def after_backward(self, step: int) -> bool:
        """Mask the gradients, or exchange weights and let the optimiser wait."""
        if updates_at(step, self._end, self._every):
            fraction = cosine_drop_fraction(step, self._end, self._fraction)
            if self.exchange(fraction, step):
                self.flops_per_example = self._count_exchange_flops(self.masks)
                return False
        self.flops_per_example = self._usual_flops
        return super().after_backward(step)

    def move(self, name: str, mask: torch.Tensor) -> None:
        """Replace one mask, and remember which weights have ever been kept."""
        super().move(name, mask)
        self._explored[name] |= mask

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the masks, and the union of all masks so far."""
        return super().tensors() | {f"explored/{name}": mask for name, mask in self._explored.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back the masks and their union."""
        super().restore(tensors)
        for name, mask in self._explored.items():
            mask.copy_(tensors[f"explored/{name}"].to(torch.bool))

    def figures(self) -> dict[str, float]:
        """Return R_s, the share of the weights that were ever kept (Liu et al. 2021, in-time over-parameterization)."""
        seen = sum(int(mask.sum()) for mask in self._explored.values())
        total = sum(mask.numel() for mask in self._explored.values())
        return {"explored": round(seen / max(1, total), 6)}

    def remarks(self) -> list[str]:
        """Tell of a training that was too short for any exchange."""
        return never_updates(self._end, self._every)

    def exchange(self, fraction: float, step: int) -> bool:
        """Drop and grow ``int(fraction * kept)`` weights of every layer; return False when there is nothing to do.

        Args:
            fraction: of each layer's kept weights.
            step: named when a gradient is not finite.

        Raises:
            TrainingDivergedError: a gradient is not finite.
        """
        moved = False
        for name, weight in self._weights.items():
            old = to_numpy(self.masks[name])
            kept = int(np.count_nonzero(old))
            count = int(fraction * kept)
            if count == 0 or kept == old.size or weight.grad is None:
                continue
            if not bool(torch.isfinite(weight.grad).all()):
                raise TrainingDivergedError(
                    f"the gradient of '{name}' is not finite at step {step}; lower the learning rate or add warm-up. "
                    "The last good state is kept in the run's folder."
                )
            mask = _exchange(old.reshape(-1), _magnitudes(weight.detach()), _magnitudes(weight.grad), count)
            self.move(name, torch.from_numpy(mask.reshape(old.shape)).to(weight.device))
            moved = True
        return moved


def _magnitudes(tensor: torch.Tensor) -> Array:
    # numpy partitions no bfloat16.
    return to_numpy(tensor.abs().to(torch.promote_types(tensor.dtype, torch.float32))).reshape(-1)


def _exchange(old: BoolArray, magnitude: Array, gradient: Array, count: int) -> BoolArray:
    """Return the mask after ``count`` of the kept entries with smallest magnitude gave way to the largest gradients."""
    kept = np.flatnonzero(old)
    mask = np.zeros(old.size, np.bool_)
    mask[kept[keep_largest(magnitude[kept], kept.size - count)]] = True
    free = np.flatnonzero(~mask)
    mask[free[keep_largest(gradient[free], count)]] = True
    return mask
