"""Plans of tickets that are found with less data, or whose mask or weights come from elsewhere.

    projected-ticket          as lottery tickets, from weights that the first training has recorded on its way
    critical-examples         rounds that train on fewer and fewer examples, each no longer than its mask moves
    extrusion                 drive what a random mask leaves out to zero, once or a part each cycle, then train
    elastic-ticket            take a ticket from another run, train it

Pure: no file, no network; the same recipe gives the same plan.
"""

from __future__ import annotations

import msgspec

from ...errors import UsageError
from ..methods import Method
from ..settings import PruneRecipe
from ..training.tape import DENSE, examples_label, step_label
from .stages import Change, Record, Rewind, Select, Stage, Train
from .standard import levels_of, standard, suffix_of, trainings


def projected_ticket(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the standard stages, for transforms that look at what the first training recorded."""
    _needs_epochs(recipe, method, "shows where to rewind to")
    return standard(recipe, method, sparsity)


def critical_rounds(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Zhang et al. 2021: every round trains on the examples that the one before found."""
    _needs_epochs(recipe, method, "tells which examples are critical")
    step = recipe.options["rewind_step"]
    stages: list[Stage] = [] if step else [Record("initial state", step_label(0))]
    levels = levels_of(recipe, sparsity)
    for number, level in enumerate(levels):
        suffix = suffix_of(number, levels)
        first = number == 0
        stages.append(
            Train(
                f"training{suffix}",
                recipe.train,
                method.prepares,
                record_step=step if first and step else None,
                sparsity=level,
                examples=None if first else examples_label(number - 1),
            )
        )
        if first:
            stages.append(Record("trained dense state", DENSE))
        stages.append(Select(f"mask{suffix}", str(method.score), level, number))
        stages += [Change(f"{name}{suffix}", name, level, number) for name in method.transforms]
        stages.append(Rewind(f"rewinding{suffix}", step_label(step)))
    last = examples_label(len(levels) - 1) if recipe.options["final_data"] == "critical" else None
    begin = 0 if last else step
    return [*stages, Train("retraining", recipe.train, method.dynamics, first_step=begin, examples=last)]


def extrusion(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Bai et al. 2022: dense trainings that empty what the mask leaves out, then the ticket's."""
    options = recipe.options
    settings = msgspec.structs.replace(
        recipe.train, learning_rate=options["extrusion_rate"], rate_schedule="constant", warmup_epochs=0.0
    )
    stages: list[Stage] = []
    levels = levels_of(recipe, sparsity)
    for number, level in enumerate(levels):
        title = f"extruding{suffix_of(number, levels)}"
        # With nothing to train on, the mask is drawn all the same.
        stages += trainings(Train(title, settings, method.prepares, sparsity=level), even_empty=True)
    return stages + trainings(Train("training", recipe.train, method.dynamics))


def elastic_ticket(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Chen et al. 2021: the other run's ticket, stretched or shrunk, and its training."""
    stages: list[Stage] = [Change(name, name, sparsity) for name in method.transforms]
    return stages + trainings(Train("training", recipe.train, method.dynamics, recipe.options["first_step"]))


def _needs_epochs(recipe: PruneRecipe, method: Method, why: str) -> None:
    if not recipe.train.epochs:
        raise UsageError(f"the training {why} for method '{method.name}', and train has no epochs; give it some.")
