"""The page as a whole: what stands on it, in which order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from html import escape
from importlib import resources
from typing import Any

from .... import __version__
from ..headline import headlines, regression_lines
from ..story import RunStory
from . import bytes_part, latency_part, overview, provenance, training_part
from .markup import paragraph, sentences

_PARTS = (
    ("overview", "All artifacts", "overview"),
    ("seeds", "Over the seeds", "seeds"),
    ("worse", "Worse than the earlier record", "regressions"),
    ("trade", "What it costs, what it is worth", "trade-off"),
    ("bytes", "Where the bytes are", "bytes"),
    ("milliseconds", "Where the milliseconds are", "time"),
    ("masks", "Masks", "masks"),
    ("training", "Training", "training"),
    ("requirements", "Requirements", "requirements"),
    ("provenance", "How these numbers came about", "provenance"),
)


def html_page(
    record: Mapping[str, Any],
    *,
    title: str,
    runs: Sequence[RunStory] = (),
    recipe: str | None = None,
    command: str | None = None,
    groups: Mapping[str, str] | None = None,
) -> str:
    """Return the report as one HTML document that needs nothing beside it.

    Args:
        record: a measurement record, as plain data.
        title: of the page.
        runs: how the artifacts came about, where that is known.
        recipe: the recipe's text, where there is one.
        command: what to type to get the same again, where that is known.
        groups: by run, what it is called together with the runs that differ from it by their seed alone.
    """
    bodies = {
        "overview": overview.artifacts_table(record),
        "seeds": overview.seeds_table(record, groups or {}),
        "worse": sentences(regression_lines(record["artifacts"])),
        "trade": overview.trade_offs(record),
        "bytes": bytes_part.part(record),
        "milliseconds": latency_part.part(record),
        "masks": training_part.masks(runs),
        "training": training_part.curves(runs),
        "requirements": overview.requirements(record),
        "provenance": provenance.part(record, recipe, command),
    }
    shown = [(key, heading, short) for key, heading, short in _PARTS if bodies[key]]
    contents = "".join(f'<a href="#{key}">{escape(short)}</a>' for key, _, short in shown)
    parts = "".join(
        f'<section id="{key}"><h2>{escape(heading)}</h2>{bodies[key]}</section>' for key, heading, _ in shown
    )
    first = f'<div class="verdict">{sentences(headlines(record))}</div>'
    environment = record["environment"]
    where = f"{environment['cpu']}, {environment['threads']} of {environment['cores_usable']} cores used"
    return (
        '<!doctype html><html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width,initial-scale=1">'
        # Nothing is loaded from anywhere; what a name in a model file contains can do nothing.
        "<meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; style-src 'unsafe-inline'; "
        "script-src 'unsafe-inline'; img-src data:\">"
        f'<meta name="generator" content="sparsepack {__version__}"><title>{escape(title)}</title>'
        f"<style>{_resource('style.css')}</style></head><body><h1>{escape(title)}</h1>"
        f"{paragraph(where, 'quiet')}{first}<nav>{contents}</nav>{parts}<script>{_resource('script.js')}</script>"
        "</body></html>\n"
    )


def _resource(name: str) -> str:
    return resources.files(__package__).joinpath(name).read_text(encoding="utf-8")
