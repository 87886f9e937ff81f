"""The measurement record: what ``--json`` writes, field by field; the names are stable within one schema version.

Sizes are bytes, times milliseconds, FLOPs counted operations (one multiply-add is two). A field that was not measured
is null; the record holds no NaN and no infinity.
"""

from __future__ import annotations

from typing import Annotated, Any, NotRequired, TypedDict

import msgspec

SCHEMA = "sparsepack.measurement/1"
# In the folder that a whole recipe was carried out in.
RECORD = "measurement.json"
# How the note begins that an artifact has nothing it could be compared with.
NO_COMPARISON = "no comparison: "

# Checked when a record is read back: nothing takes no bytes or no time, and a zero would be divided by.
Bytes = Annotated[int, msgspec.Meta(gt=0)]
Milliseconds = Annotated[float, msgspec.Meta(gt=0)]


class Environment(TypedDict):
    """The conditions of a measurement, see :mod:`.environment`; what every report shows is always there."""

    cpu: str
    threads: int
    cores_usable: int
    system: str
    python: str
    versions: dict[str, str | None]
    cores_physical: NotRequired[int | None]
    cores_logical: NotRequired[int | None]
    affinity: NotRequired[list[int] | None]
    instruction_sets: NotRequired[list[str]]
    frequency_governor: NotRequired[str | None]
    load_average: NotRequired[float | None]
    memory_bytes: NotRequired[int]


class LayerTime(TypedDict):
    """One node of a graph: the operator, the median time, and its share of all nodes' time."""

    name: str
    operator: str
    ms: float
    share: float


class TensorBytes(msgspec.Struct, frozen=True):
    """What one tensor takes in the artifact.

    Attributes:
        name: its state_dict or initializer name.
        shape: its dense shape.
        nnz: kept entries.
        bytes: what it takes in the file.
        codec: how positions and values are written.
        bound_bytes: the order-0 entropy bound of positions and values.
    """

    name: str
    shape: list[int]
    nnz: int
    bytes: int
    codec: str
    bound_bytes: float


class Overhead(msgspec.Struct, frozen=True):
    """What the artifact takes beside its tensors: its header, its graph, and everything else."""

    header: int
    graph: int
    other: int


class Storage(msgspec.Struct, frozen=True):
    """The artifact on disk, to the byte; ``tensors`` and ``overhead_bytes`` add up to ``bytes``.

    Attributes:
        bytes: all of the artifact's files.
        overhead_bytes: see :class:`Overhead`.
        dense_bytes: every parameter and buffer in its dense dtype, shared storage once.
        zipped_dense_bytes: zstd level 19 of those bytes, with zeros or frozen values in place.
        entropy_bound_bytes: the order-0 bound of everything stored.
        size_ratio: dense_bytes over bytes.
        size_ratio_zipped: zipped_dense_bytes over bytes.
        nonzero: kept prunable weights.
        total: prunable weights.
        sparsity: 1 - nonzero / total.
        tensors: one row per stored tensor.
        baseline_bytes: the baseline artifact's size; None without one.
        growth: bytes over baseline_bytes, less one: 0.02 is two per cent larger.
    """

    bytes: Bytes
    overhead_bytes: Overhead
    dense_bytes: int
    zipped_dense_bytes: int
    entropy_bound_bytes: float
    size_ratio: float
    size_ratio_zipped: float
    nonzero: int
    total: int
    sparsity: float
    tensors: list[TensorBytes]
    baseline_bytes: int | None = None
    growth: float | None = None


class SelfCheck(msgspec.Struct, frozen=True):
    """The artifact timed against itself: a ratio whose 95 % interval must hold 1.

    ``high - low`` is how small a difference the machine, as busy as it is, lets one see.
    """

    ratio: float
    low: float
    high: float


class BatchTiming(msgspec.Struct, frozen=True):
    """Times of single runs at one batch size, and the examples a second that the median amounts to."""

    batch: int
    median_ms: Milliseconds
    p10_ms: Milliseconds
    p90_ms: Milliseconds
    examples_per_second: float


class Throughput(msgspec.Struct, frozen=True):
    """Examples a second of so many sessions of one thread each that run at the same time, in batches as above."""

    streams: int
    examples_per_second: float


