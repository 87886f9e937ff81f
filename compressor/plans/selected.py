"""Plans of sparse selection that are more than one training: several tasks, and weights that were trained before.

    several-tasks           a training of scores for each task, on its view of the data; at the end the first one's mask
    selected-from-trained   train dense, then train scores over these weights

Pure: no file, no network; the same recipe gives the same plan.
"""

from __future__ import annotations

from msgspec.structs import replace

from ..methods import Method
from ..settings import PruneRecipe
from ..training.tape import INITIAL
from .stages import Change, Record, Stage, Train
from .standard import trainings


def several_tasks(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of Wortsman et al. 2020: one mask a task over the initial weights.

    Args:
        recipe: complete; options ``tasks`` and ``view``.
        method: its declaration; its transforms come last.
        sparsity: of every task.
    """
    tasks = recipe.options["tasks"]
    stages: list[Stage] = [Record("initial state", INITIAL)]
    for task in range(tasks):
        title = f"task {task + 1}/{tasks}"
        stages.append(Train(title, recipe.train, method.dynamics, view=recipe.options["view"], task=task, tasks=tasks))
    return [*stages, *(Change(name, name, sparsity) for name in method.transforms)]


def selected_from_trained(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages: a dense training, unless the weights are trained already, and a search over what it left.

    Args:
        recipe: complete; ``fine_tune`` sets the search.
        method: its declaration.
        sparsity: the final one; the dynamics know it.
    """
    search = recipe.fine_tune or replace(recipe.train, epochs=0)
    return [
        *trainings(Train("training", recipe.train, method.prepares)),
        *trainings(Train("search", search, method.dynamics), even_empty=True),
    ]
