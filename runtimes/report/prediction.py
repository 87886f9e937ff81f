"""A dry run's prediction as a table for people."""

from __future__ import annotations

from collections.abc import Mapping

from ..rehearsal import Prediction
from .table import plain_table
from .units import digits, human_bytes, percent


def prediction_text(predictions: Mapping[str, Prediction]) -> str:
    """Return one table for all runs, their multiply-adds, and what was taken for granted.

    Args:
        predictions: by the run's name; an empty name for a single run.
    """
    rows = []
    for name, prediction in predictions.items():
        for artifact in prediction.artifacts:
            values = "" if artifact.values == "fp32" else f" {artifact.values}"
            label = f"{name}/{artifact.format}{values}".removeprefix("/")
            size = "-" if artifact.bytes is None else human_bytes(artifact.bytes)
            times = [f"{digits(ms)} ms on {runtime}" for runtime, ms in artifact.latency.items()]
            rows.append((label, percent(prediction.sparsity), size, "; ".join(times) or "-"))
    lines = [plain_table("predicted", ["artifact", "sparsity", "bytes", "a run"], rows, right=(1, 2), fold=(0, 3))]
    for name, prediction in predictions.items():
        if prediction.macs is not None:
            dense, kept = prediction.macs["dense"], prediction.macs["kept"]
            what = f"{name}: " if name else ""
            lines.append(f"* {what}{dense:,} multiply-adds of an example dense, {kept:,} of them on kept weights.")
    lines += [f"* {text}" for text in dict.fromkeys(t for p in predictions.values() for t in p.assumptions)]
    lines += [
        f"* {text}"
        for text in dict.fromkeys(
            f"{artifact.format} on {where}: {why}." if where != "export" else f"{artifact.format}: {why}."
            for prediction in predictions.values()
            for artifact in prediction.artifacts
            for where, why in artifact.unavailable.items()
        )
    ]
    return "\n".join(lines)
