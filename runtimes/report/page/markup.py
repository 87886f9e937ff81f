"""HTML as text: escaping, sections, tables whose columns sort."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from html import escape


@dataclass(frozen=True)
class Cell:
    """One table cell.

    Attributes:
        shown: what people read.
        number: what it sorts by; None: as text.
        state: a class of the style sheet (``good``, ``bad``, ``open``), or nothing.
    """

    shown: str
    number: float | None = None
    state: str = ""


def folded(title: str, body: str, *, open_: bool = False) -> str:
    """Return something that opens when it is clicked; paper shows what is open."""
    return f"<details{' open' if open_ else ''}><summary>{escape(title)}</summary>{body}</details>"


def paragraph(words: str, state: str = "") -> str:
    """Return a paragraph of plain words."""
    mark = f' class="{state}"' if state else ""
    return f"<p{mark}>{escape(words)}</p>"


def sentences(lines: Iterable[str]) -> str:
    """Return lines as a list."""
    items = "".join(f"<li>{escape(line)}</li>" for line in lines)
    return f"<ul>{items}</ul>" if items else ""


def preformatted(words: str) -> str:
    """Return text as it is typed."""
    return f"<pre>{escape(words)}</pre>"


def table(columns: Sequence[str], rows: Iterable[Sequence[Cell]], caption: str = "") -> str:
    """Return a table that sorts by the column whose heading is clicked."""
    heads = "".join(f'<th scope="col"><button type="button">{escape(name)}</button></th>' for name in columns)
    lines = "".join(f"<tr>{''.join(_cell(cell) for cell in row)}</tr>" for row in rows)
    above = f"<caption>{escape(caption)}</caption>" if caption else ""
    return (
        f'<div class="wide"><table class="sortable">{above}<thead><tr>{heads}</tr></thead>'
        f"<tbody>{lines}</tbody></table></div>"
    )


def _cell(cell: Cell) -> str:
    names = " ".join(name for name in ("number" if cell.number is not None else "", cell.state) if name)
    mark = f' class="{names}"' if names else ""
    value = f' data-value="{cell.number:.10g}"' if cell.number is not None else ""
    return f"<td{mark}{value}>{escape(cell.shown)}</td>"
