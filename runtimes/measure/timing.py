"""The latency block of an artifact on one runtime: a cold run in a child process, then warm pairs with the baseline."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec

from ...errors import SparsepackError
from ...exporters.onnx_sparse_artifact import OnnxSparseArtifact
from ...files import Array
from .. import RUNTIMES
from ..onnx_layers import layer_times
from ..onnx_sparse import sparse_macs
from .baseline import RecordBaseline
from .conditions import Conditions
from .latency import Load, Run, Timing, time_alone, time_pair
from .memory import Failure, Footprint
from .record import Latency, SelfCheck, Unavailable
from .statistics import Interval
from .subject import Subject
from .throughput import sweep, throughput

_ONE_EPISODE = (
    "the time budget let both sides be loaded only once, so the interval leaves out what another loading would change, "
    "a few percent for small networks; a larger one (--time-budget) counts it."
)
_UNPAIRED = "the baseline is an earlier record, so nothing was paired and the interval is wide."


def latency_on(runtime: str, subject: Subject, conditions: Conditions) -> Latency | Unavailable:
    """Measure one artifact on one runtime, or say why it did not run.

    The baseline, if any, is one that the artifact can be compared with.
    """
    try:
        found = _whole(runtime, subject, conditions)
    except SparsepackError as error:
        return Unavailable(str(error).removesuffix("."))
    if isinstance(found, Unavailable):
        return found
    chosen = subject.artifact.layers if isinstance(subject.artifact, OnnxSparseArtifact) else []
    found = msgspec.structs.replace(found, sparse_macs=sparse_macs(chosen))
    for wanted, more in _EXTRAS.items():
        if getattr(conditions, wanted):
            try:
                found = msgspec.structs.replace(found, **more(runtime, subject, conditions))
            except SparsepackError as error:
                found = msgspec.structs.replace(found, notes=[*found.notes, f"no {wanted.replace('_', ' ')}: {error}"])
    return found


def _per_layer(runtime: str, subject: Subject, conditions: Conditions) -> dict[str, Any]:
    inputs = subject.inputs(subject.session(runtime), conditions.batch)
    budget = conditions.time_budget / 2
    chosen = RUNTIMES[runtime]
    return {"layers": layer_times(subject.artifact, chosen, inputs, threads=conditions.threads, budget=budget)}


def _self_check(runtime: str, subject: Subject, conditions: Conditions) -> dict[str, Any]:
    inputs = subject.inputs(subject.session(runtime), conditions.batch)
    load = _loader(subject, runtime, inputs)
    found = time_pair(load, load, budget=conditions.time_budget).speedup
    return {"self_check": SelfCheck(found.median, found.low, found.high)}


def _batches(runtime: str, subject: Subject, conditions: Conditions) -> dict[str, Any]:
    return {"batches": sweep(subject, runtime, conditions.batches, conditions.time_budget)}


def _throughput(runtime: str, subject: Subject, conditions: Conditions) -> dict[str, Any]:
    counted = throughput(subject, runtime, conditions.threads, conditions.batch, conditions.time_budget)
    return {"throughput": counted}


# What is measured only where the field of this name in the conditions asks for it.
_EXTRAS: dict[str, Callable[[str, Subject, Conditions], dict[str, Any]]] = {
    "per_layer": _per_layer,
    "self_check": _self_check,
    "batches": _batches,
    "throughput": _throughput,
}


def _whole(runtime: str, subject: Subject, conditions: Conditions) -> Latency | Unavailable:
    refusal = subject.refusal(runtime)
    if refusal is not None:
        return Unavailable(refusal)
    threads, batch = conditions.threads, conditions.batch
    # In a child first: what crashes or hangs there is never loaded here.
    cold = subject.cold(runtime, batch)
    if isinstance(cold, Failure):
        return Unavailable(cold.reason)
    try:
        session = subject.session(runtime)
    except SparsepackError as error:
        return Unavailable(str(error).removesuffix("."))
    inputs = subject.inputs(session, batch)
    load = _loader(subject, runtime, inputs)
    notes = list(session.notes)
    if not cold.finite:
        notes.append("its outputs hold NaN or infinity on the inputs that it is timed with.")
    opponent = _opponent(runtime, subject, conditions, len(inputs[0]), notes)
    if opponent is None:
        timing = time_alone(load, budget=conditions.time_budget)
        latency = _latency(timing, threads, len(inputs[0]), cold, notes)
        if isinstance(conditions.baseline, RecordBaseline):
            return _against_record(latency, conditions.baseline, subject, runtime)
        return latency
    pair = time_pair(load, opponent.load, budget=conditions.time_budget)
    if pair.episodes == 1:
        notes.append(_ONE_EPISODE)
    return _with_speedup(_latency(pair.subject, threads, len(inputs[0]), cold, notes), pair.speedup, opponent.runtime)


@dataclass(frozen=True)
class _Opponent:
    """The baseline, ready to run beside the artifact."""

    runtime: str
    load: Load


def _opponent(runtime: str, subject: Subject, conditions: Conditions, batch: int, notes: list[str]) -> _Opponent | None:
    """Return the baseline on the same runtime if that loads it, else on ``baseline_runtime``; None without one."""
    baseline = conditions.baseline
    if not isinstance(baseline, Subject):
        return None
    reason = ""
    for name in dict.fromkeys((runtime, conditions.baseline_runtime)):
        refusal = baseline.refusal(name)
        if refusal is not None:
            reason = f"{name}: {refusal}"
            continue
        if name not in baseline.loaded() and isinstance(failure := baseline.cold(name, conditions.batch), Failure):
            reason = f"{name}: {failure.reason}"
            continue
        try:
            session = baseline.session(name)
        except SparsepackError as error:
            reason = f"{name}: {error}".removesuffix(".")
            continue
        inputs = baseline.inputs(session, batch)
        if len(inputs[0]) == batch:
            return _Opponent(name, _loader(baseline, name, inputs))
        reason = f"it takes batches of {len(inputs[0])} only, not of {batch}"
    notes.append(f"no speedup, because the baseline could not run beside it ({reason}).")
    return None


def _loader(subject: Subject, runtime: str, inputs: tuple[Array, ...]) -> Load:
    """Return what loads the artifact afresh and gives one inference of it."""

    def load() -> Run:
        session = subject.fresh_session(runtime)
        return lambda: session.run(*inputs)

    return load


def _latency(timing: Timing, threads: int, batch: int, cold: Footprint, notes: list[str]) -> Latency:
    return Latency(
        median_ms=timing.median_ms,
        p10_ms=timing.p10_ms,
        p90_ms=timing.p90_ms,
        runs=len(timing.times_ms),
        warmup=timing.warmup,
        threads=threads,
        batch=batch,
        load_ms=cold.load_ms,
        peak_rss_bytes=cold.peak_rss_bytes,
        notes=notes,
    )


def _against_record(latency: Latency, baseline: RecordBaseline, subject: Subject, runtime: str) -> Latency:
    speedup = baseline.speedup(subject, runtime, latency)
    if speedup is None:
        return latency
    return _with_speedup(msgspec.structs.replace(latency, notes=[*latency.notes, _UNPAIRED]), speedup, runtime)


def _with_speedup(latency: Latency, speedup: Interval, baseline_runtime: str) -> Latency:
    return msgspec.structs.replace(
        latency,
        speedup=speedup.median,
        speedup_low=speedup.low,
        speedup_high=speedup.high,
        baseline_runtime=baseline_runtime,
    )
