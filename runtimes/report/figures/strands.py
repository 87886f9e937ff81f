"""Strands: how every single weight moves from round to round, until it is pruned."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ....files import Array
from .canvas import axes, colour, frame, plot_area

# More lines than these only make the file longer.
LINES = 400


def strands(values: Array, xs: Sequence[float], *, title: str, x_label: str, y_label: str) -> str:
    """Return one thin line a weight, coloured by the sign that it begins with.

    Args:
        values: [steps, weights]; NaN from where a weight is pruned. Of more than :data:`LINES` weights, that many are
            drawn, evenly spaced.
        xs: where the steps stand.
        title: what it shows.
        x_label: of the axis.
        y_label: of the axis.
    """
    steps, weights = values.shape
    chosen = np.unique(np.linspace(0, weights - 1, min(weights, LINES)).round().astype(int))
    finite = values[:, chosen][np.isfinite(values[:, chosen])]
    x, y = plot_area(xs, [float(value) for value in finite])
    parts = axes(x, y, x_label, y_label)
    for weight in chosen:
        line = [(x(xs[step]), y(float(values[step, weight]))) for step in range(steps) if _finite(values, step, weight)]
        if not line:
            continue
        stroke = colour(0 if values[0, weight] >= 0 else 1)
        if len(line) == 1:
            parts.append(f'<circle cx="{line[0][0]:.1f}" cy="{line[0][1]:.1f}" r="1.2" fill="{stroke}"/>')
            continue
        places = "L".join(f"{a:.1f} {b:.1f}" for a, b in line)
        parts.append(f'<path d="M{places}" fill="none" stroke="{stroke}" stroke-width="0.8" stroke-opacity="0.5"/>')
    return frame(parts, title)


def _finite(values: Array, step: int, weight: int) -> bool:
    return bool(np.isfinite(values[step, weight]))
