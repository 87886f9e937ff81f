"""Counted operations: of one example under any mask, and of a whole run."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import torch
from torch import nn

from ..errors import ModelError
from ..models.flops import layer_macs
from ..models.prunable import PrunableTensor, prunable_tensors
from .checkpoint import TrainingCost
from .cost import exchange_step_flops, forward_flops, frozen_step_flops, masked_step_flops, scoring_flops


@dataclass(frozen=True)
class Counter:
    """Counts FLOPs of one example; all zero when the multiply-adds of a layer are not known.

    Attributes:
        tensors: every prunable tensor of the network.
    """

    tensors: Sequence[PrunableTensor]

    @property
    def known(self) -> bool:
        """Whether every layer's multiply-adds were counted."""
        return all(tensor.macs is not None for tensor in self.tensors)

    def masked_step(self, masks: Mapping[str, torch.Tensor]) -> int:
        """Return a training step with these masks (none: dense)."""
        return masked_step_flops(self._sparse(masks))

    def dense_gradient_step(self, masks: Mapping[str, torch.Tensor]) -> int:
        """Return a step that computes with the kept weights but needs the gradient of every one."""
        return exchange_step_flops(self._sparse({}), self._sparse(masks))

    def frozen_step(self, masks: Mapping[str, torch.Tensor]) -> int:
        """Return a step that computes with all weights but needs only the kept ones' gradients."""
        return frozen_step_flops(self._sparse({}), self._sparse(masks))

    def scoring(self, examples: int) -> int:
        """Return what gradients for a score cost."""
        return scoring_flops(self._sparse({}), examples)

    def _sparse(self, masks: Mapping[str, torch.Tensor]) -> int:
        if not self.known:
            return 0
        return forward_flops(self.tensors, {name: int(torch.count_nonzero(mask)) for name, mask in masks.items()})


def count_layers(module: nn.Module, example_inputs: Callable[[int], tuple[torch.Tensor, ...]]) -> Counter:
    """Run the network once and return its counter; a first axis that is no batch leaves the operations unknown."""
    try:
        return Counter(prunable_tensors(module, layer_macs(module, example_inputs(2))))
    except ModelError:
        return Counter(prunable_tensors(module))


@dataclass
class Totals:
    """What a run has cost so far.

    Attributes:
        search_flops: trainings whose weights were given up again, scoring, and the training of scores.
        training_flops: trainings that the present weights come from.
        seconds: in trainings.
        trained: parameters that the last training could change.
    """

    search_flops: int = 0
    training_flops: int = 0
    seconds: float = 0.0
    trained: int = 0

    def cost(self) -> TrainingCost | None:
        """Return what the checkpoint records; None when nothing was trained or scored."""
        if not (self.trained or self.search_flops or self.training_flops):
            return None
        return TrainingCost(self.trained, self.search_flops, self.training_flops)
