"""Whether the measured speedup can be trusted on a busy machine: ResNet-20 against itself, and 5 % slowed down.

Every repetition times two pairs as ``compress measure`` does. A/A runs the same file on both sides: the 95 % interval
must cover 1.00. In the other pair the subject is made 5 % slower by waiting, after every run, a twentieth of what the
run took: the interval must lie below 1. Processes that do nothing but count (``--busy``, one a core unless told
otherwise) keep the machine busy all the while, whatever else runs on it.

    python benchmarks/latency_trust.py [--repetitions 50] [--seconds 2] [--busy 2] [--threads 1]

Fifty repetitions of two pairs of two seconds take five minutes.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from record import arguments, write
from zoo_parity import checkpoint_of, pruned

from sparsepack.exporters import export
from sparsepack.exporters.artifact import Artifact
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.inputs import example_inputs
from sparsepack.runtimes.measure.latency import Load, Run, time_pair
from sparsepack.runtimes.measure.statistics import Interval, quantile

NETWORK = "resnet-20"
SLOWDOWN = 0.05
_BURN = "while True: sum(range(1000))"


@contextmanager
def busy(processes: int) -> Iterator[None]:
    """Keep so many processes counting."""
    burning = [subprocess.Popen([sys.executable, "-c", _BURN]) for _ in range(processes)]
    try:
        yield
    finally:
        for process in burning:
            process.kill()
            process.wait()


def loader(artifact: Artifact, threads: int, slowdown: float = 0.0) -> Load:
    """Return what loads the network; its runs take longer by the share ``slowdown``."""

    def load() -> Run:
        session = RUNTIMES["onnxruntime-cpu"].load(artifact, threads=threads)
        inputs = example_inputs(artifact, session, 1)
        if not slowdown:
            return lambda: session.run(*inputs)

        def slowed() -> None:
            begin = time.perf_counter_ns()
            session.run(*inputs)
            now = time.perf_counter_ns()
            end = now + (now - begin) * slowdown
            while time.perf_counter_ns() < end:
                pass

        return slowed

    return load


def figures(same: list[Interval], slowed: list[Interval]) -> dict[str, Any]:
    """Count what the intervals got right."""
    widths = [interval.high - interval.low for interval in same]
    return {
        "repetitions": len(same),
        "covers_one": sum(interval.low <= 1.0 <= interval.high for interval in same),
        "slowdown_found": sum(interval.high < 1.0 for interval in slowed),
        "narrower_than_4_percent": sum(width < 0.04 for width in widths),
        "width_median": round(statistics.median(widths), 5),
        "width_p90": round(quantile(widths, 0.9), 5),
        "width_largest": round(max(widths), 5),
        "intervals": [[round(end, 4) for end in (i.low, i.median, i.high)] for i in same],
        "slowed_intervals": [[round(end, 4) for end in (i.low, i.median, i.high)] for i in slowed],
    }


def main() -> None:
    """Run the repetitions and write the record."""
    given = arguments(__doc__, repetitions=50, seconds=2.0, busy=os.cpu_count() or 1, threads=1)
    source, tensors = pruned(NETWORK)
    same: list[Interval] = []
    slowed: list[Interval] = []
    loads = []
    with tempfile.TemporaryDirectory() as folder, busy(given.busy):
        artifact = export(checkpoint_of(source, tensors), "onnx", Path(folder) / "network.onnx", source=source)
        plain, slower = loader(artifact, given.threads), loader(artifact, given.threads, SLOWDOWN)
        for seed in range(given.repetitions):
            same.append(time_pair(plain, plain, budget=given.seconds, seed=2 * seed).speedup)
            slowed.append(time_pair(slower, plain, budget=given.seconds, seed=2 * seed + 1).speedup)
            loads.append(round(os.getloadavg()[0], 1))
            print(seed, same[-1], slowed[-1], f"load {loads[-1]}", flush=True)
    conditions = {"network": NETWORK, "burning_processes": given.busy, "load_average": loads, "threads": given.threads}
    write(given.json, {**conditions, **figures(same, slowed)})


if __name__ == "__main__":
    main()
