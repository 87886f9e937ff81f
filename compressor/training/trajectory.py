"""Dense training that keeps the weights of a few moments, for methods that look at the way a network takes."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

import torch
from torch import nn

from .dynamics import Dynamics, FlopCounter, no_cost

LABEL = "trajectory"


def moments(count: int, last: int, *others: int) -> tuple[int, ...]:
    """Return the steps of ``count`` moments at even distances from 0 to ``last``, and some others; each once."""
    even = (round(number * last / max(count - 1, 1)) for number in range(count))
    return tuple(sorted({*even, *others}))


class Trajectory(Dynamics):
    """Training whose weights before some steps go on the tape together, as NAME: [moments, *shape].

    Args:
        module: the network.
        names: the weights to keep; one copy of them is held a moment.
        steps: the moments; the number of all steps is the end of the training.
        total: steps of the training.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        names: Sequence[str],
        steps: Collection[int],
        total: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in names}
        self._steps, self._total = frozenset(steps), total
        self._kept: dict[int, dict[str, torch.Tensor]] = {}

    def before_forward(self, step: int) -> None:
        """Keep the weights if this is one of the moments."""
        if step in self._steps:
            self._kept[step] = {name: weight.detach().cpu().clone() for name, weight in self._weights.items()}

    def finish(self) -> None:
        """Keep the last weights if the end is one of the moments."""
        self.before_forward(self._total)

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return what was kept so far."""
        return {f"{step}/{name}": row for step, rows in self._kept.items() for name, row in rows.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put it back."""
        for key, row in tensors.items():
            step, _, name = key.partition("/")
            self._kept.setdefault(int(step), {})[name] = row.cpu()

    def recordings(self) -> dict[str, dict[str, torch.Tensor]]:
        """Return the kept weights for the tape, in the order of the steps."""
        rows = [self._kept[step] for step in sorted(self._kept)]
        return {LABEL: {name: torch.stack([row[name] for row in rows]) for name in self._weights}}
