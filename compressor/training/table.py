"""The dynamics by the names that a plan uses."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import nn

from ...files import Array
from ...models.dataset import Dataset
from ...models.seeding.record import PHILOX, SeedRecord
from ..counter import Counter
from ..mask import BoolArray
from ..rule import MaskRule
from ..settings import TrainSettings
from .dynamic_sparse.table import DYNAMIC_SPARSE
from .dynamics import Dynamics, Masks
from .fixed_classifier import FixedClassifier
from .frozen import FadingPart, FrozenPart, PartlyFrozen
from .gradual import GradualMask
from .norms_only import NormsOnly
from .pruning_table import PRUNING
from .recorded import UpdateSquares
from .rigl import RigL
from .sparse_selection.table import SPARSE_SELECTION
from .static import StaticMask
from .subspace import Subspace
from .ticket_table import TICKETS


def _nothing(key: int | str) -> Mapping[str, Array]:
    """Stand for draws and recorded states where there are none."""
    return {}


def _copied(masks: Mapping[str, BoolArray]) -> Masks:
    return {name: torch.from_numpy(mask.copy()) for name, mask in masks.items()}


@dataclass(frozen=True)
class Context:
    """What dynamics may need to begin.

    Attributes:
        module: the network.
        masks: the present masks, by weight name.
        rule: how masks are chosen; None for a dense run.
        sparsity: the run's final one, or that of the round that this training belongs to.
        settings: of the training that begins.
        total_steps: its length.
        options: the method's own.
        seed: the run's.
        counter: counts operations.
        fixed: by weight name, entries within the mask that are not trained.
        data: what is trained on, where the order of its examples is known; None in a loop of the user's own.
        seeds: by parameter name, how the initial values are drawn again, where a seed does it.
        generator: that the run draws with.
        redraw: further draws of the initial weights, by number from 1; raises where there is no initialiser.
        recorded: recorded states by label.
        task: the number of the task that is trained on, from 0.
    """

    module: nn.Module
    masks: Mapping[str, BoolArray]
    rule: MaskRule | None
    sparsity: float
    settings: TrainSettings
    total_steps: int
    options: Mapping[str, Any]
    seed: int
    counter: Counter
    fixed: Mapping[str, BoolArray] = field(default_factory=dict)
    data: Dataset | None = None
    seeds: Mapping[str, SeedRecord] = field(default_factory=dict)
    generator: str = PHILOX
    redraw: Callable[[int], Mapping[str, Array]] = _nothing
    recorded: Callable[[str], Mapping[str, Array]] = _nothing
    task: int = 0

    @property
    def chosen(self) -> MaskRule:
        """The rule; asked for only by dynamics that mask."""
        if self.rule is None:
            raise ValueError("a dense run has no rule to mask by")
        return self.rule

    def torch_masks(self) -> Masks:
        """Return the masks as fresh tensors."""
        return _copied(self.masks)

    @property
    def aim(self) -> tuple[nn.Module, MaskRule, float]:
        """What dynamics that choose masks themselves begin with: network, rule and sparsity."""
        return self.module, self.chosen, self.sparsity

    def step_of(self, option: str, least: int = 0) -> int:
        """Return the step that an option names as a share of this training; at least ``least``."""
        return max(least, round(float(self.options[option]) * self.total_steps))


def _none(context: Context) -> Dynamics:
    return Dynamics(context.module, context.counter.masked_step)


def _static(context: Context) -> Dynamics:
    return StaticMask(context.module, context.torch_masks(), context.counter.masked_step)


def _frozen(context: Context) -> Dynamics:
    return FrozenPart(context.module, context.torch_masks(), context.settings, context.counter.frozen_step)


def _fading(context: Context) -> Dynamics:
    return FadingPart(
        context.module,
        context.torch_masks(),
        context.settings,
        left=context.options["left"],
        total_steps=context.total_steps,
        flops=context.counter.frozen_step,
    )


def _fixed_classifier(context: Context) -> Dynamics:
    return FixedClassifier(context.module, context.torch_masks(), context.options["unit"], context.counter.frozen_step)


def _norms_only(context: Context) -> Dynamics:
    return NormsOnly(context.module, context.torch_masks(), context.counter.frozen_step)


def _subspace(context: Context) -> Dynamics:
    return Subspace(
        context.module,
        context.options["dimension"],
        seed=context.seed,
        seeds=context.seeds,
        flops=context.counter.masked_step,
    )


def _partly_frozen(context: Context) -> Dynamics:
    return PartlyFrozen(
        context.module, context.torch_masks(), _copied(context.fixed), context.settings, context.counter.masked_step
    )


def _gradual(context: Context) -> Dynamics:
    return GradualMask(
        *context.aim,
        start=context.step_of("gradual_start"),
        # At least one step, or a short training would end before it prunes.
        end=context.step_of("gradual_end", least=1),
        every=context.options["update_interval"],
        flops=context.counter.masked_step,
    )


def _rigl(context: Context) -> Dynamics:
    return RigL(
        context.module,
        context.torch_masks(),
        drop_fraction=context.options["drop_fraction"],
        end=context.step_of("update_end"),
        every=context.options["update_interval"],
        flops=context.counter.masked_step,
        exchange_flops=context.counter.dense_gradient_step,
    )


def _update_squares(context: Context) -> Dynamics:
    return UpdateSquares(context.module, context.chosen.space.names, context.counter.masked_step)


DYNAMICS: dict[str, Callable[[Context], Dynamics]] = {
    "none": _none,
    "static": _static,
    "frozen": _frozen,
    "fading": _fading,
    "fixed-classifier": _fixed_classifier,
    "norms-only": _norms_only,
    "partly-frozen": _partly_frozen,
    "subspace": _subspace,
    "gradual": _gradual,
    "rigl": _rigl,
    "update-squares": _update_squares,
    **PRUNING,
    **DYNAMIC_SPARSE,
    **TICKETS,
    **SPARSE_SELECTION,
}
