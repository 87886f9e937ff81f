"""The running loss: summed without waiting for the device, checked often enough to name the step that diverged."""

from __future__ import annotations

import math

import torch

from ...errors import TrainingDivergedError

# Reading a loss waits for a GPU to finish; sixteen steps a look keep that, and the work wasted on a NaN, negligible.
CHECK_EVERY = 16


class LossMeter:
    """The mean loss of an epoch, and the check that every single loss was finite.

    Attributes:
        total: the sum of batch losses times batch sizes since :meth:`start_epoch`, up to the last :meth:`flush`.
        examples: how many examples that sum counts.
    """

    def __init__(self) -> None:
        self.total = 0.0
        self.examples = 0
        self._pending: list[torch.Tensor] = []
        self._sizes: list[int] = []

    def start_epoch(self) -> None:
        """Forget the finished epoch."""
        self.total, self.examples = 0.0, 0

    def add(self, loss: torch.Tensor, examples: int) -> bool:
        """Take the scalar loss of one batch; return True when :meth:`flush` is due."""
        self._pending.append(loss.detach())
        self._sizes.append(examples)
        return len(self._pending) >= CHECK_EVERY

    def flush(self, step: int) -> None:
        """Add what is pending to the sum.

        Args:
            step: how many steps have been taken; the last pending loss is that of step ``step - 1``.

        Raises:
            TrainingDivergedError: one of the pending losses is not finite; names its step.
        """
        if not self._pending:
            return
        values = torch.stack(self._pending).tolist()
        for offset, (value, size) in enumerate(zip(values, self._sizes, strict=True)):
            if not math.isfinite(value):
                raise TrainingDivergedError(
                    f"the loss became {value} at step {step - len(values) + offset}; lower the learning rate or add "
                    "warm-up. The last good state is kept in the run's folder."
                )
            self.total += value * size
            self.examples += size
        self._pending.clear()
        self._sizes.clear()

    @property
    def mean(self) -> float | None:
        """The mean loss an example, or None when nothing was counted."""
        return self.total / self.examples if self.examples else None
