"""Where the bytes are: all artifacts side by side, then each with its layers against their entropy bound."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..figures import Bar, stacked_bars
from ..units import human_bytes
from .markup import Cell, folded, table

# A longer chart is not read; the table below it has every tensor.
_ROWS = 30
_SHARES = 6


def part(record: Mapping[str, Any]) -> str:
    """Return the section's body; nothing without artifacts."""
    artifacts = record["artifacts"]
    if not artifacts:
        return ""
    first = [_comparison(artifacts)] if len(artifacts) > 1 else []
    return "".join([*first, *(_layers(artifact, alone=len(artifacts) == 1) for artifact in artifacts)])


def _comparison(artifacts: Sequence[Mapping[str, Any]]) -> str:
    """Return one bar per artifact: its largest tensors (the same ones everywhere), the rest, the overhead."""
    totals: dict[str, int] = {}
    for artifact in artifacts:
        for row in artifact["storage"]["tensors"]:
            totals[row["name"]] = totals.get(row["name"], 0) + row["bytes"]
    largest = sorted(totals, key=lambda name: -totals[name])[:_SHARES]
    bars = []
    for artifact in artifacts:
        storage = artifact["storage"]
        found = {row["name"]: row["bytes"] for row in storage["tensors"]}
        overhead = sum(storage["overhead_bytes"].values())
        shown = [float(found.get(name, 0)) for name in largest]
        rest = storage["bytes"] - overhead - sum(shown)
        bars.append(Bar(artifact["artifact"], [*shown, rest, float(overhead)], storage["entropy_bound_bytes"]))
    return stacked_bars(
        bars,
        title="bytes of every artifact by tensor; the line is the entropy bound",
        legend=[*largest, "other tensors", "header and graph"],
        show=human_bytes,
    )


def _layers(artifact: Mapping[str, Any], *, alone: bool) -> str:
    storage = artifact["storage"]
    rows = storage["tensors"]
    largest = sorted(rows, key=lambda row: -row["bytes"])[:_ROWS]
    chosen = {row["name"] for row in largest}
    bars = [Bar(row["name"], [row["bytes"]], row["bound_bytes"]) for row in rows if row["name"] in chosen]
    if len(rows) > len(chosen):
        rest = [row for row in rows if row["name"] not in chosen]
        bars.append(
            Bar(f"{len(rest)} smaller tensors", [sum(r["bytes"] for r in rest)], sum(r["bound_bytes"] for r in rest))
        )
    bars.append(Bar("header and graph", [sum(storage["overhead_bytes"].values())]))
    chart = stacked_bars(
        bars,
        title=f"bytes of {artifact['artifact']} by tensor; the line is the entropy bound",
        legend=["stored"],
        show=human_bytes,
    )
    listing = table(
        ("tensor", "shape", "kept", "bytes", "bound", "codec"),
        [
            (
                Cell(row["name"]),
                Cell("x".join(map(str, row["shape"])) or "scalar"),
                Cell(str(row["nnz"]), float(row["nnz"])),
                Cell(str(row["bytes"]), float(row["bytes"])),
                Cell(f"{row['bound_bytes']:.0f}", float(row["bound_bytes"])),
                Cell(row["codec"]),
            )
            for row in rows
        ],
    )
    title = f"{artifact['artifact']}: {human_bytes(storage['bytes'])} in {len(rows)} tensors"
    return folded(title, chart + folded("every tensor", listing), open_=alone)
