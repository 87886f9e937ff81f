"""The conditions that one call measures every artifact under."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from .baseline import RecordBaseline
from .subject import Subject

if TYPE_CHECKING:
    from ...models.data import Dataset


@dataclass(frozen=True)
class Conditions:
    """What is the same for every artifact.

    Attributes:
        baseline: an artifact that runs beside each, an earlier record, or None.
        baseline_runtime: what a baseline runs on that an artifact's runtime cannot load.
        runtimes: names of runtimes; None takes those that each format is meant for.
        data: for accuracy and parity, or None.
        threads: threads of a run.
        batch: examples of a timed run.
        time_budget: seconds for timing one pair.
        per_layer: whether single nodes are timed as well, where the runtime can.
        self_check: whether every artifact is also timed against itself.
        batches: batch sizes to time besides.
        throughput: whether to count what sessions on all threads deliver together.
    """

    baseline: Subject | RecordBaseline | None
    baseline_runtime: str
    runtimes: Sequence[str] | None
    data: Dataset | None
    threads: int
    batch: int
    time_budget: float
    per_layer: bool = False
    self_check: bool = False
    batches: Sequence[int] = ()
    throughput: bool = False
