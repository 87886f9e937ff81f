"""A method's declaration as a list of stages: where the mask comes from, where the weights, what is trained when.

    none      train                                                             (dense)
    initial   select, train                                                     (SNIP, FreezeNet)
    current   [select at random,] train while the mask moves or is learned      (RigL, edge-popup)
    final     train, then a round for each level: select, [rewind,] train       (magnitude, lottery tickets)
              or one training during which the mask shrinks                     (gradual magnitude)

Pure: no file, no network; the same recipe gives the same plan.
"""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import UsageError
from .methods import Method
from .schedule import iterative, one_shot
from .settings import PruneRecipe, TrainSettings
from .training.tape import step_label


@dataclass(frozen=True)
class Record:
    """Put the present state on the tape."""

    title: str
    label: str


@dataclass(frozen=True)
class Train:
    """Train from ``first_step`` to the end of the settings' schedule.

    Attributes:
        title: for log and progress.
        settings: the training.
        dynamics: what becomes of the mask: ``none``, ``static``, ``frozen``, ``rigl``, ``selected`` or ``gradual``.
        first_step: 0, or the step that the weights were set back to.
        record_step: the step before which the state goes on the tape, or None.
    """

    title: str
    settings: TrainSettings
    dynamics: str
    first_step: int = 0
    record_step: int | None = None


@dataclass(frozen=True)
class Select:
    """Score the weights and choose the mask, within the present one.

    Attributes:
        title: for log and progress.
        score: entry of ``SCORES``.
        sparsity: of the space after it.
        number: of the round, from 0.
    """

    title: str
    score: str
    sparsity: float
    number: int


@dataclass(frozen=True)
class Rewind:
    """Set all weights and statistics back to a state on the tape."""

    title: str
    label: str


Stage = Record | Train | Select | Rewind


def make_plan(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of a run.

    Args:
        recipe: complete.
        method: its declaration.
        sparsity: the final one.

    Raises:
        UsageError: a step to rewind to, and no training.
    """
    if method.mask_from == "final" and recipe.schedule != "gradual":
        return _after_training(recipe, method, sparsity)
    stages: list[Stage] = []
    dynamics: str = method.dynamics
    if recipe.schedule == "gradual":
        dynamics = "gradual"
    elif method.score is not None and method.score != "learned":
        stages.append(Select("mask", method.score, sparsity, 0))
    # Learned scores exist from the first step on: with no training at all, their initial values choose.
    stages += _trainings(Train("training", recipe.train, dynamics), even_empty=dynamics == "selected")
    if recipe.fine_tune is not None:
        stages += _trainings(Train("fine-tuning", recipe.fine_tune, "static"))
    return stages


def _after_training(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    step = recipe.options.get("rewind_step", 0)
    rewinds = method.weights_from == "early"
    if rewinds and step and not recipe.train.epochs:
        raise UsageError(f"rewind_step is {step}, and there is no training to take that step.")
    stages: list[Stage] = []
    if rewinds and step == 0:
        stages.append(Record("initial state", step_label(0)))
    stages += _trainings(Train("training", recipe.train, "none", record_step=step if rewinds and step else None))
    levels = one_shot(sparsity)
    if recipe.schedule == "iterative":
        # At sparsity 0 no round removes anything; the mask that keeps everything is selected all the same.
        levels = iterative(sparsity, recipe.rounds, recipe.options["rate"]) or levels
    for number, level in enumerate(levels):
        suffix = f" {number + 1}/{len(levels)}" if len(levels) > 1 else ""
        stages.append(Select(f"mask{suffix}", str(method.score), level, number))
        if rewinds:
            stages.append(Rewind(f"rewinding{suffix}", step_label(step)))
            stages += _trainings(Train(f"retraining{suffix}", recipe.train, method.dynamics, first_step=step))
        elif recipe.fine_tune is not None:
            stages += _trainings(Train(f"fine-tuning{suffix}", recipe.fine_tune, method.dynamics))
    return stages


def _trainings(stage: Train, *, even_empty: bool = False) -> list[Stage]:
    """Return the training, or nothing when it has no epochs."""
    return [stage] if stage.settings.epochs or even_empty else []
