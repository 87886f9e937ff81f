"""The dynamics of lottery tickets and of trained coefficients, by the names that declarations use."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from ...errors import UsageError
from .coefficients import CosineOffset, FilterBasis
from .dynamics import Dynamics
from .early_bird import EarlyBird
from .extrusion import Extrusion
from .forgetting import Forgetting
from .trajectory import Trajectory, moments

if TYPE_CHECKING:
    from .table import Context


def _early_bird(context: Context) -> Dynamics:
    return EarlyBird(
        *context.aim,
        penalty=context.options["penalty"],
        window=context.options["window"],
        tolerance=context.options["tolerance"],
        flops=context.counter.masked_step,
    )


def _extrusion(context: Context) -> Dynamics:
    return Extrusion(
        context.module,
        context.torch_masks(),
        context.chosen,
        context.sparsity,
        seed=context.seed,
        ceiling=context.options["ceiling"],
        end=context.step_of("end", least=1),
        every=context.options["update_interval"],
        flops=context.counter.masked_step,
    )


def _trajectory(context: Context) -> Dynamics:
    options, total = context.options, context.total_steps
    steps = moments(options["snapshots"], max(1, round(options["share"] * total)), options["rewind_step"])
    return Trajectory(context.module, context.chosen.space.names, steps, total, context.counter.masked_step)


def _forgetting(context: Context) -> Dynamics:
    if context.data is None:
        raise UsageError("counting forgotten examples takes a data set whose order is known; name it with data.")
    return Forgetting(
        context.module,
        context.torch_masks(),
        context.chosen,
        context.sparsity,
        data=context.data,
        batch_size=context.settings.batch_size,
        seed=context.seed,
        window=context.options["window"],
        tolerance=context.options["tolerance"],
        earliest=context.options["rewind_step"],
        flops=context.counter.masked_step,
    )


def _cosine_offset(context: Context) -> Dynamics:
    return CosineOffset(context.module, context.torch_masks(), context.chosen, context.counter.frozen_step)


def _filter_basis(context: Context) -> Dynamics:
    return FilterBasis(
        context.module,
        context.torch_masks(),
        context.chosen,
        kind=context.options["basis"],
        sharing=context.options["sharing"],
        trained=context.options["train_basis"],
        seed=context.seed,
        flops=context.counter.frozen_step,
    )


TICKETS: dict[str, Callable[[Context], Dynamics]] = {
    "early-bird": _early_bird,
    "extrusion": _extrusion,
    "trajectory": _trajectory,
    "forgetting": _forgetting,
    "cosine-offset": _cosine_offset,
    "filter-basis": _filter_basis,
}
