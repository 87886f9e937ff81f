"""The record as Markdown, short enough for a comment on a pull request; the long tables fold."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from . import seeds
from .headline import headlines, regression_lines
from .notes import notes
from .rows import shown_rows
from .units import digits, human_bytes, percent, ratio, speedup

_MARKS = {True: "✅ met", False: "❌ **not met**", None: "⚠️ open"}
_COLUMNS = ("artifact", "sparsity", "size", "vs dense", "vs zip", "accuracy", "runtime", "ms", "speedup (95 %)")


def to_markdown(record: Mapping[str, Any], title: str, groups: Mapping[str, str] | None = None) -> str:
    """Return the report as GitHub-flavoured Markdown.

    Args:
        record: a measurement record, as plain data.
        title: its heading.
        groups: by run, what it is called together with the runs that differ from it by their seed alone.
    """
    artifacts, requirements = record["artifacts"], record["requirements"]
    parts = [f"## {_text(title)}", "\n".join(f"- {_text(line)}" for line in headlines(record))]
    if requirements:
        judged = [
            (
                _MARKS[entry["met"]],
                f"`{entry['expression']}`",
                _text(entry["artifact"]),
                "-" if entry["value"] is None else f"{entry['value']:.4g}",
                _text(entry["reason"] or ""),
            )
            for entry in requirements
        ]
        parts.append(_table(("", "requirement", "artifact", "measured", "because"), judged, right=(3,)))
    rows = [_row(row) for row in shown_rows(artifacts)]
    parts.append(_table(_COLUMNS, rows, right=(1, 2, 3, 4, 5, 7, 8)))
    means = [[_text(cell) for cell in seeds.cells(group)] for group in seeds.over_seeds(artifacts, groups or {})]
    if means:
        parts.append(f"### Over the seeds\n\n{_table(seeds.COLUMNS, means, right=(1, 2, 3, 4))}\n\n{seeds.LEGEND}")
    worse = regression_lines(artifacts)
    if worse:
        parts.append("\n".join(["### Worse than the earlier record", "", *(f"- {_text(line)}" for line in worse)]))
    found = notes(artifacts)
    if found:
        parts.append(_folded("notes", "\n".join(f"- {_text(note)}" for note in found)))
    parts.append(_folded("conditions", _conditions(record["environment"])))
    return "\n\n".join(parts) + "\n"


def _row(row: Mapping[str, Any]) -> tuple[str, ...]:
    return (
        _text(row["artifact"]),
        percent(row["sparsity"]),
        human_bytes(row["bytes"]),
        ratio(row["size_ratio"]),
        ratio(row["size_ratio_zipped"]),
        "-" if row["accuracy"] is None else percent(row["accuracy"]),
        row["runtime"] or "-",
        "-" if row["median_ms"] is None else digits(row["median_ms"]),
        "-" if row["speedup"] is None else speedup(row["speedup"], row["speedup_low"], row["speedup_high"]),
    )


def _table(columns: Sequence[str], rows: Iterable[Sequence[str]], *, right: Sequence[int]) -> str:
    rule = ["---:" if number in right else "---" for number in range(len(columns))]
    return "\n".join(f"| {' | '.join(cells)} |" for cells in (columns, rule, *rows))


def _folded(title: str, body: str) -> str:
    return f"<details><summary>{title}</summary>\n\n{body}\n\n</details>"


def _conditions(environment: Mapping[str, Any]) -> str:
    versions = ", ".join(f"{name} {version}" for name, version in environment["versions"].items() if version)
    cores = f"{environment['threads']} threads of {environment['cores_usable']} cores"
    return _text(f"{environment['cpu']}, {cores}, {environment['system']}, Python {environment['python']}; {versions}")


def _text(words: str) -> str:
    """Return words that Markdown shows as they are: no cell ends early, no tag opens."""
    for special in ("\\", "|", "<", "*", "_", "`", "["):
        words = words.replace(special, f"\\{special}")
    return words.replace("\n", " ")
