"""What a machine delivers beyond one run at a time: times at other batch sizes, and several sessions at once.

Latency answers how long one caller waits; :func:`sweep` how that grows with the batch, and :func:`throughput` how many
examples a second all cores deliver together, as a server with a queue would use them.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from functools import partial

from ...errors import SparsepackError
from ...files import Array
from ..base import Session
from .latency import Run, time_alone
from .record import BatchTiming, Throughput
from .subject import Subject

_WARMUP_RUNS = 2


def sweep(subject: Subject, runtime: str, batches: Sequence[int], budget: float) -> list[BatchTiming]:
    """Time single runs at several batch sizes, without a baseline.

    Args:
        subject: the artifact.
        runtime: one that runs it.
        batches: examples a run; a network of one fixed batch size is timed at that size alone.
        budget: seconds for all of them together.

    Returns:
        one row a batch size, ascending.
    """
    session = subject.session(runtime)
    sizes = [session.fixed_batch] if session.fixed_batch else sorted(set(batches))
    rows = []
    for size in sizes:
        run = partial(session.run, *subject.inputs(session, size))
        timing = time_alone(partial(_loaded, run), budget=budget / len(sizes))
        rows.append(BatchTiming(size, timing.median_ms, timing.p10_ms, timing.p90_ms, 1000 * size / timing.median_ms))
    return rows


def _loaded(run: Run) -> Run:
    return run


def throughput(subject: Subject, runtime: str, streams: int, batch: int, budget: float) -> Throughput:
    """Run several sessions of one thread each at once, and count.

    Args:
        subject: the artifact.
        runtime: one that runs it.
        streams: sessions that run at the same time.
        batch: examples a run.
        budget: seconds.
    """
    sessions = [subject.fresh_session(runtime, threads=1) for _ in range(streams)]
    inputs = subject.inputs(sessions[0], batch)
    counts, seconds = _count(sessions, inputs, budget)
    return Throughput(streams, sum(counts) * len(inputs[0]) / seconds)


def _count(
    sessions: Sequence[Session],
    inputs: tuple[Array, ...],
    budget: float,
    clock: Callable[[], float] = time.perf_counter,
) -> tuple[list[int], float]:
    """Return the runs of every session until the budget was spent, and the seconds from first start to last end."""
    counts = [0] * len(sessions)
    problems: list[SparsepackError] = []
    start = threading.Barrier(len(sessions) + 1)

    def work(number: int) -> None:
        try:
            for _ in range(_WARMUP_RUNS):
                sessions[number].run(*inputs)
            with suppress(threading.BrokenBarrierError):
                start.wait()
            end = clock() + budget
            while clock() < end and not start.broken:
                sessions[number].run(*inputs)
                counts[number] += 1
        except SparsepackError as error:
            problems.append(error)
            start.abort()

    workers = [threading.Thread(target=work, args=(number,)) for number in range(len(sessions))]
    for worker in workers:
        worker.start()
    # Broken by a session that failed; its error is raised below.
    with suppress(threading.BrokenBarrierError):
        start.wait()
    begin = clock()
    for worker in workers:
        worker.join()
    if problems:
        raise problems[0]
    return counts, clock() - begin
