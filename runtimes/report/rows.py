"""The record as flat rows: a row per artifact and runtime, numbers as they are; what tables and files start from."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

COLUMNS = (
    "artifact",
    "format",
    "sparsity",
    "bytes",
    "size_ratio",
    "size_ratio_zipped",
    "growth",
    "over_bound",
    "accuracy",
    "accuracy_drop",
    "parity_error",
    "runtime",
    "batch",
    "threads",
    "median_ms",
    "p10_ms",
    "p90_ms",
    "runs",
    "speedup",
    "speedup_low",
    "speedup_high",
    "baseline_runtime",
    "load_ms",
    "peak_rss_bytes",
    "unavailable",
    "sha256",
)
_TIMES = (
    "batch",
    "threads",
    "median_ms",
    "p10_ms",
    "p90_ms",
    "runs",
    "speedup",
    "speedup_low",
    "speedup_high",
    "baseline_runtime",
    "load_ms",
    "peak_rss_bytes",
)


def size_row(artifact: Mapping[str, Any]) -> dict[str, Any]:
    """Return what is true of an artifact wherever it runs; None where it was not measured."""
    storage, accuracy, parity = artifact["storage"], artifact["accuracy"], artifact["parity"]
    bound = storage["entropy_bound_bytes"]
    return {
        "artifact": artifact["artifact"],
        "format": artifact["format"],
        "sparsity": storage["sparsity"],
        "bytes": storage["bytes"],
        "size_ratio": storage["size_ratio"],
        "size_ratio_zipped": storage["size_ratio_zipped"],
        "growth": storage["growth"],
        "over_bound": storage["bytes"] / bound - 1 if bound else None,
        "accuracy": accuracy["value"] if accuracy else None,
        "accuracy_drop": accuracy["drop"] if accuracy else None,
        "parity_error": parity["error"] if parity else None,
        "sha256": artifact["sha256"],
    }


def flat_rows(artifacts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return a row per artifact and runtime (one without a runtime where none was asked), with every column."""
    rows = []
    for artifact in artifacts:
        whole = dict.fromkeys(COLUMNS) | size_row(artifact)
        entries = artifact["latency"].items() or [(None, {"unavailable": None})]
        for runtime, entry in entries:
            if "unavailable" in entry:
                rows.append(whole | {"runtime": runtime, "unavailable": entry["unavailable"]})
            else:
                rows.append(whole | {"runtime": runtime} | {name: entry[name] for name in _TIMES})
    return rows


def shown_rows(artifacts: Iterable[Mapping[str, Any]]) -> list[dict[str, Any]]:
    """Return the rows that a table shows: a runtime that did not run has none, unless the artifact had nothing else."""
    rows = []
    for artifact in artifacts:
        own = flat_rows([artifact])
        rows += [row for row in own if row["median_ms"] is not None] or own[:1]
    return rows


def fastest(artifact: Mapping[str, Any]) -> Mapping[str, Any] | None:
    """Return the latency entry with the smallest median, or None where nothing ran."""
    entries = [entry for entry in artifact["latency"].values() if "unavailable" not in entry]
    return min(entries, key=lambda entry: float(entry["median_ms"])) if entries else None


def requirement_counts(requirements: Sequence[Mapping[str, Any]]) -> tuple[int, int, int]:
    """Return how many requirements are met, not met, and open."""
    answers = [entry["met"] for entry in requirements]
    return answers.count(True), answers.count(False), answers.count(None)
