"""The measurement record as tables for people: a line per artifact and runtime, the conditions above, notes below.

Fits 100 columns; plain text without colours when standard output is no terminal.
"""

from __future__ import annotations

import sys
from collections.abc import Collection, Iterable, Mapping, Sequence
from io import StringIO
from typing import Any

from rich import box
from rich.console import Console
from rich.table import Table
from rich.text import Text

from . import seeds
from .headline import empty_lines, failure_lines, regression_lines
from .notes import notes
from .units import digits, human_bytes, percent, ratio, speedup
from .verdict import verdicts

WIDTH = 100
_NONE = "-"
# Nodes that a table of single nodes shows; the record holds all.
_SLOWEST = 20
_LEGEND = (
    "vs dense, vs zip: times smaller than the dense tensors, and than those zipped (zstd 19); over bound: above the "
    "order-0 entropy bound of what is stored; drop: percentage points below the baseline; times are medians"
)


def render(
    record: Mapping[str, Any],
    *,
    summary: bool = False,
    groups: Mapping[str, str] | None = None,
    width: int | None = None,
    colour: bool | None = None,
) -> str:
    """Return the whole report as text.

    Args:
        record: a measurement record, as plain data.
        summary: one table with a line per artifact and its median time, instead of one for sizes and one for times.
        groups: by run, what it is called together with the runs that differ from it by their seed alone.
        width: columns; by default those of the terminal, or 100 when there is none.
        colour: whether to write colours; by default only to a terminal.
    """
    artifacts = record["artifacts"]
    parts: list[Text | Table] = [Text(_conditions(record["environment"]))]
    parts += [_summary_table(artifacts) if summary else _storage_table(artifacts), Text(_LEGEND)]
    if not summary and any(_measured(artifact) for artifact in artifacts):
        parts.append(_latency_table(artifacts))
    parts += _seed_tables(artifacts, groups or {})
    parts += _extra_tables(artifacts)
    parts += _layer_tables(artifacts)
    parts += [Text(f"* {line}") for line in notes(artifacts)]
    parts += [Text(f"worse: {line}") for line in regression_lines(artifacts)]
    parts += [Text(line) for line in verdicts(artifacts)]
    parts += [Text(line) for line in [*failure_lines(record), *empty_lines(record)]]
    if record["requirements"]:
        parts.append(_requirement_table(record["requirements"]))
    return _text(parts, width, colour)


def _text(parts: Iterable[Text | Table], width: int | None = None, colour: bool | None = None) -> str:
    terminal = sys.stdout.isatty() if colour is None else colour
    console = Console(
        file=StringIO(),
        force_terminal=terminal,
        no_color=not terminal,
        width=width or (None if terminal else WIDTH),
        highlight=False,
        emoji=False,
        markup=False,
    )
    with console.capture() as capture:
        for part in parts:
            console.print(part)
    return "\n".join(line.rstrip() for line in capture.get().rstrip().splitlines())


def _table(title: str, columns: Iterable[tuple[str, str]]) -> Table:
    table = Table(title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False, padding=(0, 1, 0, 0))
    for name, side in columns:
        # Only names may be folded; a number cut in two is misread.
        table.add_column(name, justify="right" if side == "r" else "left", no_wrap=side != "f", overflow="fold")
    return table


def _seed_tables(artifacts: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> list[Text | Table]:
    found = seeds.over_seeds(artifacts, groups)
    if not found:
        return []
    table = _table("over the seeds", [(name, "r" if place else "f") for place, name in enumerate(seeds.COLUMNS)])
    for group in found:
        table.add_row(*seeds.cells(group))
    return [table, Text(seeds.LEGEND)]


def _conditions(environment: Mapping[str, Any]) -> str:
    versions = environment["versions"]
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if version is not None)
    return f"{environment['cpu']}, threads {environment['threads']} of {environment['cores_usable']} cores; {named}"


_SIZE_COLUMNS = (
    ("artifact", "f"),
    ("sparsity", "r"),
    ("bytes", "r"),
    ("vs dense", "r"),
    ("vs zip", "r"),
    ("over bound", "r"),
    ("accuracy", "r"),
)


def _size_cells(artifact: Mapping[str, Any]) -> list[str]:
    storage, accuracy = artifact["storage"], artifact["accuracy"]
    bound = storage["entropy_bound_bytes"]
    return [
        artifact["artifact"],
        percent(storage["sparsity"]),
        human_bytes(storage["bytes"]),
        ratio(storage["size_ratio"]),
        ratio(storage["size_ratio_zipped"]),
        _excess(storage["bytes"] / bound - 1) if bound else _NONE,
        percent(accuracy["value"]) if accuracy else _NONE,
    ]


