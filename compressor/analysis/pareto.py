"""The Pareto front: what nothing else beats in both cost and value."""

from __future__ import annotations

from collections.abc import Sequence


def pareto_front(points: Sequence[tuple[float, float]]) -> list[int]:
    """Return the places of the points that no other one beats, by rising cost.

    A point is beaten when another costs no more and is worth no less, one of both strictly; equal points are all on the
    front or all off it.

    Args:
        points: (cost, value); lower cost and higher value are better.
    """
    front: list[int] = []
    for place in sorted(range(len(points)), key=lambda i: (points[i][0], -points[i][1], i)):
        if not front or points[place][1] > points[front[-1]][1] or points[place] == points[front[-1]]:
            front.append(place)
    return front
