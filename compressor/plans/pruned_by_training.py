"""Plans in which a training chooses the mask itself: the training, or the fine-tuning that follows it."""

from __future__ import annotations

from ...errors import UsageError
from ..methods import Method
from ..settings import PruneRecipe
from .stages import Stage, Train
from .standard import fine_tunings, trainings


def pruned_by_training(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages: train with ``prepares``, which ends in a mask, then fine-tune what it kept.

    Args:
        recipe: complete.
        method: its declaration.
        sparsity: the final one; the dynamics know it.
    """
    # Where nothing is trained, the weights as they are choose.
    stages = trainings(Train("training", recipe.train, method.prepares), even_empty=True)
    return stages + fine_tunings(recipe, method.dynamics)


def pruned_while_tuning(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages: train, tune with ``prepares``, which ends in a mask, then fine-tune what it kept.

    Args:
        recipe: complete.
        method: its declaration.
        sparsity: the final one; the dynamics know it.

    Raises:
        UsageError: fine-tuning has no epochs.
    """
    if recipe.fine_tune is None or not recipe.fine_tune.epochs:
        raise UsageError(
            f"method '{method.name}' prunes while it fine-tunes, and fine_tune has no epochs; give it some, and data."
        )
    stages: list[Stage] = trainings(Train("training", recipe.train, "none"))
    stages.append(Train("pruning", recipe.fine_tune, method.prepares))
    return stages + fine_tunings(recipe, method.dynamics)
