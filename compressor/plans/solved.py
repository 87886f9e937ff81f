"""The plan of methods that train nothing step by step: the mask, then transforms that solve for what is left."""

from __future__ import annotations

from ..methods import Method
from ..settings import PruneRecipe
from .stages import Change, Select, Stage


def solved(recipe: PruneRecipe, method: Method, sparsity: float) -> list[Stage]:
    """Return the stages of a run.

    Args:
        recipe: complete.
        method: its declaration; its transforms fit what the mask leaves.
        sparsity: the final one.
    """
    return [
        Select("mask", str(method.score), sparsity, 0),
        *(Change(name, name, sparsity) for name in method.transforms),
    ]
