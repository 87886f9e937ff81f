"""The plan of most methods, told apart by where the mask comes from.

    none      train                                                             (dense)
    initial   a round for each level: select, transform; then train             (SNIP, SynFlow, FreezeNet)
    current   [select at random,] train while the mask moves or is learned      (RigL, edge-popup)
    final     train, then a round for each level: select, [rewind,] train       (magnitude, lottery tickets)
              or one training during which the mask shrinks                     (gradual magnitude)

Pure: no file, no network; the same recipe gives the same plan.
"""

from __future__ import annotations

from ...errors import UsageError
from ..methods import Method
from ..schedule import SPACINGS, iterative, one_shot
from ..scores import find_score
from ..settings import PruneRecipe
from ..training.tape import INITIAL, round_label, step_label
from .stages import Change, Record, Rewind, Select, Stage, Train


def standard(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
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
    dynamics = method.dynamics
    if recipe.schedule == "gradual":
        dynamics = "gradual"
    elif method.score is not None and method.score != "learned":
        stages += _at_initialisation(recipe, method, sparsity)
    # Learned scores exist from the first step on: with no training at all, their initial values choose. Coefficients
    # make the weights from the first step on too.
    begins = method.score == "learned" or method.masks_coefficients
    stages += trainings(Train("training", recipe.train, dynamics), even_empty=begins)
    if recipe.fine_tune is not None:
        stages += trainings(Train("fine-tuning", recipe.fine_tune, "static"))
    return stages


def levels_of(recipe: PruneRecipe, sparsity: float) -> list[float]:
    """Return the sparsity after each round: one for one-shot; for iterative, equal shares of what is left.

    The number of rounds is the recipe's, else the method's option ``rounds``, else what its ``rate`` takes; an option
    ``spacing`` names another rule for the levels between.
    """
    if recipe.schedule != "iterative":
        return one_shot(sparsity)
    rounds = recipe.rounds or recipe.options.get("rounds")
    if rounds and "spacing" in recipe.options:
        return SPACINGS[recipe.options["spacing"]](sparsity, rounds)
    # At sparsity 0 no round removes anything; the mask that keeps everything is selected all the same.
    return iterative(sparsity, rounds, recipe.options.get("rate", 0.2)) or one_shot(sparsity)


def suffix_of(number: int, levels: list[float]) -> str:
    """Return `` 2/5`` for the second of five rounds, nothing when there is one."""
    return f" {number + 1}/{len(levels)}" if len(levels) > 1 else ""


def trainings(stage: Train, *, even_empty: bool = False) -> list[Stage]:
    """Return the training, or nothing when it has no epochs."""
    return [stage] if stage.settings.epochs or even_empty else []


def kept_round(recipe: PruneRecipe, number: int) -> list[Stage]:
    """Return the stage that records what round ``number`` (0: the dense training) ended in, where the recipe asks."""
    label = round_label(number)
    return [Record(f"state of {label}", label, masks=True)] if recipe.options.get("keep_rounds") else []


def fine_tunings(recipe: PruneRecipe, dynamics: str, suffix: str = "") -> list[Stage]:
    """Return the training that follows a mask: ``fine_tune``, or the training itself again from an earlier step on.

    The method's option ``retrain`` says which: ``fresh`` begins a learning rate schedule of its own; ``rewound`` goes
    through the training's schedule from ``retrain_step`` to its end, with the weights as they are (Renda et al. 2020);
    ``none`` leaves the weights alone.
    """
    kind = recipe.options.get("retrain", "fresh")
    if kind == "none" or recipe.fine_tune is None:
        return []
    if kind == "fresh":
        return trainings(Train(f"fine-tuning{suffix}", recipe.fine_tune, dynamics))
    if not recipe.train.epochs:
        raise UsageError("retrain is rewound, and there is no training whose schedule could be gone through again.")
    step = recipe.options["retrain_step"]
    return trainings(Train(f"retraining{suffix}", recipe.train, dynamics, first_step=step))


def _at_initialisation(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    stages: list[Stage] = []
    levels = levels_of(recipe, sparsity)
    if method.resurrects:
        stages.append(Record("initial state", INITIAL))
    for number, level in enumerate(levels):
        suffix = suffix_of(number, levels)
        last = number == len(levels) - 1
        stages.append(Select(f"mask{suffix}", str(method.score), level, number, not method.resurrects))
        if method.resurrects:
            # Weights that an earlier round removed may return, with their value.
            stages.append(Rewind(f"rewinding{suffix}", INITIAL))
        if last:
            stages += [Change(name, name, level, number) for name in method.transforms]
    return stages


def _after_training(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    step = recipe.options.get("rewind_step", 0)
    rewinds = method.weights_from == "early"
    if rewinds and step and not recipe.train.epochs:
        raise UsageError(f"rewind_step is {step}, and there is no training to take that step.")
    stages: list[Stage] = []
    looked_at = () if method.score is None else find_score(method.score).evidence
    if "update-squares" in looked_at and not recipe.train.epochs:
        raise UsageError(f"method '{method.name}' scores by the course of the training, and train has no epochs.")
    looks_back = "initial-weights" in looked_at
    if looks_back or (rewinds and step == 0):
        stages.append(Record("initial state", step_label(0)))
    record_step = step if rewinds and step else None
    stages += trainings(Train("training", recipe.train, method.prepares, record_step=record_step))
    stages += kept_round(recipe, 0)
    levels = levels_of(recipe, sparsity)
    for number, level in enumerate(levels):
        suffix = suffix_of(number, levels)
        stages.append(Select(f"mask{suffix}", str(method.score), level, number))
        if rewinds:
            stages.append(Rewind(f"rewinding{suffix}", step_label(step)))
        stages += [Change(f"{name}{suffix}", name, level, number) for name in method.transforms]
        if rewinds:
            stages += trainings(Train(f"retraining{suffix}", recipe.train, method.dynamics, first_step=step))
        else:
            stages += fine_tunings(recipe, method.dynamics, suffix)
        stages += kept_round(recipe, number + 1)
    return stages
