"""Pieces that rules of dynamic sparse training share: random free places, and whole numbers in given shares."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from ....models.seeding.shuffle import integers, permutation
from ...mask import BoolArray

Places = npt.NDArray[np.int64]


def random_places(candidates: Places, count: int, seed: int, stream: str) -> Places:
    """Return ``count`` different entries of ``candidates``, each equally likely, from the counter-based generator.

    Args:
        candidates: 1-D, at least ``count`` of them, different from each other.
        count: how many.
        seed: the run's seed.
        stream: a name of its own for each draw.
    """
    if count == 0:
        return candidates[:0]
    if 8 * count < candidates.size:
        # A few out of many: draw with replacement and keep the first of equals, which is uniform too.
        drawn = integers(seed, stream, 0, 2 * count + 16, candidates.size)
        _, first = np.unique(drawn, return_index=True)
        if first.size >= count:
            chosen: Places = candidates[drawn[np.sort(first)[:count]]]
            return chosen
    return candidates[permutation(seed, stream, candidates.size)[:count]]


def grow(mask: BoolArray, places: Places) -> BoolArray:
    """Return the mask (any shape) with flat ``places`` kept too."""
    grown = mask.reshape(-1).copy()
    grown[places] = True
    return grown.reshape(mask.shape)


def apportion(total: int, shares: Sequence[float], capacities: Sequence[int]) -> list[int]:
    """Divide ``total`` in proportion to ``shares``, none above its capacity, by largest remainders.

    What does not fit goes to the others in proportion to their shares, then to whoever has room.

    Args:
        total: at most the sum of the capacities.
        shares: not negative; all zero means equal ones.
        capacities: whole numbers.

    Returns:
        whole numbers that add up to ``total``; ties go to the earlier one.
    """
    if total > sum(capacities):
        raise ValueError(f"{total} do not fit into {sum(capacities)}.")
    counts = [0] * len(shares)
    left = total
    while left:
        room = [i for i in range(len(shares)) if counts[i] < capacities[i]]
        weights = [shares[i] for i in room]
        if not any(weights):
            weights = [1.0] * len(room)
        whole = sum(weights)
        exact = [left * weight / whole for weight in weights]
        given = [min(int(part), capacities[i] - counts[i]) for part, i in zip(exact, room, strict=True)]
        for i, part in zip(room, given, strict=True):
            counts[i] += part
        left -= sum(given)
        for position in sorted(range(len(room)), key=lambda p: (int(exact[p]) - exact[p], p)):
            if left and counts[room[position]] < capacities[room[position]]:
                counts[room[position]] += 1
                left -= 1
    return counts
