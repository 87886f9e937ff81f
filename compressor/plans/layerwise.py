"""The plan of methods that choose masks and change weights layer by layer: train, one transform, fine-tune."""

from __future__ import annotations

from ..methods import Method
from ..settings import PruneRecipe
from .stages import Change, Stage, Train
from .standard import fine_tunings, trainings


def layerwise(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of a run.

    Args:
        recipe: complete.
        method: its declaration; its transforms make the masks.
        sparsity: the final one.
    """
    stages: list[Stage] = trainings(Train("training", recipe.train, method.prepares))
    stages += [Change(name, name, sparsity) for name in method.transforms]
    return stages + fine_tunings(recipe, method.dynamics)
