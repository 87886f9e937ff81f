"""Scatters: what a thing costs against what it is worth, with the Pareto front."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ....compressor.analysis.pareto import pareto_front
from .canvas import WIDTH, axes, colour, frame, plain, plot_area, text, titled

# More names than these would lie over one another; the rest show theirs when they are pointed at.
_NAMED = 14
# Room that a label takes, in pixels.
_LABEL, _LINE = 170, 12


@dataclass(frozen=True)
class Point:
    """One thing.

    Attributes:
        name: beside it.
        x: what it costs (less is better).
        y: what it is worth (more is better).
        group: what it is coloured by.
    """

    name: str
    x: float
    y: float
    group: str = ""


def scatter(points: Sequence[Point], *, title: str, x_label: str, y_label: str, log_x: bool = False) -> str:
    """Return a scatter with its Pareto front as a stepped line.

    Args:
        points: at least one.
        title: what it shows.
        x_label: of the cost, with its unit.
        y_label: of the worth, with its unit.
        log_x: logarithmic cost axis; every cost is positive.
    """
    x, y = plot_area([p.x for p in points], [p.y for p in points], log_x=log_x)
    parts = axes(x, y, x_label, y_label)
    groups = list(dict.fromkeys(p.group for p in points))
    front = pareto_front([(p.x, p.y) for p in points])
    steps = "".join(f"{'H' if i else 'M'}{_step(x(points[n].x), y(points[n].y), i)}" for i, n in enumerate(front))
    if len(front) > 1:
        parts.append(f'<path d="{steps}" fill="none" stroke="var(--ink,#1f2328)" stroke-opacity="0.45"/>')
    named = set(front) if len(points) > _NAMED else set(range(len(points)))
    taken: list[tuple[float, float]] = []
    for number, point in enumerate(points):
        place, height = x(point.x), y(point.y)
        shape = f'<circle cx="{place:.1f}" cy="{height:.1f}" r="4.5" fill="{colour(groups.index(point.group))}"/>'
        parts.append(titled(shape, f"{point.name}: {plain(point.x)}, {plain(point.y)}"))
        if number in named and len(named) <= _NAMED:
            label = _free(place, height + 4, taken)
            left = place < WIDTH / 2
            parts.append(text(place + (8 if left else -8), label, point.name, anchor="start" if left else "end"))
    return frame(parts, title, names=groups if len(groups) > 1 else ())


def _step(x: float, y: float, number: int) -> str:
    return f"{x:.1f}V{y:.1f}" if number else f"{x:.1f} {y:.1f}"


def _free(place: float, wanted: float, taken: list[tuple[float, float]]) -> float:
    """Return a height for a label where no other one stands near, and take it."""
    height = wanted
    while any(abs(place - x) < _LABEL and abs(height - y) < _LINE for x, y in taken):
        height -= _LINE
    taken.append((place, height))
    return height
