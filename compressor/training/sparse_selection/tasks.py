"""SupSup: one random network, one mask a task; a new task leaves the earlier ones as they are (Wortsman 2020)."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import nn

from ....files import Array
from ....models.seeding.initialisers import draw
from ....models.tensors import to_numpy
from ...mask import BoolArray
from ...rule import MaskRule
from ..dynamics import FlopCounter, no_cost
from ..tape import INITIAL
from .edge_popup import EdgePopup

_STATISTICS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d)


class TaskMask(EdgePopup):
    """edge-popup for one task after others, over the same weights, with scores of its own.

    Running statistics of batch normalisation are those of the first task: later ones compute with them, so that no
    task changes what another one computes.

    Args:
        module: the network, as the task before has left it.
        rule: space, structure and allocation.
        sparsity: the share of weights left out, of every task.
        task: the number of this one, from 0.
        recorded: recorded states by label: the initial one, and the masks of the tasks before this one.
        seed: the run's seed.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        task: int,
        recorded: Callable[[str], Mapping[str, Array]],
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        parameters = dict(module.named_parameters())
        with torch.no_grad():
            initial = recorded(INITIAL) if task else {}
            for name in rule.space.names if task else ():
                parameters[name].copy_(torch.from_numpy(initial[name]))
        self._task = task
        self._earlier = [recorded(task_label(number)) for number in range(task)]
        super().__init__(module, rule, sparsity, seed=seed, scores=task_scores(rule, task, seed), flops=flops)

    def before_forward(self, step: int) -> None:
        """Keep the first task's statistics."""
        if self._task:
            self._train_statistics(False)

    def recordings(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the mask of this task, for the tape."""
        return {task_label(self._task): dict(self.masks)}

    def all_masks(self, name: str) -> list[BoolArray]:
        """Return the masks of one tensor, a task each, this one last."""
        return [masks[name].astype(np.bool_) for masks in self._earlier] + [to_numpy(self.masks[name])]

    def finish(self) -> None:
        """Let statistics move again."""
        super().finish()
        self._train_statistics(True)

    def _train_statistics(self, moving: bool) -> None:
        for layer in self.module.modules():
            if isinstance(layer, _STATISTICS):
                layer.train(moving and self.module.training)


def task_label(task: int) -> str:
    """Return what the tape calls the masks of a task."""
    return f"task-{task}"


def task_scores(rule: MaskRule, task: int, seed: int) -> dict[str, torch.Tensor]:
    """Return the first scores of a task: those of edge-popup for the first one, then further streams like them."""
    stream = "scores" if task == 0 else f"scores/{task}"
    return {
        tensor.name: torch.from_numpy(
            draw("uniform", tensor.shape, tensor.fan_in, 0, seed, f"{tensor.name}/{stream}")[0]
        )
        for tensor in rule.space.tensors
    }
