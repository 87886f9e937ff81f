"""The rule by which a run turns scores into masks: space, structure, allocation and the layers' guard in one value."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from ..files import Array
from ..models.prunable import PrunableTensor
from .allocation import Allocation, Quota, allocate, implied_sparsity
from .mask import BoolArray
from .selection import select
from .settings import PruneRecipe
from .space import Space, make_space
from .structure import Structure, parse_structure


@dataclass(frozen=True)
class MaskRule:
    """What a run prunes and how.

    Attributes:
        space: the tensors that may be masked, in order.
        structure: what stands or falls together.
        allocation: how the kept weights are divided among the tensors.
        keep_alive: no tensor may come out empty.
    """

    space: Space
    structure: Structure
    allocation: Allocation
    keep_alive: bool = False

    def quota(self, sparsity: float, within: Mapping[str, BoolArray] | None = None) -> Quota:
        """Return how many weights stay, in all or by tensor.

        Args:
            sparsity: the share of the space to remove.
            within: masks that the result must lie within, or None.
        """
        limits = None if within is None else {name: int(np.count_nonzero(mask)) for name, mask in within.items()}
        quota = allocate(
            self.allocation, self.space, self.structure, sparsity, keep_alive=self.keep_alive, limits=limits
        )
        if isinstance(quota, int) and limits is not None:
            # Whole channels rarely add up to a level exactly, so less may be left of the one before.
            return min(quota, sum(limits.values()))
        return quota

    def select(
        self, scores: Mapping[str, Array], sparsity: float, within: Mapping[str, BoolArray] | None = None
    ) -> dict[str, BoolArray]:
        """Return the masks of the highest scores (see :func:`~.selection.select`)."""
        quota = self.quota(sparsity, within)
        return select(scores, quota, self.structure, self.space, keep_alive=self.keep_alive, within=within)


def make_rule(recipe: PruneRecipe, prunable: Sequence[PrunableTensor]) -> tuple[MaskRule, float]:
    """Return a run's rule and its final sparsity, which densities given by layer imply.

    Args:
        recipe: complete.
        prunable: the model's prunable tensors, in order.

    Raises:
        UsageError: an exclusion or density names no tensor.
        UnsupportedError: nothing can be pruned.
    """
    structure = parse_structure(recipe.structure)
    space = make_space(prunable, structure, recipe.exclude)
    sparsity = recipe.sparsity
    if sparsity is None:
        sparsity = 0.0 if isinstance(recipe.allocation, str) else implied_sparsity(recipe.allocation, space)
    return MaskRule(space, structure, recipe.allocation, recipe.keep_alive), sparsity
