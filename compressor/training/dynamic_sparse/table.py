"""How each rule of dynamic sparse training begins, by the name that a plan uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..dynamics import Dynamics
from .deep_rewiring import DeepRewiring
from .powerpropagation import Powerpropagation
from .reparameterization import DynamicReparameterization
from .sparse_evolution import SparseEvolution
from .sparse_momentum import SparseMomentum
from .top_kast import TopKast

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..table import Context


def _every(context: Context) -> int:
    """Return the steps between two exchanges: as the option says, or an epoch."""
    chosen = int(context.options["update_interval"])
    return chosen if chosen else max(1, context.total_steps // max(1, context.settings.epochs))


def _deep_rewiring(context: Context) -> Dynamics:
    return DeepRewiring(
        context.module,
        context.torch_masks(),
        pull=context.options["pull"],
        noise=context.options["noise"],
        seed=context.seed,
        flops=context.counter.masked_step,
    )


def _set(context: Context) -> Dynamics:
    return SparseEvolution(
        context.module,
        context.torch_masks(),
        fraction=context.options["drop_fraction"],
        every=_every(context),
        end=context.step_of("update_end"),
        by_sign=context.options["by_sign"],
        seed=context.seed,
        flops=context.counter.masked_step,
    )


def _dsr(context: Context) -> Dynamics:
    return DynamicReparameterization(
        context.module,
        context.torch_masks(),
        fraction=context.options["move_fraction"],
        threshold=context.options["threshold"],
        every=_every(context),
        end=context.step_of("update_end"),
        seed=context.seed,
        flops=context.counter.masked_step,
    )


def _snfs(context: Context) -> Dynamics:
    return SparseMomentum(
        context.module,
        context.torch_masks(),
        rate=context.options["drop_fraction"],
        every=_every(context),
        total_steps=context.total_steps,
        smoothing=context.options["smoothing"],
        flops=context.counter.dense_gradient_step,
    )


def _top_kast(context: Context) -> Dynamics:
    return TopKast(
        *context.aim,
        extra=context.options["extra"],
        penalty=context.options["penalty"],
        every=context.options["update_interval"],
        flops=context.counter.masked_step,
    )


def _powerpropagation(context: Context) -> Dynamics:
    return Powerpropagation(
        context.module, context.chosen.space.names, context.options["alpha"], context.counter.masked_step
    )


DYNAMIC_SPARSE: dict[str, Callable[[Context], Dynamics]] = {
    "deep-rewiring": _deep_rewiring,
    "set": _set,
    "dsr": _dsr,
    "snfs": _snfs,
    "top-kast": _top_kast,
    "powerpropagation": _powerpropagation,
}
