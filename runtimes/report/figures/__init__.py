"""Figures as SVG text: line charts, scatters with their Pareto front, stacked bars, pictures of arrays.

Pure functions from numbers to text, without a drawing library: a page that opens from disk carries them as they are.
Colours are CSS variables with a fallback, so that one figure serves light pages, dark ones and print.
"""

from ....compressor.analysis.pareto import pareto_front
from .bars import Bar, stacked_bars
from .canvas import standalone
from .lines import Line, line_chart
from .pictures import picture
from .points import Point, scatter

__all__ = [
    "Bar",
    "Line",
    "Point",
    "line_chart",
    "pareto_front",
    "picture",
    "scatter",
    "stacked_bars",
    "standalone",
]
