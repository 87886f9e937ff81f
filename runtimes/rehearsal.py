"""What a run will come to, before its training: a rehearsal with weights that stand in for trained ones.

The network is pruned at once, as the recipe says how much and in which structure (:mod:`.stand_in`), and exported to
the formats that are asked for: bytes and multiply-adds are read off that. Each export is loaded and run for a moment on
the runtimes that it is meant for: what a graph takes depends on its shapes and masks, hardly on its weights' values.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint
from ..errors import SparsepackError
from ..exporters import export
from . import RUNTIMES
from .measure.environment import default_threads
from .measure.inputs import example_inputs
from .measure.latency import time_undisturbed
from .stand_in import stand_in

if TYPE_CHECKING:
    from ..compressor.settings import PruneRecipe
    from ..exporters.artifact import Artifact
    from ..models.source import ModelSource, TorchSource

SCHEMA = "sparsepack.prediction/1"
# Formats and values of a dry run that names none.
FORMATS = (("packed", "fp32"), ("onnx", "fp32"), ("onnx-sparse", "fp32"))
_CALIBRATION = 64
_SECONDS = 0.4


class Predicted(msgspec.Struct, frozen=True):
    """One artifact: its bytes, and by runtime milliseconds of a run; or why it cannot be written or run."""

    format: str
    values: str
    bytes: int | None
    latency: dict[str, float]
    unavailable: dict[str, str]


class Prediction(msgspec.Struct, frozen=True):
    """What one run will come to.

    Attributes:
        schema: of this record.
        model: as the recipe names it.
        method: likewise.
        sparsity: of the prunable weights.
        macs: multiply-adds of one example, ``dense`` and ``kept``; None where they are not counted.
        threads: of a run.
        artifacts: in the order in which they were asked for.
        assumptions: what was taken for granted, in sentences.
    """

    schema: str
    model: str
    method: str
    sparsity: float
    macs: dict[str, int] | None
    threads: int
    artifacts: list[Predicted]
    assumptions: list[str]


def rehearse(
    recipe: PruneRecipe,
    formats: Sequence[tuple[str, str]] = FORMATS,
    *,
    threads: int | None = None,
    seconds: float = _SECONDS,
) -> Prediction:
    """Predict a run.

    Args:
        recipe: complete.
        formats: pairs of format and values.
        threads: of a timed run; by default all usable cores.
        seconds: of timing each export on each runtime; 0 times nothing.

    Raises:
        UnsupportedError: what the method stores beside a mask and its weights only shows in its training.
        SparsepackError: the recipe asks for something that cannot be.
    """
    threads = threads or default_threads()
    with tempfile.TemporaryDirectory(prefix="sparsepack-") as folder:
        checkpoint, source, assumptions = stand_in(recipe, Path(folder) / "run")
        artifacts = [
            _predicted(checkpoint, source, Path(folder) / f"{number}", *wanted, threads=threads, seconds=seconds)
            for number, wanted in enumerate(formats)
        ]
    masked = [tensor for tensor in checkpoint.tensors.values() if tensor.record.role == "prunable"]
    total = sum(int(np.prod(tensor.record.shape)) for tensor in masked)
    return Prediction(
        SCHEMA,
        recipe.model,
        recipe.method,
        1 - sum(tensor.kept for tensor in masked) / total if total else 0.0,
        _macs(checkpoint, source),
        threads,
        artifacts,
        assumptions,
    )


def _predicted(
    checkpoint: SparseCheckpoint,
    source: ModelSource | None,
    path: Path,
    format: str,
    values: str,
    *,
    threads: int,
    seconds: float,
) -> Predicted:
    from ..models.source import TorchSource

    typed = source if isinstance(source, TorchSource) else None
    examples = None
    if typed is not None and format == "onnx-int8":
        examples = [tensor.numpy() for tensor in typed.example_inputs(_CALIBRATION)]
    try:
        artifact = export(checkpoint, format, path, values=values, source=source, calibration=examples)
    except SparsepackError as error:
        return Predicted(format, values, None, {}, {"export": str(error).removesuffix(".")})
    latency: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name, runtime in RUNTIMES.items():
        if format not in runtime.formats or not seconds:
            continue
        reason = runtime.available() or runtime.accepts(artifact)
        if reason is None:
            try:
                latency[name] = _time(artifact, name, typed, threads, seconds)
            except SparsepackError as error:
                reason = str(error).removesuffix(".")
        if reason is not None:
            unavailable[name] = reason
    size = artifact.size
    for file in artifact.files():
        file.unlink()
    return Predicted(format, values, size, latency, unavailable)


def _time(artifact: Artifact, runtime: str, source: TorchSource | None, threads: int, seconds: float) -> float:
    session = RUNTIMES[runtime].load(artifact, threads=threads, source=source)
    inputs = example_inputs(artifact, session, 1)
    run: Callable[[], object] = lambda: session.run(*inputs)  # noqa: E731
    return time_undisturbed(lambda: run, budget=seconds).median_ms


def _macs(checkpoint: SparseCheckpoint, source: ModelSource | None) -> dict[str, int] | None:
    from ..models.flops import layer_macs
    from ..models.source import TorchSource

    if not isinstance(source, TorchSource):
        return None
    counts = layer_macs(source.build(), source.example_inputs(2))
    kept = 0.0
    for name, macs in counts.items():
        tensor = checkpoint.tensors[name]
        size = int(np.prod(tensor.record.shape))
        kept += macs * (tensor.kept / size if size else 1.0)
    return {"dense": sum(counts.values()), "kept": round(kept)}


def held_against(predictions: Mapping[str, Any], artifact: Mapping[str, Any]) -> list[str]:
    """Return what was predicted of an artifact and what came of it, in sentences.

    Args:
        predictions: by artifact name, as :func:`by_artifact` reads them.
        artifact: its measurement record as plain data.
    """
    found = predictions.get(artifact["artifact"])
    if found is None:
        return []
    parts = []
    if found["bytes"] is not None:
        parts.append(_against(f"{found['bytes']:,} bytes", artifact["storage"]["bytes"] / found["bytes"]))
    for runtime, ms in found["latency"].items():
        entry = artifact["latency"].get(runtime, {})
        if "median_ms" in entry:
            parts.append(_against(f"{ms:.3g} ms on {runtime}", entry["median_ms"] / ms))
    return [f"predicted before the training: {'; '.join(parts)}."] if parts else []


def _against(what: str, ratio: float) -> str:
    return f"{what} (it came to {100 * (ratio - 1):+.1f} %)"


def by_artifact(path: Path) -> dict[str, Any]:
    """Return the predictions in a file of a dry run, by artifact name; nothing where there is no readable one."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    known = isinstance(fields, dict) and fields.get("schema") == SCHEMA and isinstance(fields.get("artifacts"), dict)
    return dict(fields["artifacts"]) if known else {}
