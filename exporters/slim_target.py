"""How much every coupled group keeps, so that the whole network meets a budget of multiply-accumulates.

A target is resolved against an analysed graph into one share a group, which :func:`sparsepack.exporters.slim.slim` then
cuts like any other ratio.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Protocol

from ..errors import UnsupportedError
from ..models.graph.dimensions import Dimensions
from ..models.graph.groups import Group, Scores, select
from .slim_account import layer_costs
from .slim_cut import plan

# Halvings of the ratio: finer than one unit of a group of a million.
_STEPS = 20


@dataclass(frozen=True)
class Problem:
    """What a target is resolved against.

    Attributes:
        dimensions: the analysed graph.
        groups: its coupled groups.
        scores: free group -> one score a unit; higher = keep.
        dead: units that go in any case.
        round_to: keep a multiple of so many units in every group.
        across: rank the units of all groups together.
    """

    dimensions: Dimensions
    groups: list[Group]
    scores: Mapping[str, Scores]
    dead: frozenset[int] = frozenset()
    round_to: int = 1
    across: bool = False


class Target(Protocol):
    """A budget that decides what every group loses."""

    def shares(self, problem: Problem) -> dict[str, float]:
        """Return group name -> share of its units to remove."""
        ...


@dataclass(frozen=True)
class MacsTarget:
    """A budget of multiply-accumulates for one sample.

    Attributes:
        macs: at most 1: a share of what the graph needs now; above 1: their number.
    """

    macs: float

    def shares(self, problem: Problem) -> dict[str, float]:
        """Return the shares of the smallest ratio that meets the budget.

        The ratio of all groups is halved into place; widths are whole numbers, so the result lies just under the
        budget.

        Raises:
            UnsupportedError: even the last unit of every group needs more.
        """
        costs = layer_costs(problem.dimensions, None)
        now = sum(cost[2] for cost in costs.values())
        budget = self.macs * now if self.macs <= 1 else self.macs
        return shares_of(problem.groups, self._smallest(problem, budget))

    def _smallest(self, problem: Problem, goal: float) -> frozenset[int]:
        def at(ratio: float) -> tuple[frozenset[int], int]:
            units = select(problem.groups, problem.scores, ratio, across=problem.across, round_to=problem.round_to)
            return units, macs_left(problem.dimensions, units | problem.dead)

        low, high = 0.0, 1.0 - 2.0**-_STEPS
        (more, macs), (best, least) = at(low), at(high)
        if macs <= goal:
            return more
        if least > goal:
            raise UnsupportedError(
                f"the graph cannot go down to {int(goal):,} multiply-accumulates: with {problem.round_to} left of "
                f"every width that may shrink it still needs {least:,}. Ask for more, or free more widths: 'compress "
                "export' without --target-macs says what stays and why."
            )
        for _ in range(_STEPS):
            middle = (low + high) / 2
            units, macs = at(middle)
            if macs <= goal:
                best, high = units, middle
            else:
                more, low = units, middle
        # Groups step down together where their widths are alike; those that the budget can spare step back.
        for group in problem.groups:
            back = best - ((best - more) & frozenset(group.units.tolist()))
            if back != best and macs_left(problem.dimensions, back | problem.dead) <= goal:
                best = back
        return best


def macs_left(dimensions: Dimensions, removed: frozenset[int]) -> int:
    """Return the multiply-accumulates for one sample when ``removed`` units are cut out."""
    _, cut = plan(dimensions, removed)
    return sum(cost[2] for cost in layer_costs(dimensions, cut).values())


def shares_of(groups: list[Group], removed: frozenset[int]) -> dict[str, float]:
    """Return group name -> share of its units among ``removed``."""
    found = {}
    for group in groups:
        if not group.pinned:
            found[group.name] = sum(unit in removed for unit in group.units.tolist()) / group.width
    return found


__all__ = ["MacsTarget", "Problem", "Target", "macs_left", "shares_of"]