class Latency(msgspec.Struct, frozen=True):
    """One runtime's times of single runs, interleaved with the baseline's.

    Attributes:
        median_ms: of ``runs`` runs, after ``warmup`` runs that are not counted; p10_ms and p90_ms likewise.
        threads: threads of either side.
        batch: examples a run.
        load_ms: opening and loading the artifact in a process of its own, imports not counted; None when not measured.
        peak_rss_bytes: that process's peak resident memory after one run; None when not measured.
        speedup: the baseline's time over this one's, median of pairs, with its 95 % interval; None without a baseline.
            When the baseline is an earlier record nothing is paired, and the interval is the widest that both sides'
            p10 and p90 allow.
        baseline_runtime: what the baseline ran on.
        layers: where it was asked for, time per node of the graph (``name``, ``operator``, ``ms``, ``share``).
        sparse_macs: share of the dense network's multiply-adds whose layers ran sparse; None where it is not known.
        notes: what the reader must know, in sentences.
        self_check: where it was asked for, see :class:`SelfCheck`; likewise ``batches`` and ``throughput``.
    """

    median_ms: Milliseconds
    p10_ms: Milliseconds
    p90_ms: Milliseconds
    runs: int
    warmup: int
    threads: int
    batch: int
    load_ms: float | None
    peak_rss_bytes: int | None
    speedup: float | None = None
    speedup_low: float | None = None
    speedup_high: float | None = None
    baseline_runtime: str | None = None
    layers: list[LayerTime] = []
    sparse_macs: float | None = None
    notes: list[str] = []
    self_check: SelfCheck | None = None
    batches: list[BatchTiming] = []
    throughput: Throughput | None = None


class Unavailable(msgspec.Struct, frozen=True):
    """Stands in the place of :class:`Latency` when the runtime did not run the artifact, with the reason."""

    unavailable: str


class Accuracy(msgspec.Struct, frozen=True):
    """Accuracy on the data's test split.

    Attributes:
        metric: ``top-1``.
        value: a share, 0 to 1.
        baseline: the baseline artifact's; None without one.
        drop: baseline minus value.
        runtime: what computed it.
    """

    metric: str
    value: float
    baseline: float | None
    drop: float | None
    runtime: str


class Parity(msgspec.Struct, frozen=True):
    """How far the artifact's outputs are from the checkpoint's, the worst over the runtimes it ran on.

    Attributes:
        error: max |a - b| over the standard deviation of the reference output across inputs; None when that deviation
            is so small that the comparison could not fail (the artifact's notes say so).
        max_abs_error: max |a - b|.
        argmax_agreement: share of inputs whose largest output is the same.
        inputs: how many inputs were compared.
        runtime: the runtime that came out worst.
    """

    error: float | None
    max_abs_error: float
    argmax_agreement: float
    inputs: int
    runtime: str


class Training(msgspec.Struct, frozen=True):
    """What the weights cost: counted FLOPs, trained parameters, and seconds where the run's log has them."""

    trained_parameters: int
    mask_search_flops: int
    training_flops: int
    seconds: float | None


class ArtifactRecord(msgspec.Struct, frozen=True):
    """Everything measured on one artifact.

    Attributes:
        artifact: its name in tables and requirements (``magnitude-90/packed``).
        path: where it lay.
        format: its format.
        sha256: of the file.
        storage: bytes.
        latency: by runtime.
        accuracy: None without data.
        parity: None without something independent to compare with.
        training: None when the cost is not known.
        notes: why something was not measured, and what else the reader must know.
        regressions: what became worse than in the earlier record that is the baseline, tensor by tensor and node by
            node, in sentences.
    """

    artifact: str
    path: str
    format: str
    sha256: str
    storage: Storage
    latency: dict[str, Latency | Unavailable]
    accuracy: Accuracy | None
    parity: Parity | None
    training: Training | None
    notes: list[str] = []
    regressions: list[str] = []


class RequirementResult(msgspec.Struct, frozen=True):
    """One requirement on one artifact.

    Attributes:
        expression: as the user wrote it.
        artifact: the artifact's name.
        value: what was measured; None when it was not.
        met: None when the value is missing or the noise leaves it open.
        reason: why ``met`` is None.
    """

    expression: str
    artifact: str
    value: float | None
    met: bool | None
    reason: str | None = None


class FailedRun(msgspec.Struct, frozen=True):
    """A run of a job that gave no artifacts, and its error; requirements on those artifacts are open."""

    run: str
    error: str


class Measurement(msgspec.Struct, frozen=True):
    """The whole record."""

    schema: str
    environment: Environment
    artifacts: list[ArtifactRecord]
    requirements: list[RequirementResult] = []
    failed: list[FailedRun] = []


def to_plain(record: Any) -> Any:
    """Return a record, or a part of one, as plain dictionaries and lists."""
    return msgspec.to_builtins(record)
