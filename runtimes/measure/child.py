"""The child process of :mod:`.memory`: load one artifact, run it once, write load time and peak memory as JSON.

Run as ``python -m sparsepack.runtimes.measure.child ARTIFACT RUNTIME ANSWER.json [--threads N] [--batch N]
[--model MODEL]``. The answer goes to a file because a user's factory may print.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

import numpy as np

from ...errors import SparsepackError
from .memory import REFUSED

_STATUS = Path("/proc/self/status")


def main() -> int:
    """Do what the module's description says; return the exit code."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("artifact", type=Path)
    parser.add_argument("runtime")
    parser.add_argument("answer", type=Path)
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--batch", type=int, default=1)
    parser.add_argument("--model")
    arguments = parser.parse_args()
    try:
        fields = measure(arguments.artifact, arguments.runtime, arguments.threads, arguments.batch, arguments.model)
    except SparsepackError as error:
        print(error, file=sys.stderr)
        return REFUSED
    arguments.answer.write_text(json.dumps(fields))
    return 0


def measure(artifact: Path, runtime_name: str, threads: int, batch: int, model: str | None) -> dict[str, object]:
    """Return ``load_ms`` and ``peak_rss_bytes`` of loading and one run in this process, and whether that was finite.

    The peak is that of the first loading, the time that of a second one: the first also imports the frameworks, which
    belongs to the process and not to the artifact.
    """
    from ...exporters import open_artifact
    from .. import find_runtime, require_available
    from .inputs import example_inputs
    from .sources import typed_source

    runtime = find_runtime(runtime_name)
    require_available(runtime)
    source = typed_source(open_artifact(artifact).model, model) if runtime.needs_source else None

    def load_and_run() -> tuple[float, bool]:
        begin = time.perf_counter()
        opened = open_artifact(artifact)
        session = runtime.load(opened, threads=threads, source=source)
        elapsed = time.perf_counter() - begin
        output = session.run(*example_inputs(opened, session, batch))
        return elapsed, bool(np.isfinite(output).all())

    _, finite = load_and_run()
    peak = peak_rss()
    return {"load_ms": load_and_run()[0] * 1e3, "peak_rss_bytes": peak, "finite": finite}


def peak_rss() -> int | None:
    """Return the peak resident memory of this process in bytes, or None where the system does not tell.

    Linux: VmHWM. Not getrusage's ru_maxrss, which a child inherits from the parent that started it and which would
    report the parent's memory here.
    """
    try:
        lines = _STATUS.read_text().splitlines()
    except OSError:
        return _peak_rss_elsewhere()
    for line in lines:
        if line.startswith("VmHWM:"):
            return int(line.split()[1]) * 1024
    return None


def _peak_rss_elsewhere() -> int | None:
    """Return what getrusage says on macOS (bytes there) and None on systems without it."""
    if sys.platform != "darwin":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss


if __name__ == "__main__":
    sys.exit(main())
