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


def _popup(kind: type[EdgePopup]) -> Callable[[Context], Dynamics]:
    """Return how a selection begins that takes nothing but its aim: EdgePopup, or one that differs in its scores."""

    def begin(context: Context) -> Dynamics:
        return kind(*context.aim, seed=context.seed, flops=context.counter.dense_gradient_step)

    return begin


def _iterand(context: Context) -> Dynamics:
    return IteRand(
        *context.aim,
        seed=context.seed,
        redraw=context.redraw,
        every=context.options["update_interval"],
        share=context.options["redraw"],
        flops=context.counter.dense_gradient_step,
    )


def _signed_supermask(context: Context) -> Dynamics:
    return SignedSupermask(
        *context.aim,
        threshold=context.options["threshold"],
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


def _supermask(context: Context) -> Dynamics:
    return Supermask(
        *context.aim,
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
        *context.aim,
        task=context.task,
        recorded=context.recorded,
        seed=context.seed,
        flops=context.counter.dense_gradient_step,
    )


SPARSE_SELECTION: dict[str, Callable[[Context], Dynamics]] = {
    "selected": _popup(EdgePopup),
    "biprop": _popup(Biprop),
    "iterand": _iterand,
    "signed-supermask": _signed_supermask,
    "supermask": _supermask,
    "signs": _signs,
    "slots": _slots,
    "tasks": _tasks,
    "jackpots": _popup(Jackpots),
}
