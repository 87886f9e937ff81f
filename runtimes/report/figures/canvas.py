"""What every figure is drawn on: scales with readable ticks, axes, legend, and the frame around them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape

from ..units import digits

WIDTH, HEIGHT = 680, 340
_LEFT, _RIGHT, _TOP, _BOTTOM = 64, 16, 30, 46
# Okabe and Ito's colours, told apart by people who see few of them; black is left to the text.
COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c6bb1", "#7f7f7f")
_STYLE = (
    "svg.figure{--ink:#1f2328;--faint:#d0d7de;--paper:#fff}"
    "@media(prefers-color-scheme:dark){svg.figure{--ink:#e6edf3;--faint:#3d444d;--paper:#0d1117}}"
)
_TICKS = 6


def colour(number: int) -> str:
    """Return the colour of a series: a CSS variable with a fallback; the colours repeat."""
    place = number % len(COLOURS)
    return f"var(--series-{place + 1},{COLOURS[place]})"


@dataclass(frozen=True)
class Scale:
    """One axis: data between ``low`` and ``high`` goes to pixels between ``start`` and ``end``.

    Attributes:
        low: smallest value shown.
        high: largest value shown.
        start: pixel of ``low``.
        end: pixel of ``high``.
        log: whether the axis is logarithmic; every value must then be positive.
    """

    low: float
    high: float
    start: float
    end: float
    log: bool = False

    def __call__(self, value: float) -> float:
        """Return the pixel of a value."""
        low, high, at = (math.log10(v) if self.log else v for v in (self.low, self.high, value))
        return self.start + (at - low) / (high - low) * (self.end - self.start)

    def ticks(self) -> list[float]:
        """Return the values that are labelled: multiples of 1, 2 or 5 times a power of ten, or powers of ten."""
        ticks = _log_ticks(self.low, self.high) if self.log else []
        # So little of a logarithmic axis is as good as linear.
        return ticks if len(ticks) > 1 else _linear_ticks(self.low, self.high)


def fit(values: Iterable[float], start: float, end: float, *, log: bool = False, zero: bool = False) -> Scale:
    """Return the scale that shows all values with a little room.

    Args:
        values: data; what is not finite (or, on a logarithmic axis, not positive) is ignored.
        start: pixel of the smallest.
        end: pixel of the largest.
        log: a logarithmic axis.
        zero: a linear axis begins at zero.
    """
    usable = [v for v in values if math.isfinite(v) and (v > 0 or not log)]
    low, high = (min(usable), max(usable)) if usable else (1.0, 10.0)
    if log:
        room = (high / low) ** 0.05 if high > low else 2.0
        return Scale(low / room, high * room, start, end, log=True)
    if zero:
        low, high = min(0.0, low), max(0.0, high)
    room = 0.05 * (high - low) or 0.05 * abs(high) or 1.0
    return Scale(low if zero and low == 0 else low - room, high + room, start, end)


def _linear_ticks(low: float, high: float) -> list[float]:
    rough = (high - low) / _TICKS
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * (1 - 1e-9))
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [number * step for number in range(first, last + 1)]


def _log_ticks(low: float, high: float) -> list[float]:
    first, last = math.floor(math.log10(low)), math.ceil(math.log10(high))
    factors = (1,) if last - first > 3 else (1, 2, 5)
    ticks = [factor * 10.0**power for power in range(first, last + 1) for factor in factors]
    return [tick for tick in ticks if low <= tick <= high]


def plain(value: float) -> str:
    """Return a tick's label: 0.05, 12, 1 M."""
    for size, suffix in ((1e9, " G"), (1e6, " M"), (1e4, " k")):
        if abs(value) >= size:
            return f"{value / (1e3 if suffix == ' k' else size):.6g}{suffix}"
    return f"{value:.6g}" if abs(value) >= 1e-4 or value == 0 else digits(value)


