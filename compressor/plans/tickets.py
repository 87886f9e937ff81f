"""Plans of lottery tickets that are not find, rewind, train again.

    learning-rate-rewinding   train, then a round for each level: select, train on from the kept weights with the
                              schedule set back
    ticket-check              find the ticket (on data that may be corrupted), change it once, train it
    ticket-transfer           find the ticket on other data or with another optimiser, train it on the run's own
    local-rounds              rounds in which each layer loses a share of what it has left, with the weights set back,
                              reduced to their sign, or kept

Pure: no file, no network; the same recipe gives the same plan.
"""

from __future__ import annotations

from dataclasses import replace

import msgspec

from ...errors import UsageError
from ..methods import Method
from ..schedule import geometric_rounds
from ..settings import PruneRecipe
from ..training.tape import INITIAL, step_label
from .stages import Change, Record, Rewind, Select, Stage, Train
from .standard import kept_round, levels_of, standard, suffix_of, trainings


def learning_rate_rewinding(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Renda et al. 2020: weights are kept, the learning rate starts again at ``rewind_step``."""
    stages: list[Stage] = trainings(Train("training", recipe.train, "none"))
    levels = levels_of(recipe, sparsity)
    for number, level in enumerate(levels):
        suffix = suffix_of(number, levels)
        stages.append(Select(f"mask{suffix}", str(method.score), level, number))
        retraining = Train(f"retraining{suffix}", recipe.train, method.dynamics, recipe.options["rewind_step"])
        stages += trainings(retraining)
    return stages


def ticket_check(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the standard stages with the transforms in the last round only, and corrupted data in all but the last."""
    stages = standard(recipe, replace(method, transforms=()), sparsity)
    check = recipe.options["check"]
    view = check if check in ("random-labels", "shuffled-pixels") else None
    last = max(number for number, stage in enumerate(stages) if isinstance(stage, Rewind))
    searched = [replace(stage, view=view) if isinstance(stage, Train) else stage for stage in stages[: last + 1]]
    number = sum(isinstance(stage, Select) for stage in stages) - 1
    changes: list[Stage] = [Change(name, name, sparsity, number) for name in method.transforms]
    return [*searched, *changes, *stages[last + 1 :]]


def ticket_transfer(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Morcos et al. 2019: every training but the last is on the source task."""
    source = recipe.options["source_data"] or None
    optimiser = recipe.options["source_optimiser"] or recipe.train.optimiser
    if source is None and optimiser == recipe.train.optimiser:
        raise UsageError(
            "a ticket is transferred from other data or another optimiser; give the option source_data (for example "
            "npz:FILE) or source_optimiser."
        )
    stages = standard(recipe, replace(method, transforms=()), sparsity)
    last = max(number for number, stage in enumerate(stages) if isinstance(stage, Rewind))
    settings = msgspec.structs.replace(recipe.train, optimiser=optimiser)
    moved: list[Stage] = [
        replace(stage, settings=settings, data=source) if isinstance(stage, Train) else stage
        for stage in stages[: last + 1]
    ]
    # Without another task the classifier is the same one.
    names = method.transforms if source is not None else ()
    rounds = sum(isinstance(stage, Select) for stage in stages) - 1
    changes: list[Stage] = [Change(name, name, sparsity, rounds) for name in names]
    step = recipe.options["rewind_step"]
    final = trainings(Train("training on the target", recipe.train, method.dynamics, first_step=step))
    return [*moved, *changes, *final]


def local_rounds(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of rounds that remove a share of what each layer has left.

    Their number is the recipe's ``rounds`` (each then removes the share that reaches ``sparsity`` in as many), or what
    the option ``rate`` needs to reach it. Layers with few groups round the share their own way, so the sparsity comes
    out near the one asked for.
    """
    step, kept = recipe.options["rewind_step"], recipe.options["kept"]
    share = recipe.options["rate"]
    rounds = recipe.rounds or max(1, geometric_rounds(sparsity, share))
    if recipe.rounds:
        share = 1 - (1 - sparsity) ** (1 / rounds)
    rewinds = kept != "finetune"
    if step and not rewinds:
        raise UsageError("kept is finetune, so nothing is set back to the step that rewind_step names; leave it out.")
    if step and not recipe.train.epochs:
        raise UsageError(f"rewind_step is {step}, and there is no training to take that step.")
    levels = [1 - (1 - share) ** (number + 1) for number in range(rounds)]
    stages: list[Stage] = [] if step else [Record("initial state", INITIAL)]
    stages += trainings(Train("training", recipe.train, "none", record_step=step or None))
    stages += kept_round(recipe, 0)
    for number, level in enumerate(levels):
        suffix = suffix_of(number, levels)
        stages.append(Select(f"mask{suffix}", str(method.score), level, number, share=share))
        if rewinds:
            stages.append(Rewind(f"rewinding{suffix}", step_label(step)))
        if kept not in ("rewind", "finetune"):
            stages += [Change(f"{name}{suffix}", name, level, number) for name in method.transforms]
        first = step if rewinds else 0
        stages += trainings(Train(f"retraining{suffix}", recipe.train, method.dynamics, first_step=first))
        stages += kept_round(recipe, number + 1)
    return stages