def _storage_table(artifacts: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("size and accuracy", [*_SIZE_COLUMNS, ("drop", "r"), ("parity", "r")])
    for artifact in artifacts:
        accuracy, parity = artifact["accuracy"], artifact["parity"]
        table.add_row(
            *_size_cells(artifact),
            f"{100 * accuracy['drop']:+.1f}" if accuracy and accuracy["drop"] is not None else _NONE,
            _error(parity["error"]) if parity and parity["error"] is not None else _NONE,
        )
    return table


def _summary_table(artifacts: Sequence[Mapping[str, Any]]) -> Table:
    unit, scale = _time_unit(artifacts)
    table = _table("", [*_SIZE_COLUMNS, (unit, "r"), ("speedup", "r")])
    for artifact in artifacts:
        # A format is timed on the runtime that is meant for it; a second one would need a second line.
        entries = list(_measured(artifact).values())
        fastest = min(entries, key=lambda entry: float(entry["median_ms"])) if entries else None
        table.add_row(
            *_size_cells(artifact),
            digits(scale * fastest["median_ms"]) if fastest else _NONE,
            f"{fastest['speedup']:.2f}x" if fastest and fastest["speedup"] is not None else _NONE,
        )
    return table


def _time_unit(artifacts: Iterable[Mapping[str, Any]]) -> tuple[str, float]:
    """Return one unit for a whole column, because times are there to be compared, and what a millisecond is in it."""
    medians = [entry["median_ms"] for artifact in artifacts for entry in _measured(artifact).values()]
    return ("ms", 1.0) if max(medians, default=1.0) >= 1 else ("µs", 1000.0)


def _excess(share: float) -> str:
    return f"{100 * share:+.1f} %" if share < 1 else f"{100 * share:+.0f} %"


def _error(error: float) -> str:
    return f"{error:.0e}" if error else "0"


def _measured(artifact: Mapping[str, Any]) -> dict[str, Any]:
    return {name: entry for name, entry in artifact["latency"].items() if "unavailable" not in entry}


def _latency_table(artifacts: Sequence[Mapping[str, Any]]) -> Table:
    unit, scale = _time_unit(artifacts)
    table = _table(
        "latency",
        [
            ("artifact", "f"),
            ("runtime", "l"),
            (f"{unit} [p10-p90]", "r"),
            ("speedup (95 %)", "r"),
            ("load ms", "r"),
            ("memory", "r"),
        ],
    )
    for artifact in artifacts:
        for name, entry in _measured(artifact).items():
            table.add_row(
                artifact["artifact"],
                name if entry["batch"] == 1 else f"{name}, batch {entry['batch']}",
                f"{digits(scale * entry['median_ms'])} "
                f"[{digits(scale * entry['p10_ms'], 2)}-{digits(scale * entry['p90_ms'], 2)}]",
                _speedup(entry),
                digits(entry["load_ms"]) if entry["load_ms"] is not None else _NONE,
                human_bytes(entry["peak_rss_bytes"]) if entry["peak_rss_bytes"] is not None else _NONE,
            )
    return table


def _extra_tables(artifacts: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return times at other batch sizes, and what several sessions deliver together, where they were asked for."""
    entries = [(a["artifact"], name, entry) for a in artifacts for name, entry in _measured(a).items()]
    batches = _table("batch sizes", [("artifact", "f"), ("runtime", "l"), *((c, "r") for c in _BATCH_COLUMNS)])
    together = _table("throughput", [("artifact", "f"), ("runtime", "l"), *((c, "r") for c in _STREAM_COLUMNS)])
    for artifact, runtime, entry in entries:
        for row in entry.get("batches", []):
            times = [digits(row["median_ms"]), digits(row["median_ms"] / row["batch"])]
            batches.add_row(artifact, runtime, str(row["batch"]), *times, f"{row['examples_per_second']:,.0f}")
        counted = entry.get("throughput")
        if counted is not None:
            rate = f"{counted['examples_per_second']:,.0f}"
            together.add_row(artifact, runtime, str(counted["streams"]), str(entry["batch"]), rate)
    return [table for table in (batches, together) if table.row_count]


_BATCH_COLUMNS = ("batch", "ms", "ms an example", "examples/s")
_STREAM_COLUMNS = ("sessions", "batch", "examples/s")


def _layer_tables(artifacts: Sequence[Mapping[str, Any]]) -> list[Table]:
    """Return the slowest nodes of every artifact and runtime that single nodes were timed on."""
    tables = []
    for artifact in artifacts:
        for name, entry in _measured(artifact).items():
            slowest = sorted(entry["layers"], key=lambda layer: -layer["ms"])[:_SLOWEST]
            if not slowest:
                continue
            title = f"{artifact['artifact']} on {name}: the slowest {len(slowest)} of {len(entry['layers'])} nodes"
            table = _table(title, [("node", "f"), ("operator", "l"), ("ms", "r"), ("share", "r")])
            for layer in slowest:
                share = percent(layer["share"])
                table.add_row(layer["name"], layer["operator"], f"{layer['ms']:.3f}", share)
            tables.append(table)
    return tables


def _speedup(entry: Mapping[str, Any]) -> str:
    if entry["speedup"] is None:
        return _NONE
    return speedup(entry["speedup"], entry["speedup_low"], entry["speedup_high"])


def _requirement_table(requirements: Iterable[Mapping[str, Any]]) -> Table:
    table = _table("requirements", [("", "l"), ("requirement", "f"), ("artifact", "f"), ("measured", "f")])
    for entry in requirements:
        verdict = {True: "met", False: "NOT MET", None: "open"}[entry["met"]]
        style = {True: "green", False: "bold red", None: "yellow"}[entry["met"]]
        measured = _NONE if entry["value"] is None else f"{entry['value']:.4g}"
        table.add_row(
            Text(verdict, style=style),
            entry["expression"],
            entry["artifact"],
            f"{measured}: {entry['reason']}" if entry["reason"] else measured,
        )
    return table


def plain_table(
    title: str,
    columns: Sequence[str],
    rows: Iterable[Sequence[str]],
    *,
    right: Collection[int] = (),
    fold: Collection[int] = (),
) -> str:
    """Return a table of texts.

    Args:
        title: above it.
        columns: headings.
        rows: one text per column.
        right: numbers of the columns that stand to the right.
        fold: numbers of the columns whose texts may run over several lines.
    """
    sides = ["r" if number in right else "f" if number in fold else "l" for number in range(len(columns))]
    table = _table(title, list(zip(columns, sides, strict=True)))
    for row in rows:
        table.add_row(*row)
    return "\n".join(line.rstrip() for line in _text([table]).splitlines())
