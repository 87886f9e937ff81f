"""How the runs went: losses, the accuracy after each training, and their masks to look at."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape

from ..figures import Line, line_chart, picture
from ..story import RunStory
from ..units import digits, percent
from .markup import Cell, folded, sentences, table

# A chart has as many lines as it has colours.
_LINES = 8


def curves(runs: Sequence[RunStory]) -> str:
    """Return training losses and a table of the trainings; nothing where nothing was trained."""
    trained = [run for run in runs if run.losses]
    parts = [
        line_chart(
            [Line(run.name, run.losses) for run in trained[begin : begin + _LINES]],
            title="training loss by epoch, through all trainings of a run",
            x_label="epoch",
            y_label="training loss",
            log_y=True,
            markers=max(len(run.losses) for run in trained) <= 60,
        )
        for begin in range(0, len(trained), _LINES)
    ]
    rows = [
        (
            Cell(run.name),
            Cell(title),
            Cell(digits(seconds), seconds),
            Cell("-") if accuracy is None else Cell(percent(accuracy), accuracy),
        )
        for run in runs
        for title, seconds, accuracy in run.stages
    ]
    if rows:
        parts.append(table(("run", "training", "seconds", "test accuracy after it"), rows))
    parts += [sentences(f"{run.name}: {warning}" for run in runs for warning in run.warnings)]
    return "".join(parts)


def masks(runs: Sequence[RunStory]) -> str:
    """Return the masks of every run; nothing where nothing is masked."""
    shown = [run for run in runs if run.masks]
    return "".join(folded(_title(run), _gallery(run), open_=number == 0) for number, run in enumerate(shown))


def _title(run: RunStory) -> str:
    more = f"; {run.left_out} smaller ones are not drawn" if run.left_out else ""
    return f"{run.name}: white is kept, rows are output units{more}"


def _gallery(run: RunStory) -> str:
    figures = []
    for mask in run.masks:
        height, width = mask.levels.shape
        words = f"{mask.name}, {percent(mask.density)} kept"
        image = picture(mask.levels, words, scale=max(1, min(160 // width, 96 // height)))
        figures.append(f"<figure>{image}<figcaption>{escape(words)}</figcaption></figure>")
    return f'<div class="masks">{"".join(figures)}</div>'
