"""Times of single nodes of an artifact in ONNX Runtime: where the milliseconds of a run go."""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any

from ..files import Array
from .onnx_profile import profiling
from .onnx_session import OnnxRuntime, OnnxSession, open_session, session_options
from .onnx_sparse import OnnxRuntimeSparse

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from .base import Runtime

_WARMUP, _LEAST_RUNS, _MOST_RUNS = 3, 5, 200


def layer_times(
    artifact: Artifact, runtime: Runtime, inputs: tuple[Array, ...], *, threads: int, budget: float
) -> list[dict[str, Any]]:
    """Return what every node of a graph takes, in the order in which they run.

    Args:
        artifact: an ONNX graph.
        runtime: one of ONNX Runtime's; others tell no times of nodes and give an empty list.
        inputs: one array for each input.
        threads: of a run.
        budget: seconds for all runs; a few are made in any case.

    Returns:
        For each node ``name`` and ``operator`` (ONNX Runtime's own, after its optimisations), ``ms`` (the median) and
        ``share`` of all nodes' time. Measuring adds a few microseconds a node to a run, which are in none of the times.

    Raises:
        FileFormatError: ONNX Runtime cannot load the file.
        RuntimeUnavailableError: it cannot load it on the runtime's provider.
        UnsupportedError: the graph does not compute on these inputs.
    """
    if not isinstance(runtime, OnnxRuntime | OnnxRuntimeSparse):
        return []
    options = runtime.options(threads) if isinstance(runtime, OnnxRuntimeSparse) else session_options(threads)
    with profiling(options) as profiles:
        session = profiles.open(lambda opened: open_session(artifact.path, runtime.name, runtime.providers, opened))
        runner = OnnxSession(session)
        begin, runs = time.perf_counter(), 0
        while runs < _WARMUP + _LEAST_RUNS or (runs < _MOST_RUNS and time.perf_counter() - begin < budget):
            runner.run(*inputs)
            runs += 1
        nodes = profiles.finish(session)
    medians = [statistics.median(node.milliseconds[_WARMUP:]) for node in nodes]
    whole = sum(medians) or 1.0
    return [
        {"name": node.name, "operator": node.operator, "ms": round(median, 4), "share": round(median / whole, 4)}
        for node, median in zip(nodes, medians, strict=True)
    ]
