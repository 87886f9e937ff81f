"""Selection of coupled units: scores of units and a sparsity become masks of every tensor that they run through.

Guaranteed: within a width the units of highest score stay; among equal scores the one that comes first; never more
weights stay than the sparsity leaves, and less is missing than the smallest bundle that was left out; the same input
gives the same masks on any machine.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import UsageError
from .allocation import Allocation, densities, kept_count, round_to_total
from .mask import BoolArray
from .saliency import SALIENCIES, UnitEvidence, unit_scores

if TYPE_CHECKING:
    from .coupling import Coupling

Scores = npt.NDArray[np.float64]


@dataclass(frozen=True)
class UnitRule:
    """How coupled units are chosen.

    Attributes:
        coupling: the widths.
        allocation: how the kept weights are divided among the widths; a width gets the mean of the densities of its
            tensors, weighted by their size.
        saliency: a key of ``SALIENCIES``; None for the method's own scores.
        aggregation: of a unit's layers; None for the saliency's own.
        round_to: every width keeps a multiple of so many units (at least one such bundle, or all that it has).
        keep_alive: no width may come out empty.
    """

    coupling: Coupling
    allocation: Allocation
    saliency: str | None = None
    aggregation: str | None = None
    round_to: int = 1
    keep_alive: bool = False

    @property
    def needs_gradients(self) -> bool:
        """Whether the saliency looks at gradients."""
        return self.saliency is not None and SALIENCIES[self.saliency].needs_gradients

    def select(
        self, evidence: UnitEvidence, sparsity: float, within: Mapping[str, BoolArray] | None = None
    ) -> dict[str, BoolArray]:
        """Return the masks of the units that stay.

        Args:
            evidence: what to score by.
            sparsity: share of the space's weights to remove.
            within: masks of an earlier round: only what they keep can be kept.

        Raises:
            UsageError: the sparsity cannot be had.
        """
        coupling = self.coupling
        alive = coupling.alive(within) if within else [np.ones(width.count, np.bool_) for width in coupling.widths]
        scores = unit_scores(self.saliency, self.aggregation, coupling, evidence, pooled=self.allocation == "global")
        sizes = [width.size for width in coupling.widths]
        budget = self._budget(sparsity, alive)
        if isinstance(budget, int):
            chosen = take_pooled(scores, sizes, alive, budget, round_to=self.round_to, keep_alive=self.keep_alive)
        else:
            counts = [budget[width.name] // width.size for width in coupling.widths]
            chosen = [
                take_best(score, count, candidates, round_to=self.round_to)
                for score, count, candidates in zip(scores, counts, alive, strict=True)
            ]
        return coupling.expand(chosen)

    def _budget(self, sparsity: float, alive: Sequence[BoolArray]) -> int | dict[str, int]:
        """Return the weights that the widths keep: in all, or of each."""
        coupling = self.coupling
        total = kept_count(coupling.space.total, sparsity) - coupling.fixed
        if total < 0:
            raise UsageError(
                f"a sparsity of {sparsity:.6g} cannot be reached: of {coupling.space.total} weights {coupling.fixed} "
                "belong to units that cannot be removed."
            )
        if self.allocation == "global":
            return total
        found = densities(self.allocation, coupling.space, sparsity)
        ideal = {}
        for width in coupling.widths:
            share = {
                m.tensor: int((m.indices >= 0).sum()) * _line(coupling.shapes[m.tensor], m.axis) for m in width.weights
            }
            ideal[width.name] = math.fsum(found[name] * size for name, size in share.items()) / sum(share.values())
        limits = {w.name: int(keep.sum()) * w.size for w, keep in zip(coupling.widths, alive, strict=True)}
        return round_to_total(ideal, total, coupling.groups, keep_alive=self.keep_alive, limits=limits)


def take_best(scores: Scores, count: int, alive: BoolArray, *, round_to: int = 1) -> BoolArray:
    """Keep the ``count`` best units of one width, rounded down to a multiple of ``round_to`` that is not 0.

    Args:
        scores: one a unit.
        count: how many.
        alive: which may be kept; with fewer left than a bundle holds, all of them stay.
        round_to: size of a bundle; 1 allows any count, none included.
    """
    candidates = int(alive.sum())
    if round_to > 1 and count < candidates:
        count = min(max(count // round_to, 1) * round_to, candidates)
    keep = np.zeros(scores.size, np.bool_)
    keep[_ranked(scores, alive)[:count]] = True
    return keep


def take_pooled(
    scores: Sequence[Scores],
    sizes: Sequence[int],
    alive: Sequence[BoolArray],
    budget: int,
    *,
    round_to: int = 1,
    keep_alive: bool = False,
) -> list[BoolArray]:
    """Keep the best units of all widths within a budget of weights.

    Units are taken in bundles of ``round_to``, the best of each width first; bundles of all widths are taken in
    descending order of their mean score, each if it still fits and the better ones of its width were taken.

    Args:
        scores: one array a width.
        sizes: weights of a unit, by width.
        alive: which units may be kept.
        budget: weights that may stay.
        round_to: size of a bundle; with more than 1, every width keeps at least one.
        keep_alive: every width keeps at least one bundle.

    Raises:
        UsageError: one bundle of every width is more than the budget.
    """
    kept = [np.zeros(array.size, np.bool_) for array in scores]
    queue: list[tuple[float, int, int, npt.NDArray[np.int64]]] = []
    for number, (array, candidates) in enumerate(zip(scores, alive, strict=True)):
        order = _ranked(array, candidates)
        bundles = [order[start : start + round_to] for start in range(0, order.size, round_to)]
        if (keep_alive or round_to > 1) and bundles:
            kept[number][bundles[0]] = True
            budget -= bundles[0].size * sizes[number]
        first = 1 if keep_alive or round_to > 1 else 0
        queue += [(-float(array[b].mean()), number, k, b) for k, b in enumerate(bundles) if k >= first]
    if budget < 0:
        raise UsageError(
            f"keeping {round_to} unit{'s' * (round_to > 1)} of every width needs {-budget} more weights than the "
            "sparsity leaves; lower it."
        )
    closed: set[int] = set()
    for _, number, _, bundle in sorted(queue, key=lambda entry: entry[:3]):
        cost = bundle.size * sizes[number]
        if number in closed or cost > budget:
            # A width's later bundles are weaker: taking one of them instead would leave a gap in its ranking.
            closed.add(number)
            continue
        kept[number][bundle] = True
        budget -= cost
    return kept


def _ranked(scores: Scores, alive: BoolArray) -> npt.NDArray[np.int64]:
    """Return the candidates, best first; equal scores in order (-0.0 and 0.0 are equal)."""
    order = np.argsort(-(0.0 + scores), kind="stable")
    return order[alive[order]]


def _line(shape: tuple[int, ...], axis: int) -> int:
    return math.prod(shape) // shape[axis]
