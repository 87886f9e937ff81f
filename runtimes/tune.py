"""Measuring single layers on this machine: shapes in, a table of milliseconds out.

Each layer is a model of one node in ONNX Runtime, timed by the runtime's own profile, which leaves out what calling a
session costs. The forms of one layer (dense, and sparse at each density) take turns within a run of the group, and the
groups take turns in rounds that load everything afresh, so that neither drift of the machine nor where an array happens
to lie decides. Nothing here chooses: the table goes to whoever does (``compress export --tune``).
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import RuntimeUnavailableError
from ..exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from ..exporters.sparse_graph.rewrite import rewrite
from ..files import sha256_file
from ..models.layer_costs import CostTable, LayerCost, LayerShape
from .measure.environment import current_environment
from .native import instruction_set, library_path, unavailable
from .onnx_profile import NodeTimes, profiling
from .onnx_session import session_errors, session_options

if TYPE_CHECKING:
    import onnx

    from ..compressor.progress import Progress
    from ..exporters.sparse_graph.choose import Measure

ROUNDS = 3
# Of one layer in one round. A layer of 1 ms is run 40 times in all, one of 50 ms 12 times.
SECONDS = 0.015
LEAST_RUNS, MOST_RUNS = 4, 60
_WARMUP = 2
# A one-node model of more weights than this does not fit protobuf's 2 GB.
MOST_WEIGHTS = 2**28


def conditions(threads: int) -> dict[str, Any]:
    """Return what the times of layers depend on beside their shapes; tables of other conditions are not mixed."""
    environment = current_environment(threads)
    reason = unavailable()
    return {
        "cpu": environment["cpu"],
        "threads": threads,
        "onnxruntime": environment["versions"]["onnxruntime"],
        "operators": None if reason else sha256_file(library_path())[:16],
        "instruction_set": None if reason else instruction_set(),
    }


def measure_layers(
    layers: Iterable[LayerShape],
    *,
    threads: int,
    known: CostTable | None = None,
    rounds: int = ROUNDS,
    seconds: float = SECONDS,
    progress: Progress | None = None,
    clock: Callable[[], float] = time.perf_counter,
) -> CostTable:
    """Measure every layer that is not known yet.

    Args:
        layers: what to measure; repetitions are measured once. Layers above :data:`MOST_WEIGHTS` weights are left out.
        threads: of a run.
        known: costs from before, taken under the same :func:`conditions`.
        rounds: how often every layer is loaded and timed.
        seconds: for one layer in one round; a few runs are made in any case.
        progress: told of every group of layers.
        clock: a monotonic clock in seconds, for the budget alone.

    Returns:
        The known costs and the new ones.

    Raises:
        RuntimeUnavailableError: sparse layers are asked for and the native operators are not there, or ONNX Runtime
            refuses a layer.
    """
    table = known or CostTable(conditions(threads))
    missing = _missing(layers, table)
    groups: dict[LayerShape, list[LayerShape]] = {}
    for layer in missing:
        groups.setdefault(layer.dense(), []).append(layer)
    runs: dict[LayerShape, list[tuple[float, float]]] = {layer: [] for layer in missing}
    if progress is not None and groups:
        progress.stage("measure layers", rounds * len(groups))
    for _ in range(rounds):
        for group in groups.values():
            for layer, found in zip(group, _time_group(group, threads, seconds, clock), strict=True):
                runs[layer] += found
            if progress is not None:
                progress.advance()
    return table.with_costs(_cost(layer, found) for layer, found in runs.items())


def cost_source(path: Path | None, *, tune: bool, threads: int, progress: Progress | None = None) -> Measure | None:
    """Return what answers an exporter that asks for layers' costs.

    Args:
        path: a cost table; with ``tune`` it need not exist, and takes what is measured.
        tune: whether layers that the table lacks are measured.
        threads: of a run.
        progress: told of every group of layers.

    Returns:
        None where there is neither a table nor anything to measure.

    Raises:
        FileFormatError: the table cannot be read.
        UsageError: new measurements would be mixed with those of other conditions.

    What is returned raises SparsepackError before measuring where the table cannot be written.
    """
    if path is None and not tune:
        return None
    here = conditions(threads) if tune else {}
    table = CostTable.load(path) if path is not None and (path.exists() or not tune) else CostTable(here)
    if not tune:
        return lambda layers: table
    if path is not None:
        table.require(here, path)

    def measure(layers: Sequence[LayerShape]) -> CostTable:
        nonlocal table
        if path is not None and _missing(layers, table):
            # Whether it can be written is asked before the minutes that measuring takes.
            table.save(path)
        found = measure_layers(layers, threads=threads, known=table, progress=progress)
        if path is not None and len(found.costs) > len(table.costs):
            found.save(path)
        # Who asks again, at other widths, keeps what was measured before.
        table = found
        return table

    return measure


def _missing(layers: Iterable[LayerShape], table: CostTable) -> list[LayerShape]:
    return [layer for layer in dict.fromkeys(layers) if table.find(layer) is None and _fits(layer)]


def _fits(layer: LayerShape) -> bool:
    return int(np.prod(layer.weight, dtype=np.int64)) <= MOST_WEIGHTS


def _time_group(
    group: Sequence[LayerShape], threads: int, seconds: float, clock: Callable[[], float]
) -> list[list[tuple[float, float]]]:
    """Return (all nodes, nodes that do not merely reorder) in milliseconds for every run of every layer."""
    options = session_options(threads)
    if any(layer.density is not None for layer in group):
        options.register_custom_ops_library(str(library_path()))
    shape = group[0].input
    inputs = {"x": np.random.default_rng(0).standard_normal(shape, np.float32)}
    with profiling(options) as profiles:
        sessions = [profiles.open(partial(_load, layer)) for layer in group]
        for session in sessions:
            for _ in range(_WARMUP):
                session.run(None, inputs)
        begin, turns = clock(), 0
        while turns < LEAST_RUNS or (turns < MOST_RUNS and clock() - begin < seconds * len(group)):
            # Backwards every other time, so that nobody always runs in the cache that the same neighbour left behind.
            for session in sessions[:: -1 if turns % 2 else 1]:
                session.run(None, inputs)
            turns += 1
        return [_runs(profiles.finish(session)) for session in sessions]


def _load(layer: LayerShape, options: Any) -> Any:
    import onnxruntime

    content = one_node_model(layer).SerializeToString()
    try:
        return onnxruntime.InferenceSession(content, options, providers=["CPUExecutionProvider"])
    except session_errors() as error:
        raise RuntimeUnavailableError(f"ONNX Runtime cannot run a layer {layer}: {error}") from error


def _runs(nodes: Sequence[NodeTimes]) -> list[tuple[float, float]]:
    every = [sum(parts) for parts in zip(*(node.milliseconds for node in nodes), strict=True)]
    inner = [sum(p) for p in zip(*(node.milliseconds for node in nodes if not node.reorders), strict=True)]
    return list(zip(every, inner, strict=True))[_WARMUP:]


def _cost(layer: LayerShape, runs: Sequence[tuple[float, float]]) -> LayerCost:
    every, inner = ([run[place] for run in runs] for place in (0, 1))
    median = statistics.median(every)
    return LayerCost(layer, round(undisturbed(every), 5), round(undisturbed(inner), 5), round(median, 5), len(runs))


def undisturbed(times: Sequence[float]) -> float:
    """Return the mean of the fastest quarter; a mean, because the profile counts in whole microseconds."""
    ordered = sorted(times)
    return statistics.fmean(ordered[: max(1, len(ordered) // 4)])


def one_node_model(layer: LayerShape, seed: int = 0) -> onnx.ModelProto:
    """Return the model of one layer with seeded random weights: the dense operator and its bias, or our sparse one."""
    from onnx import TensorProto, helper, numpy_helper

    rng = np.random.default_rng(seed)
    weight = rng.standard_normal(layer.weight, np.float32)
    if layer.density is not None:
        empty = rng.permutation(weight.size)[round(layer.density * weight.size) :]
        weight.reshape(-1)[empty] = 0.0
    constants = {"w": weight}
    names = ["x", "w"]
    attributes: dict[str, Any] = {}
    nodes = []
    if layer.operator == "Conv":
        given = {"strides": layer.strides, "pads": layer.pads, "dilations": layer.dilations}
        attributes = {"group": layer.group} | {name: list(value) for name, value in given.items() if value}
    elif layer.operator == "Gemm":
        attributes = {"transA": int(not layer.transposed)} if layer.left else {"transB": int(layer.transposed)}
    elif layer.transposed != layer.left:
        nodes.append(helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]))
        names = ["x", "t"]
    if layer.left:
        names.reverse()
    if layer.operator != "MatMul":
        outputs = layer.weight[0 if layer.operator == "Conv" or layer.transposed else 1]
        constants["b"] = np.zeros((outputs, 1) if layer.left else outputs, np.float32)
        names.append("b")
    nodes.append(helper.make_node(layer.operator, names, ["y"], **attributes))
    graph = helper.make_graph(
        nodes,
        "layer",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, layer.input)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model if layer.density is None else rewrite(model, costs=ALWAYS_SPARSE).model
