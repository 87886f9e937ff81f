"""The rule by which a run turns scores into masks: space, structure, allocation and the layers' guard in one value."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from ..files import Array
from ..models.prunable import PrunableTensor
from .allocation import Allocation, Quota, allocate, implied_sparsity, without_share
from .coupling import Network, couple
from .mask import BoolArray
from .saliency import UnitEvidence
from .selection import select
from .settings import PruneRecipe
from .space import Space, make_space
from .structure import Channel, Structure, parse_structure
from .units import UnitRule


@dataclass(frozen=True)
class MaskRule:
    """What a run prunes and how.

    Attributes:
        space: the tensors that may be masked, in order.
        structure: what stands or falls together.
        allocation: how the kept weights are divided among the tensors.
        keep_alive: no tensor may come out empty.
        units: how coupled units are chosen; None when every tensor is masked for itself.
    """

    space: Space
    structure: Structure
    allocation: Allocation
    keep_alive: bool = False
    units: UnitRule | None = None

    @property
    def names(self) -> tuple[str, ...]:
        """Every tensor that is masked: those of the space, and what has to go with their units."""
        return self.space.names if self.units is None else tuple(self.units.coupling.shapes)

    @property
    def needs_gradients(self) -> bool:
        """Whether units are scored by gradients, whatever the method's own score looks at."""
        return self.units is not None and self.units.needs_gradients

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
        self,
        scores: Mapping[str, Array],
        sparsity: float,
        within: Mapping[str, BoolArray] | None = None,
        evidence: UnitEvidence | None = None,
        share: float | None = None,
    ) -> dict[str, BoolArray]:
        """Return the masks of the highest scores (see :func:`~.selection.select`), or of the best coupled units.

        Args:
            scores: element scores of the space's tensors.
            sparsity: share of the space to remove.
            within: masks that the result lies within, or None.
            evidence: what a saliency of units may look at besides.
            share: of the groups of each tensor that are left, to remove whatever ``sparsity`` says; None: go by that.
        """
        if self.units is not None:
            return self.units.select(replace(evidence or UnitEvidence(), scores=scores), sparsity, within)
        quota = self.quota(sparsity, within)
        if share is not None:
            quota = without_share(self.space, self.structure, share, within, keep_alive=self.keep_alive)
        return select(scores, quota, self.structure, self.space, keep_alive=self.keep_alive, within=within)


def make_rule(
    recipe: PruneRecipe, prunable: Sequence[PrunableTensor], network: Callable[[], Network] | None = None
) -> tuple[MaskRule, float]:
    """Return a run's rule and its final sparsity, which densities given by layer imply.

    Args:
        recipe: complete.
        prunable: the model's prunable tensors, in order.
        network: finds the network's coupled groups; asked only where the structure is one of coupled units. None:
            every tensor is masked for itself.

    Raises:
        UsageError: an exclusion or density names no tensor.
        UnsupportedError: nothing can be pruned.
        ModelError: the network's couplings cannot be found.
    """
    structure = parse_structure(recipe.structure)
    units: UnitRule | None = None
    if isinstance(structure, Channel) and network is not None:
        coupling = couple(network(), prunable, structure, recipe.exclude)
        units = UnitRule(
            coupling, recipe.allocation, recipe.saliency, recipe.aggregation, recipe.round_to, recipe.keep_alive
        )
        space = coupling.space
    else:
        space = make_space(prunable, structure, recipe.exclude)
    sparsity = recipe.sparsity
    if sparsity is None:
        sparsity = 0.0 if isinstance(recipe.allocation, str) else implied_sparsity(recipe.allocation, space)
    return MaskRule(space, structure, recipe.allocation, recipe.keep_alive, units), sparsity
