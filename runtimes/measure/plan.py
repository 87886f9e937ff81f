"""Everything measured on one artifact, put together; what cannot be measured is None and said in a note."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import TYPE_CHECKING

import msgspec

from ...errors import DataError, SparsepackError, UsageError
from ...files import path_text
from .. import RUNTIMES
from ..base import Session
from .accuracy import METRIC, top1
from .baseline import RecordBaseline
from .conditions import Conditions
from .inputs import held_out, varied
from .parity import Comparison, compare
from .record import NO_COMPARISON, Accuracy, ArtifactRecord, Parity, Storage
from .regressions import regressions
from .running import run_all
from .storage import storage
from .subject import REFERENCE, Subject
from .timing import latency_on
from .training import training

if TYPE_CHECKING:
    from ...files import Array
    from ...models.data import Dataset

PARITY_INPUTS = 64


def measure_subject(subject: Subject, conditions: Conditions) -> ArtifactRecord:
    """Measure one artifact.

    Raises:
        FileFormatError: it is damaged.
        DataError: the data does not fit the network.
    """
    # First, because it decodes every tensor and so finds a damaged file before anything is timed.
    on_disk = storage(subject)
    notes: list[str] = []
    apart = _mismatch(subject, conditions.baseline)
    if apart is not None:
        notes.append(f"{NO_COMPARISON}{apart}")
        conditions = replace(conditions, baseline=None)
    latency = {runtime: latency_on(runtime, subject, conditions) for runtime in _runtimes_of(subject, conditions)}
    accuracy = _accuracy(subject, conditions, notes)
    record = ArtifactRecord(
        artifact=subject.name,
        path=path_text(subject.artifact.path),
        format=subject.artifact.format,
        sha256=subject.artifact.sha256,
        storage=_compared(on_disk, subject, conditions),
        latency=latency,
        accuracy=accuracy,
        parity=_parity(subject, conditions.data, notes),
        training=training(subject),
        notes=notes,
    )
    if isinstance(conditions.baseline, RecordBaseline):
        found = regressions(record, conditions.baseline.entry(subject))
        return msgspec.structs.replace(record, regressions=found)
    return record


def _mismatch(subject: Subject, baseline: Subject | RecordBaseline | None) -> str | None:
    """Return why an artifact cannot be compared with the baseline, or None when it can or there is none."""
    if isinstance(baseline, Subject):
        return subject.mismatch(baseline)
    try:
        if baseline is not None:
            baseline.entry(subject)
    except UsageError as error:
        return str(error)
    return None


def _compared(on_disk: Storage, subject: Subject, conditions: Conditions) -> Storage:
    baseline = conditions.baseline
    if baseline is None:
        return on_disk
    size = baseline.entry(subject).storage.bytes if isinstance(baseline, RecordBaseline) else baseline.artifact.size
    return msgspec.structs.replace(on_disk, baseline_bytes=size, growth=on_disk.bytes / size - 1)


def _runtimes_of(subject: Subject, conditions: Conditions) -> Iterable[str]:
    if conditions.runtimes is not None:
        return conditions.runtimes
    return [name for name, runtime in RUNTIMES.items() if subject.artifact.format in runtime.formats]


def _accuracy(subject: Subject, conditions: Conditions, notes: list[str]) -> Accuracy | None:
    data, baseline = conditions.data, conditions.baseline
    if data is None:
        return None
    before: float | None = None
    try:
        runtime, session = subject.any_cpu_session()
        value = top1(session, data)
        if isinstance(baseline, Subject):
            before = baseline.remember("accuracy", lambda: top1(baseline.any_cpu_session()[1], data))
    except DataError:
        raise
    except SparsepackError as error:
        notes.append(f"no accuracy: {error}")
        return None
    if isinstance(baseline, RecordBaseline):
        before = baseline.accuracy(subject)
    return Accuracy(METRIC, value, before, None if before is None else before - value, runtime)


def _parity(subject: Subject, data: Dataset | None, notes: list[str]) -> Parity | None:
    """Return the worst comparison over the sessions that could differ from the reference."""
    try:
        reference = subject.reference()
        sessions = _comparable(subject)
        if not sessions:
            notes.append(
                "no parity: nothing but PyTorch runs it, from the very tensors that it would be compared with."
            )
            return None
        inputs = _parity_inputs(subject, data)
        expected = run_all(reference, inputs)
        found = {name: compare(expected, run_all(session, inputs)) for name, session in sessions.items()}
    except DataError:
        raise
    except SparsepackError as error:
        notes.append(f"no parity: {error}")
        return None
    runtime, worst = max(found.items(), key=lambda item: _badness(item[1]))
    if worst.error is None:
        notes.append(
            "no parity: the reference's outputs do not depend on its inputs, so that any comparison would pass."
        )
    return worst.record(runtime)


def _comparable(subject: Subject) -> dict[str, Session]:
    """Return the sessions that share less than everything with the reference.

    PyTorch with the artifact's own tensors is the reference itself; it counts only when the reference is a checkpoint.
    """
    sessions = subject.loaded()
    if subject.checkpoint is None:
        sessions.pop(REFERENCE, None)
    elif not sessions:
        runtime, session = subject.any_cpu_session()
        sessions = {runtime: session}
    return sessions


def _badness(comparison: Comparison) -> float:
    return float("inf") if comparison.error is None else comparison.error


def _parity_inputs(subject: Subject, data: Dataset | None) -> tuple[Array, ...]:
    """Return the first examples of the test split, or examples that the model source draws."""
    if data is not None and len(subject.specs()) == 1:
        return (held_out(data, PARITY_INPUTS)[0],)
    return varied([tensor.numpy() for tensor in subject.source().example_inputs(PARITY_INPUTS)])
