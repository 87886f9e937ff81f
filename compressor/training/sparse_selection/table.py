"""How each sparse selection begins, by the name that a plan uses."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....models.prunable import prunable_tensors
from ..dynamics import Dynamics
from .biprop import Biprop
from .edge_popup import EdgePopup
from .iterand import IteRand
from .jackpots import Jackpots
from .signed_supermask import SignedSupermask
from .signs import SignTraining
from .slots import SlotMachines
from .supermask import Supermask
from .tasks import TaskMask

if TYPE_CHECKING:
    from collections.abc import Callable

    from ..table import Context


def _selected(context: Context) -> Dynamics:
    return EdgePopup(
        context.module,
        context.chosen,
        context.sparsity,
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _biprop(context: Context) -> Dynamics:
    return Biprop(
        context.module,
        context.chosen,
        context.sparsity,
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _iterand(context: Context) -> Dynamics:
    return IteRand(
        context.module,
        context.chosen,
        context.sparsity,
        seed=context.seed,
        redraw=context.redraw,
        every=context.options["update_interval"],
        share=context.options["redraw"],
        flops=context.counter.dense_gradient_step,
    )


def _signed_supermask(context: Context) -> Dynamics:
    return SignedSupermask(
        context.module,
        context.chosen,
        context.sparsity,
        threshold=context.options["threshold"],
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _supermask(context: Context) -> Dynamics:
    return Supermask(
        context.module,
        context.chosen,
        context.sparsity,
        rescaled=context.options["rescale"],
        seeds=context.seeds,
        flops=context.counter.dense_gradient_step,
    )


def _signs(context: Context) -> Dynamics:
    return SignTraining(
        context.module,
        context.torch_masks(),
        gamma=context.options["gamma"],
        decay=context.options["gamma_decay"],
        threshold=context.options["threshold"],
        total_steps=context.total_steps,
        flops=context.counter.masked_step,
    )


def _slots(context: Context) -> Dynamics:
    return SlotMachines(
        context.module,
        prunable_tensors(context.module),
        values=context.options["values"],
        sampled=context.options["choice"] == "sampled",
        seed=context.seed,
        generator=context.generator,
        flops=context.counter.dense_gradient_step,
    )


def _tasks(context: Context) -> Dynamics:
    return TaskMask(
        context.module,
        context.chosen,
        context.sparsity,
        task=context.task,
        recorded=context.recorded,
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _jackpots(context: Context) -> Dynamics:
    return Jackpots(
        context.module, context.chosen, context.sparsity, seed=context.seed, flops=context.counter.dense_gradient_step
    )


SPARSE_SELECTION: dict[str, Callable[[Context], Dynamics]] = {
    "selected": _selected,
    "biprop": _biprop,
    "iterand": _iterand,
    "signed-supermask": _signed_supermask,
    "supermask": _supermask,
    "signs": _signs,
    "slots": _slots,
    "tasks": _tasks,
    "jackpots": _jackpots,
}
