"""Measuring artifacts: storage to the byte, paired latency, load time, peak memory, accuracy, parity, training cost.

:func:`measure` is the one entry; it returns the record that ``--json`` writes. What cannot be measured on an artifact
is null and explained in the artifact's notes; it never stops the rest of the report.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ...files import path_text
from .. import find_runtime
from . import gates
from .baseline import RecordBaseline, is_record
from .conditions import Conditions
from .environment import current_environment, default_threads
from .plan import measure_subject
from .record import SCHEMA, Measurement, to_plain
from .subject import Subject

if TYPE_CHECKING:
    from ...compressor.progress import Progress
    from ...models.data import Dataset


def measure(
    artifacts: Sequence[Path],
    *,
    baseline: Path | None = None,
    baseline_runtime: str = "onnxruntime-cpu",
    runtimes: Sequence[str] | None = None,
    data: Dataset | str | None = None,
    model: str | None = None,
    threads: int | None = None,
    batch: int = 1,
    time_budget: float = 2.0,
    per_layer: bool = False,
    self_check: bool = False,
    batches: Sequence[int] = (),
    throughput: bool = False,
    require: Sequence[str] = (),
    against: Path | Mapping[Path, Path] | None = None,
    names: Mapping[Path, str] | None = None,
    progress: Progress | None = None,
) -> dict[str, Any]:
    """Measure artifacts and hold them against requirements.

    Args:
        artifacts: the files.
        baseline: an artifact to run beside them, or an earlier record (``.json``); an artifact of another network, or
            one that the record does not hold, is measured without comparing, and its notes say so.
        baseline_runtime: what a baseline runs on that the artifact's runtime cannot load.
        runtimes: names of runtimes; by default those that each artifact's format is meant for.
        data: a data set, or its name as users type it, for accuracy and parity.
        model: the user's ``--model``, for artifacts of a factory.
        threads: threads of a run; by default all usable cores.
        batch: examples of a timed run.
        time_budget: seconds for timing one pair.
        per_layer: whether single nodes are timed as well, where the runtime can.
        self_check: whether every artifact is also timed against itself, which must come out as 1.00.
        batches: batch sizes to time besides, without the baseline.
        throughput: whether to count what sessions of one thread each, as many as ``threads``, deliver together.
        require: requirements that every artifact must meet, see :mod:`.gates`.
        against: the checkpoint file that the artifacts came from (one for all, or by artifact); parity is then measured
            against it, and training cost and zipped size are taken from it.
        names: what to call the artifacts; by default their file names.
        progress: told what is going on.

    Returns:
        The measurement record as plain data.

    Raises:
        UsageError: an unknown runtime, or a requirement that cannot be read.
        FileFormatError: a file that is no artifact, or a damaged one.
        DataError: data that cannot be read or does not fit the model.
    """
    requirements = [gates.parse(expression) for expression in require]
    chosen = [find_runtime(name).name for name in runtimes] if runtimes else None
    find_runtime(baseline_runtime)
    threads = threads or default_threads()
    called = names or _names(artifacts)
    checkpoints = against if isinstance(against, Mapping) else dict.fromkeys(artifacts, against)
    dataset = _dataset(data)
    proven: set[str] = set()
    opened = [
        Subject(path, called[path], threads=threads, model=model, checkpoint=checkpoints.get(path), proven=proven)
        for path in artifacts
    ]
    yardstick = _baseline(baseline, threads, model)
    if dataset is not None:
        for subject in opened:
            dataset = dataset.fitted(subject.model_record())
    conditions = Conditions(
        yardstick,
        baseline_runtime,
        chosen,
        dataset,
        threads,
        batch,
        time_budget,
        per_layer,
        self_check,
        batches,
        throughput,
    )
    records = []
    for subject in opened:
        if progress is not None:
            progress.stage(f"measure {subject.name}")
        records.append(measure_subject(subject, conditions))
        subject.forget()
    record: dict[str, Any] = to_plain(Measurement(SCHEMA, current_environment(threads), records))
    record["requirements"] = to_plain(gates.judge_all(requirements, record["artifacts"]))
    return record


def _dataset(data: Dataset | str | None) -> Dataset | None:
    if isinstance(data, str):
        from ...models.data import load_data

        return load_data(data)
    return data


def _names(artifacts: Sequence[Path]) -> dict[Path, str]:
    """Call artifacts by file name, or by whole path where two file names are equal."""
    counts: dict[str, int] = {}
    for path in artifacts:
        counts[path.name] = counts.get(path.name, 0) + 1
    return {path: path_text(path.name if counts[path.name] == 1 else path) for path in artifacts}


def _baseline(path: Path | None, threads: int, model: str | None) -> Subject | RecordBaseline | None:
    if path is None:
        return None
    if is_record(path):
        return RecordBaseline(path)
    return Subject(path, path_text(path.name), threads=threads, model=model)
