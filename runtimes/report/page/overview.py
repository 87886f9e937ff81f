"""Every artifact in one table, its place between cost and worth, and the requirements."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..figures import Point, scatter
from ..rows import fastest, shown_rows
from ..seeds import COLUMNS, LEGEND, cells, over_seeds
from ..units import digits, human_bytes, percent, ratio, speedup
from .markup import Cell, table

NONE = Cell("-")
_STATES = {True: Cell("met", 0.0, "good"), False: Cell("NOT MET", 2.0, "bad"), None: Cell("open", 1.0, "open")}


def artifacts_table(record: Mapping[str, Any]) -> str:
    """Return the table of artifacts and runtimes."""
    columns = (
        "artifact",
        "sparsity",
        "bytes",
        "vs dense",
        "vs zip",
        "over bound",
        "accuracy",
        "drop",
        "parity",
        "runtime",
        "ms [p10-p90]",
        "speedup (95 %)",
        "load ms",
        "memory",
    )
    rows = [_row(row) for row in shown_rows(record["artifacts"])]
    # What was measured on none of them only takes room.
    filled = [number for number in range(len(columns)) if any(row[number] != NONE for row in rows)]
    return table([columns[n] for n in filled], [[row[n] for n in filled] for row in rows], _LEGEND)


_LEGEND = (
    "vs dense, vs zip: times smaller than the dense tensors, and than those zipped (zstd 19). Over bound: above the "
    "order-0 entropy bound of what is stored. Drop: percentage points below the baseline. Times are medians; speedups "
    "are paired with the baseline."
)


def seeds_table(record: Mapping[str, Any], groups: Mapping[str, str]) -> str:
    """Return means over the seeds; nothing where no two runs differ by their seed alone."""
    rows = []
    for group in over_seeds(record["artifacts"], groups):
        means = (None if mean is None else mean.value for mean in (group.bytes, group.accuracy, group.median_ms))
        values = (None, float(group.seeds), *means)
        rows.append([Cell(text, value) for text, value in zip(cells(group), values, strict=True)])
    return table(COLUMNS, rows, f"{LEGEND[0].upper()}{LEGEND[1:]}.") if rows else ""


def _row(row: Mapping[str, Any]) -> list[Cell]:
    def number(name: str, show: Any, scale: float = 1.0) -> Cell:
        value = row[name]
        return NONE if value is None else Cell(show(scale * value), float(value))

    return [
        Cell(row["artifact"]),
        number("sparsity", percent),
        number("bytes", human_bytes),
        number("size_ratio", ratio),
        number("size_ratio_zipped", ratio),
        number("over_bound", lambda value: f"{value:+.1f} %", 100),
        number("accuracy", percent),
        number("accuracy_drop", lambda value: f"{value:+.1f}", 100),
        number("parity_error", lambda value: f"{value:.0e}" if value else "0"),
        Cell(row["runtime"] or "-"),
        _times(row),
        _speedup(row),
        number("load_ms", digits),
        number("peak_rss_bytes", human_bytes),
    ]


def _times(row: Mapping[str, Any]) -> Cell:
    if row["median_ms"] is None:
        return NONE
    middle, low, high = (digits(row[name]) for name in ("median_ms", "p10_ms", "p90_ms"))
    return Cell(f"{middle} [{low}-{high}]", row["median_ms"])


def _speedup(row: Mapping[str, Any]) -> Cell:
    if row["speedup"] is None:
        return NONE
    low, high = row["speedup_low"], row["speedup_high"]
    state = "" if low is None else "good" if low > 1 else "bad" if high < 1 else ""
    return Cell(speedup(row["speedup"], low, high), row["speedup"], state)


def trade_offs(record: Mapping[str, Any]) -> str:
    """Return accuracy against size and against latency; nothing where accuracy was not measured twice."""
    judged = [artifact for artifact in record["artifacts"] if artifact["accuracy"]]
    if len(judged) < 2:
        return ""
    sizes = [
        Point(a["artifact"], a["storage"]["bytes"] / 1000, 100 * a["accuracy"]["value"], a["format"]) for a in judged
    ]
    times = [
        Point(a["artifact"], entry["median_ms"], 100 * a["accuracy"]["value"], a["format"])
        for a in judged
        if (entry := fastest(a)) is not None
    ]
    parts = [
        scatter(sizes, title="accuracy against file size", x_label="file (kB)", y_label="test accuracy (%)", log_x=True)
    ]
    if len(times) > 1:
        parts.append(
            scatter(
                times,
                title="accuracy against latency",
                x_label="median time of a run (ms)",
                y_label="test accuracy (%)",
                log_x=True,
            )
        )
    return "".join(parts)


def requirements(record: Mapping[str, Any]) -> str:
    """Return every requirement with what was measured; nothing where none was asked."""
    rows = [
        (
            _STATES[entry["met"]],
            Cell(entry["expression"]),
            Cell(entry["artifact"]),
            NONE if entry["value"] is None else Cell(f"{entry['value']:.4g}", float(entry["value"])),
            Cell(entry["reason"] or ""),
        )
        for entry in record["requirements"]
    ]
    return table(("", "requirement", "artifact", "measured", "because"), rows) if rows else ""
