"""Line charts: one or more series over a common axis, with a band where a series has one."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from .canvas import axes, colour, frame, plain, plot_area, titled


@dataclass(frozen=True)
class Line:
    """One series.

    Attributes:
        name: in the legend.
        points: (x, y), in drawing order; a pair that is not finite breaks the line.
        band: (x, low, high) around it, or nothing.
    """

    name: str
    points: Sequence[tuple[float, float]]
    band: Sequence[tuple[float, float, float]] = ()


def line_chart(
    lines: Sequence[Line],
    *,
    title: str,
    x_label: str,
    y_label: str,
    log_x: bool = False,
    log_y: bool = False,
    zero_y: bool = False,
    markers: bool = True,
) -> str:
    """Return a line chart.

    Args:
        lines: the series; at least one point in all.
        title: what it shows.
        x_label: of the axis, with its unit.
        y_label: of the axis, with its unit.
        log_x: logarithmic axis; points that are not positive are left out.
        log_y: likewise.
        zero_y: the vertical axis begins at zero.
        markers: a dot at every point, which tells its numbers when it is pointed at.
    """
    xs = [point[0] for line in lines for point in (*line.points, *line.band)]
    ys = [value for line in lines for point in (*line.points, *line.band) for value in point[1:]]
    x, y = plot_area(xs, ys, log_x=log_x, log_y=log_y, zero_y=zero_y)
    parts = axes(x, y, x_label, y_label)
    for number, line in enumerate(lines):
        shown = [point for point in line.band if _drawable(point[0], log_x) and all(map(math.isfinite, point))]
        if shown:
            above = [f"{x(a):.1f} {y(high):.1f}" for a, _, high in shown]
            below = [f"{x(a):.1f} {y(low):.1f}" for a, low, _ in reversed(shown)]
            parts.append(f'<path d="M{"L".join([*above, *below])}Z" fill="{colour(number)}" fill-opacity="0.15"/>')
        for run in _unbroken(line.points, log_x, log_y):
            places = "L".join(f"{x(a):.1f} {y(b):.1f}" for a, b in run)
            parts.append(f'<path d="M{places}" fill="none" stroke="{colour(number)}" stroke-width="1.8"/>')
            if markers:
                parts += [
                    titled(
                        f'<circle cx="{x(a):.1f}" cy="{y(b):.1f}" r="2.6" fill="{colour(number)}"/>',
                        f"{line.name}: {plain(a)}, {plain(b)}",
                    )
                    for a, b in run
                ]
    return frame(parts, title, names=[line.name for line in lines])


def _drawable(value: float, log: bool) -> bool:
    return math.isfinite(value) and (value > 0 or not log)


def _unbroken(points: Sequence[tuple[float, float]], log_x: bool, log_y: bool) -> list[list[tuple[float, float]]]:
    runs: list[list[tuple[float, float]]] = [[]]
    for a, b in points:
        if _drawable(a, log_x) and _drawable(b, log_y):
            runs[-1].append((a, b))
        elif runs[-1]:
            runs.append([])
    return [run for run in runs if run]
