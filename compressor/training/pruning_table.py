"""The dynamics of pruning during or after training, by the names that declarations use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from .dynamics import Dynamics
from .global_momentum import GlobalSparseMomentum
from .growing import GrowingPenalty
from .movement import Movement, StraightThrough, Surgery
from .penalties import GroupLasso, ScalePenalty
from .thresholds import ScaledUnits, SoftThreshold, UnitThreshold

if TYPE_CHECKING:
    from .table import Context


def _movement(context: Context) -> Dynamics:
    options = context.options
    return Movement(
        *context.aim,
        rate=options["score_rate"],
        start=context.step_of("start"),
        end=context.step_of("end", least=1),
        flops=context.counter.dense_gradient_step,
    )


def _soft_movement(context: Context) -> Dynamics:
    return Movement(
        *context.aim,
        rate=context.options["score_rate"],
        start=0,
        end=1,
        soft=True,
        threshold=context.options["threshold"],
        penalty=context.options["penalty"],
        flops=context.counter.dense_gradient_step,
    )


def _surgery(context: Context) -> Dynamics:
    return Surgery(
        *context.aim,
        gamma=context.options["gamma"],
        power=context.options["power"],
        end=context.step_of("end"),
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _straight_through(context: Context) -> Dynamics:
    return StraightThrough(
        *context.aim,
        decay=context.options["decay"],
        flops=context.counter.dense_gradient_step,
    )


def _soft_threshold(context: Context) -> Dynamics:
    return SoftThreshold(
        *context.aim,
        start=context.options["start"],
        decay=context.options["threshold_decay"],
        flops=context.counter.masked_step,
    )


def _unit_threshold(context: Context) -> Dynamics:
    return UnitThreshold(
        *context.aim,
        alpha=context.options["alpha"],
        flops=context.counter.dense_gradient_step,
    )


def _scaled_units(context: Context) -> Dynamics:
    return ScaledUnits(
        *context.aim,
        penalty=context.options["penalty"],
        momentum=context.options["scale_momentum"],
        flops=context.counter.masked_step,
    )


def _growing(kind: str) -> Callable[[Context], Dynamics]:
    def make(context: Context) -> Dynamics:
        options = context.options
        return GrowingPenalty(
            *context.aim,
            kind=kind,
            ceiling=options["ceiling"],
            pick_ceiling=options.get("pick_ceiling", 0.0),
            pick=max(1, round(options.get("pick", 0.0) * context.total_steps)),
            end=context.step_of("end", least=1),
            every=options["update_interval"],
            flops=context.counter.masked_step,
        )

    return make


def _global_momentum(context: Context) -> Dynamics:
    return GlobalSparseMomentum(*context.aim, context.counter.masked_step)


def _scale_penalty(context: Context) -> Dynamics:
    return ScalePenalty(context.module, context.options["penalty"], context.counter.masked_step)


def _group_lasso(context: Context) -> Dynamics:
    return GroupLasso(
        context.module,
        context.chosen,
        filters=context.options["filter_penalty"],
        channels=context.options["channel_penalty"],
        flops=context.counter.masked_step,
    )


PRUNING: dict[str, Callable[[Context], Dynamics]] = {
    "movement": _movement,
    "soft-movement": _soft_movement,
    "surgery": _surgery,
    "straight-through": _straight_through,
    "soft-threshold": _soft_threshold,
    "unit-threshold": _unit_threshold,
    "scaled-units": _scaled_units,
    "greg-1": _growing("greg-1"),
    "greg-2": _growing("greg-2"),
    "increg": _growing("increg"),
    "global-momentum": _global_momentum,
    "scale-penalty": _scale_penalty,
    "group-lasso": _group_lasso,
}
