"""Training that counts how often each example is forgotten, and ends once the mask that it leads to has settled.

Zhang et al. 2021 ("Efficient Lottery Ticket Finding: Less Data is More", section 3): an example is forgotten when it
is classified rightly at one presentation and wrongly at the next (Toneva et al. 2019). The criterion for the end is
that of Early-Bird tickets on the weights' magnitudes.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from ...models.dataset import Dataset, epoch_order
from ...models.tensors import to_numpy
from ..rule import MaskRule
from .dynamics import FlopCounter, Masks, no_cost
from .mask_window import MaskWindow
from .static import StaticMask
from .weights import weight_arrays

LABEL = "forgetting"
# An example that was never classified rightly.
NEVER = -1


class Forgetting(StaticMask):
    """Training under the present mask.

    Args:
        module: the network.
        masks: the present ones; empty for a dense network.
        rule: how the next mask is chosen.
        sparsity: the one that it reaches.
        data: what is trained on.
        batch_size: examples a step.
        seed: the run's, which orders the examples.
        window: masks that have to agree.
        tolerance: largest distance between them.
        earliest: a step before which the training does not end.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        rule: MaskRule,
        sparsity: float,
        *,
        data: Dataset,
        batch_size: int,
        seed: int,
        window: int,
        tolerance: float,
        earliest: int = 0,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, flops)
        self._rule, self._sparsity = rule, sparsity
        self._examples = len(data.train_labels)
        self._spans = data.spans(batch_size)
        self._seed, self._earliest = seed, earliest
        self._window = MaskWindow(window, tolerance)
        self._step = 0
        self._order: tuple[int, npt.NDArray[np.int64]] = (-1, np.empty(0, np.int64))
        self._right = np.zeros(self._examples, np.bool_)
        self._counts = np.full(self._examples, NEVER, np.int64)

    def before_forward(self, step: int) -> None:
        """Note which step this is."""
        self._step = step

    def objective(
        self, loss: torch.Tensor, inputs: torch.Tensor, outputs: torch.Tensor, labels: torch.Tensor
    ) -> torch.Tensor:
        """Count what this batch shows; the loss stays."""
        shown = self._shown()
        right = to_numpy(outputs.detach().argmax(dim=1) == labels)
        before, counts = self._right[shown], self._counts[shown]
        counts = np.where(right & (counts == NEVER), 0, counts)
        self._counts[shown] = counts + (before & ~right)
        self._right[shown] = right
        return loss

    def after_epoch(self, epoch: int) -> bool:
        """Return whether the next mask is still moving."""
        weights = weight_arrays(self.module, list(self._rule.space.names))
        within = {name: to_numpy(mask) for name, mask in self.masks.items()} or None
        scores = {name: np.abs(weight) for name, weight in weights.items()}
        masks = self._rule.select(scores, self._sparsity, within)
        settled = self._window.push(np.concatenate([mask.reshape(-1) for mask in masks.values()]))
        return not settled or self._step + 1 < self._earliest

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return masks, window and counts."""
        counted = {
            "forgetting/right": torch.from_numpy(self._right.copy()),
            "forgetting/counts": torch.from_numpy(self._counts.copy()),
        }
        return {**super().tensors(), **self._window.tensors(), **counted}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        self._window.restore(tensors)
        self._right = tensors["forgetting/right"].numpy().astype(np.bool_)
        self._counts = tensors["forgetting/counts"].numpy().copy()

    def recordings(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the number of times that each example was forgotten (never learned: -1), for the tape."""
        return {LABEL: {"counts": torch.from_numpy(self._counts)}}

    def _shown(self) -> npt.NDArray[np.int64]:
        epoch, number = divmod(self._step, len(self._spans))
        if self._order[0] != epoch:
            self._order = (epoch, epoch_order(self._seed, epoch, self._examples))
        begin, end = self._spans[number]
        return self._order[1][begin:end]
