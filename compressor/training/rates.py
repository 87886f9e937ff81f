"""Learning rates: a pure function of the step, so that a rewound or resumed training sees the schedule as it was."""

from __future__ import annotations

import math

import msgspec

from ..settings import TrainSettings


def learning_rate(settings: TrainSettings, step: int, steps_per_epoch: int) -> float:
    """Return the learning rate of one optimiser step.

    Args:
        settings: peak rate, schedule, warm-up, milestones (in epochs) and total epochs.
        step: counted from 0 over the whole training, also when the training begins at a later step.
        steps_per_epoch: batches an epoch.

    The warm-up rises linearly and reaches the peak at its last step. ``cosine`` falls from the peak to 0 over what the
    warm-up leaves; ``step`` multiplies by gamma at each milestone.
    """
    peak = settings.learning_rate
    warmup = round(settings.warmup_epochs * steps_per_epoch)
    if step < warmup:
        return peak * (step + 1) / warmup
    if settings.rate_schedule == "cosine":
        span = max(1, settings.epochs * steps_per_epoch - warmup)
        return peak * 0.5 * (1.0 + math.cos(math.pi * min(1.0, (step - warmup) / span)))
    if settings.rate_schedule == "step":
        passed = sum(step >= milestone * steps_per_epoch for milestone in settings.milestones)
        return peak * settings.gamma**passed
    return peak


def shortened(settings: TrainSettings, share: float) -> TrainSettings:
    """Return the training with epochs (at least one), milestones and warm-up scaled by ``share``, 0 < share <= 1."""
    return msgspec.structs.replace(
        settings,
        epochs=max(1, int(settings.epochs * share)) if settings.epochs else 0,
        milestones=[milestone * share for milestone in settings.milestones],
        warmup_epochs=settings.warmup_epochs * share,
    )
