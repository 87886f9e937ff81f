"""Cells that several sections of docs/benchmarks.md write alike."""

from __future__ import annotations

from typing import Any


def ratio_cell(row: dict[str, Any] | None) -> str:
    """Return a paired ratio with its p10 and p90; a dash where it was not measured."""
    if row is None:
        return "-"
    return f"{row['median']:.3f}x ({row['p10']:.3f}-{row['p90']:.3f})"