def plot_area(
    xs: Iterable[float], ys: Iterable[float], *, log_x: bool = False, log_y: bool = False, zero_y: bool = False
) -> tuple[Scale, Scale]:
    """Return the two scales of a figure of the usual size."""
    return (
        fit(xs, _LEFT, WIDTH - _RIGHT, log=log_x),
        fit(ys, HEIGHT - _BOTTOM, _TOP, log=log_y, zero=zero_y),
    )


def axes(x: Scale, y: Scale, x_label: str, y_label: str) -> list[str]:
    """Return grid, tick labels and axis titles."""
    parts = []
    for tick in x.ticks():
        at = x(tick)
        parts.append(_rule(at, y.start, at, y.end))
        parts.append(text(at, y.start + 16, plain(tick), anchor="middle"))
    for tick in y.ticks():
        at = y(tick)
        parts.append(_rule(x.start, at, x.end, at))
        parts.append(text(x.start - 6, at + 4, plain(tick), anchor="end"))
    middle_x, middle_y = (x.start + x.end) / 2, (y.start + y.end) / 2
    parts.append(text(middle_x, y.start + 36, x_label, anchor="middle"))
    parts.append(
        f'<text transform="translate(14 {middle_y:.1f}) rotate(-90)" text-anchor="middle">{escape(y_label)}</text>'
    )
    return parts


def legend(names: Sequence[str]) -> list[str]:
    """Return the names of the series in their colours, in a line (or several) above the plot."""
    parts: list[str] = []
    left, line = float(_LEFT), 0
    for number, name in enumerate(names):
        width = 22 + 6.4 * len(name)
        if left + width > WIDTH - _RIGHT and left > _LEFT:
            left, line = float(_LEFT), line + 1
        top = 4 + 14 * line - 14 * _extra_lines(names)
        parts.append(f'<rect x="{left:.1f}" y="{top}" width="10" height="10" fill="{colour(number)}"/>')
        parts.append(text(left + 14, top + 9, name))
        left += width
    return parts


def _extra_lines(names: Sequence[str]) -> int:
    left, line = float(_LEFT), 0
    for name in names:
        width = 22 + 6.4 * len(name)
        if left + width > WIDTH - _RIGHT and left > _LEFT:
            left, line = float(_LEFT), line + 1
        left += width
    return line


def text(x: float, y: float, words: str, *, anchor: str = "start") -> str:
    """Return a line of text at a place, escaped."""
    side = "" if anchor == "start" else f' text-anchor="{anchor}"'
    return f'<text x="{x:.1f}" y="{y:.1f}"{side}>{escape(words)}</text>'


def titled(shape: str, words: str) -> str:
    """Return a shape that tells ``words`` when it is pointed at; ``shape`` is a self-closed element."""
    name = shape[1:].partition(" ")[0]
    return f"{shape.removesuffix('/>')}><title>{escape(words)}</title></{name}>"


def frame(parts: Iterable[str], title: str, *, names: Sequence[str] = (), height: float = HEIGHT) -> str:
    """Return the whole figure.

    Args:
        parts: what is drawn.
        title: what the figure shows, for readers who cannot see it.
        names: of the series, for the legend.
        height: of the drawing, without further lines of the legend.
    """
    above = 14 * _extra_lines(names)
    body = "".join([*legend(names), *parts])
    return (
        f'<svg class="figure" xmlns="http://www.w3.org/2000/svg" viewBox="0 {-above} {WIDTH} {height + above:.0f}" '
        f'role="img" aria-label="{escape(title)}" font-family="system-ui,sans-serif" font-size="12" '
        f'fill="var(--ink,#1f2328)"><title>{escape(title)}</title>{body}</svg>'
    )


def standalone(figure: str) -> str:
    """Return a figure as a file of its own, which brings the colours that a page would give."""
    opening, bracket, rest = figure.partition(">")
    paper = '<rect x="-100%" y="-100%" width="300%" height="300%" fill="var(--paper)"/>'
    return f"{opening}{bracket}<style>{_STYLE}</style>{paper}{rest}\n"


def _rule(x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<path d="M{x1:.1f} {y1:.1f}L{x2:.1f} {y2:.1f}" stroke="var(--faint,#d0d7de)" stroke-width="1"/>'
