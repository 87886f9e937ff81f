"""Stacked bars: where bytes and milliseconds are, a row per layer."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from .canvas import WIDTH, colour, fit, frame, plain, text, titled

_ROW, _LABEL, _RIGHT = 18, 210, 90
# A longer name loses its middle: both ends say which layer it is.
_LETTERS = 30


@dataclass(frozen=True)
class Bar:
    """One row.

    Attributes:
        name: to its left.
        parts: the lengths of its pieces, in the order of the legend.
        mark: where a line crosses it (a bound), or None.
    """

    name: str
    parts: Sequence[float]
    mark: float | None = None


def stacked_bars(
    bars: Sequence[Bar], *, title: str, legend: Sequence[str], show: Callable[[float], str] = plain
) -> str:
    """Return horizontal bars.

    Args:
        bars: rows, the first at the top; at least one.
        title: what they show.
        legend: names of the pieces.
        show: how a length is written.
    """
    longest = [max(sum(bar.parts), bar.mark or 0.0) for bar in bars]
    x = fit([0.0, *longest], _LABEL, WIDTH - _RIGHT, zero=True)
    parts = []
    for row, bar in enumerate(bars):
        top = 22 + row * _ROW
        parts.append(titled(f'<rect x="0" y="{top}" width="{_LABEL}" height="{_ROW}" fill="transparent"/>', bar.name))
        parts.append(text(_LABEL - 6, top + 12, shortened(bar.name), anchor="end"))
        begin = 0.0
        for number, length in enumerate(bar.parts):
            left, width = x(begin), x(begin + length) - x(begin)
            if length > 0:
                shape = f'<rect x="{left:.1f}" y="{top + 2}" width="{max(width, 0.6):.1f}" height="{_ROW - 5}" '
                shape += f'fill="{colour(number)}"/>'
                parts.append(titled(shape, f"{bar.name}: {legend[number]} {show(length)}"))
            begin += length
        if bar.mark is not None:
            at = x(bar.mark)
            parts.append(f'<path d="M{at:.1f} {top}v{_ROW - 1}" stroke="var(--ink,#1f2328)" stroke-width="2"/>')
        parts.append(text(x(max(begin, bar.mark or 0.0)) + 6, top + 12, show(begin)))
    return frame(parts, title, names=legend, height=26 + _ROW * len(bars))


def shortened(name: str) -> str:
    """Return a name of at most 30 letters that keeps both its ends."""
    if len(name) <= _LETTERS:
        return name
    return f"{name[: _LETTERS // 2 - 1]}…{name[len(name) - _LETTERS // 2 :]}"
