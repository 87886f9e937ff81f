"""Heat maps: a number for every pair of things, as a shade and as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from .bars import shortened
from .canvas import WIDTH, colour, frame, plain, text, titled

_LABEL, _ROW = 210, 26


def heat_map(
    names: Sequence[str], matrix: Sequence[Sequence[float]], *, title: str, show: Callable[[float], str] = plain
) -> str:
    """Return a square heat map; columns stand in the order of the rows and carry their numbers.

    Args:
        names: of rows and columns; at least one.
        matrix: [rows][columns], finite.
        title: what it shows.
        show: how a number is written.
    """
    values = [value for row in matrix for value in row]
    low, spread = min(values), (max(values) - min(values)) or 1.0
    width = min(90.0, (WIDTH - _LABEL - 16) / len(names))
    parts = [text(_LABEL + (n + 0.5) * width, 24, str(n + 1), anchor="middle") for n in range(len(names))]
    for row, name in enumerate(names):
        top = 32 + row * _ROW
        parts.append(text(_LABEL - 6, top + 17, f"{shortened(name)}  {row + 1}", anchor="end"))
        for column, value in enumerate(matrix[row]):
            left = _LABEL + column * width
            shade = 0.08 + 0.72 * (value - low) / spread
            shape = f'<rect x="{left:.1f}" y="{top}" width="{width - 1:.1f}" height="{_ROW - 1}" '
            shape += f'fill="{colour(0)}" fill-opacity="{shade:.3f}"/>'
            parts.append(titled(shape, f"{name}, {names[column]}: {show(value)}"))
            if width >= 40:
                parts.append(text(left + width / 2, top + 17, show(value), anchor="middle"))
    return frame(parts, title, height=40 + _ROW * len(names))
