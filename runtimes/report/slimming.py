"""The options of ``compress export --to onnx-slim``: what goes together, and who measures."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from ...errors import UsageError
from ...exporters.onnx_slim import LatencySettings, SlimSettings
from ..measure.environment import default_threads

if TYPE_CHECKING:
    import onnx

    from ...compressor.progress import Progress

_BUDGET = re.compile(r"(?P<number>\d+(\.\d*)?|\.\d+)\s*(?P<unit>ms)?")


def slim_settings(
    *,
    ratio: float | None,
    target_macs: float | None,
    target_latency: str | None,
    round_to: int | None,
    allow_approximate: bool,
    tune: bool,
    cost_table: Path | None,
    threads: int | None,
    batch: int | None,
    progress: Progress | None,
) -> SlimSettings:
    """Return the settings that the options ask for.

    Raises:
        UsageError: they do not go together, or a budget cannot be read.
        FileFormatError: the cost table cannot be read.
    """
    wanted = {"--slim": ratio, "--target-macs": target_macs, "--target-latency": target_latency}
    given = [name for name, value in wanted.items() if value]
    if len(given) > 1:
        raise UsageError(f"{' and '.join(given)} both say how much to remove; give one of them.")
    if round_to and not given:
        raise UsageError(
            "--round-to rounds what is kept; give --slim SHARE, --target-macs or --target-latency as well."
        )
    measuring = {"--tune": tune, "--cost-table": cost_table, "--batch": batch}
    for name, value in measuring.items():
        if value and not target_latency:
            raise UsageError(f"{name} goes with --to onnx-sparse, or with --to onnx-slim --target-latency.")
    latency = None
    if target_latency:
        latency = _latency(target_latency, tune, cost_table, threads or default_threads(), batch or 1, progress)
    return SlimSettings(ratio, round_to or 1, allow_approximate, target_macs, latency)


def _latency(
    text: str, tune: bool, table: Path | None, threads: int, batch: int, progress: Progress | None
) -> LatencySettings:
    from ..tune import cost_source
    from ..whole_graph import graph_ms

    match = _BUDGET.fullmatch(text.strip())
    number = float(match["number"]) if match else 0.0
    if match is None or number <= 0:
        raise UsageError(
            f"cannot read --target-latency {text!r}; expected a share of the time now (0.5) or milliseconds (20ms)."
        )
    measure = cost_source(table, tune=tune, threads=threads, progress=progress)
    if measure is None:
        raise UsageError(
            "--target-latency needs to know what layers cost: give --tune to measure them here, or --cost-table FILE."
        )

    def whole(model: onnx.ModelProto) -> float:
        return graph_ms(model, threads=threads, batch=batch)

    absolute = number > 1 or match["unit"] is not None
    return LatencySettings(number, absolute, measure, whole if tune else None, batch)
