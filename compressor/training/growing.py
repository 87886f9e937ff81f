"""Pruning by an L2 penalty that grows: what is to go is pressed to zero before it is removed.

greg-1   the smallest are chosen at once, their coefficient grows step by step (Wang et al. 2021, algorithm 1)
greg-2   everything is pressed alike first, which tells sharply curved weights from flat ones; then as greg-1, while
         what stays recovers (algorithm 2)
increg   coefficients of groups grow by their rank among all, and shrink for those that rank high (Wang et al. 2019)
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ...files import Array
from ...models.tensors import to_numpy
from ..rule import MaskRule
from .behind import choose_now
from .dynamics import Dynamics, FlopCounter, Masks, no_cost


class GrowingPenalty(Dynamics):
    """Training with a gradient term ``coefficient * w`` whose coefficients grow; at the end the mask is applied.

    The papers count iterations (1e-4 every 10 until 1 for greg); here the same even growth reaches ``ceiling`` at the
    share ``end`` of the training, whatever its length. The rest of the training lets it settle.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the share removed.
        kind: ``greg-1``, ``greg-2`` or ``increg``.
        ceiling: coefficient at which growth ends.
        pick_ceiling: greg-2: coefficient of all weights when the choice is made.
        pick: greg-2: the step of the choice.
        end: step at which growth ends.
        every: steps between two increments.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        kind: str,
        ceiling: float,
        pick_ceiling: float = 0.0,
        pick: int = 0,
        end: int,
        every: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._rule, self._sparsity, self._kind = rule, sparsity, kind
        self._ceiling, self._pick_ceiling = ceiling, pick_ceiling
        self._pick = pick if kind == "greg-2" else 0
        self._end, self._every = max(end, self._pick + 1), every
        self._weights = {name: parameters[name] for name in rule.space.names}
        self._coefficients = {name: torch.zeros_like(weight) for name, weight in self._weights.items()}
        self._chosen: Masks = {}
        if kind == "greg-1":
            self._chosen = self._choose()

    @property
    def coefficients(self) -> dict[str, torch.Tensor]:
        """The present L2 coefficient of every weight, by name."""
        return self._coefficients

    def before_forward(self, step: int) -> None:
        """Let the coefficients grow."""
        if step % self._every or step >= self._end:
            return
        if self._kind == "increg":
            self._grow_by_rank(step)
        elif step < self._pick:
            self._set({}, self._pick_ceiling * min(1.0, (step + self._every) / self._pick))
        else:
            if not self._chosen:
                self._chosen = self._choose()
            share = min(1.0, (step + self._every - self._pick) / (self._end - self._pick))
            start = self._pick_ceiling if self._pick else 0.0
            self._set(self._chosen, start + (self._ceiling - start) * share, start * (1 - share))

    def after_backward(self, step: int) -> bool:
        """Add the penalty's gradient."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                if weight.grad is not None:
                    weight.grad.addcmul_(self._coefficients[name], weight)
        return True

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the coefficients and the choice."""
        chosen = {f"chosen/{name}": mask for name, mask in self._chosen.items()}
        return chosen | {f"coefficient/{name}": value for name, value in self._coefficients.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        parameters = dict(self.module.named_parameters())
        self._chosen = {
            key.removeprefix("chosen/"): mask.to(parameters[key.removeprefix("chosen/")].device, torch.bool)
            for key, mask in tensors.items()
            if key.startswith("chosen/")
        }
        for name, value in self._coefficients.items():
            value.copy_(tensors[f"coefficient/{name}"])

    def finish(self) -> None:
        """Remove what was chosen."""
        self.masks = self._chosen or self._choose()
        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(~mask, 0.0)
        self.flops_per_example = self._count_flops(self.masks)

    def _choose(self) -> Masks:
        magnitudes = {name: to_numpy(weight.detach().abs()) for name, weight in self._weights.items()}
        return choose_now(self.module, self._rule, magnitudes, self._sparsity)

    def _set(self, masks: Masks, removed: float, kept: float = 0.0) -> None:
        for name, value in self._coefficients.items():
            if name in masks:
                value.copy_(torch.where(masks[name], kept, removed))
            else:
                value.fill_(removed)

    def _grow_by_rank(self, step: int) -> None:
        step_height = self._ceiling * self._every / self._end
        for tensor in self._rule.space.tensors:
            weight = to_numpy(self._weights[tensor.name].detach().abs())
            groups = self._rule.structure.group_scores(weight, tensor)
            increments = rank_increments(groups, self._sparsity, step_height)
            spread = self._expand(increments, tensor.shape, tensor.output_axis)
            value = self._coefficients[tensor.name]
            value.add_(torch.from_numpy(spread).to(value.device, value.dtype)).clamp_(0.0, self._ceiling)

    def _expand(self, increments: Array, shape: tuple[int, ...], axis: int) -> Array:
        if increments.size == int(np.prod(shape)):
            return increments.reshape(shape)
        extent = [1] * len(shape)
        extent[axis] = -1
        return np.ascontiguousarray(np.broadcast_to(increments.reshape(extent), shape))


def rank_increments(scores: Array, sparsity: float, height: float) -> Array:
    """Return the change of each group's coefficient by its rank (Wang et al. 2019, eq. 6).

    ``height`` for the smallest, falling linearly to 0 at the rank that the sparsity ends at, and on to ``-height`` for
    the largest.

    Args:
        scores: of the groups, flat; the smallest has rank 0.
        sparsity: R, the share of groups to remove.
        height: A.
    """
    count = scores.size
    ranks = np.empty(count)
    ranks[np.argsort(scores.reshape(-1), kind="stable")] = np.arange(count)
    border = sparsity * count
    falling = height * (1 - ranks / max(border, 1e-12))
    rising = -height * (ranks - border) / max(count - 1 - border, 1.0)
    increments: Array = np.where(ranks <= border, falling, rising)
    return increments
