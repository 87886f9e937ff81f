"""Where the milliseconds are: single nodes where they were timed, and why a runtime did not run."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from ..figures import Bar, stacked_bars
from ..units import digits, percent
from .markup import Cell, folded, sentences, table

_ROWS = 30


def part(record: Mapping[str, Any]) -> str:
    """Return the section's body; nothing where nothing was timed or refused."""
    bars, layered, refused = [], [], []
    for artifact in record["artifacts"]:
        for runtime, entry in artifact["latency"].items():
            name = f"{artifact['artifact']} on {runtime}"
            if "unavailable" in entry:
                refused.append(f"{name} did not run: {entry['unavailable']}.")
                continue
            bars.append(Bar(name, [entry["median_ms"]], entry["p90_ms"]))
            if entry["layers"]:
                layered.append(_nodes(name, entry["layers"]))
    chart = (
        stacked_bars(
            bars, title="median time of a run; the line is the slowest tenth (p90)", legend=["ms"], show=_milliseconds
        )
        if bars
        else ""
    )
    return "".join([chart, *layered, sentences(refused)])


def _nodes(name: str, layers: Sequence[Mapping[str, Any]]) -> str:
    slowest = sorted(layers, key=lambda layer: -layer["ms"])
    bars = [Bar(layer["name"], [layer["ms"]]) for layer in slowest[:_ROWS]]
    if len(slowest) > _ROWS:
        bars.append(Bar(f"{len(slowest) - _ROWS} others", [sum(layer["ms"] for layer in slowest[_ROWS:])]))
    chart = stacked_bars(bars, title=f"{name}: time of every node", legend=["ms"], show=_milliseconds)
    rows = [
        (
            Cell(layer["name"]),
            Cell(layer["operator"]),
            Cell(f"{layer['ms']:.4f}", layer["ms"]),
            Cell(percent(layer["share"]), layer["share"]),
        )
        for layer in layers
    ]
    return folded(
        f"{name}: node by node", chart + folded("every node", table(("node", "operator", "ms", "share"), rows))
    )


def _milliseconds(value: float) -> str:
    return f"{digits(value)} ms"
