"""How long a whole ONNX graph takes here: the check on what is predicted from single layers."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

from ..errors import RuntimeUnavailableError, UnsupportedError
from ..files import Array
from ..models.graph.shapes import read_shapes
from .onnx_session import session_errors, session_options
from .tune import undisturbed

if TYPE_CHECKING:
    import onnx

_WARMUP = 3
_LEAST_RUNS = 8


def graph_ms(
    model: onnx.ModelProto,
    *,
    threads: int,
    batch: int = 1,
    seconds: float = 2.0,
    clock: Callable[[], float] = time.perf_counter,
) -> float:
    """Return the milliseconds of one run of a graph: the mean of the fastest quarter, as layers are measured.

    Args:
        model: any ONNX graph below 2 GB; inputs are random, whole numbers zero.
        threads: of a run.
        batch: the first extent of inputs where the graph leaves it open.
        seconds: for all runs; a few are made in any case.
        clock: a monotonic clock in seconds.

    Raises:
        UnsupportedError: the extents of an input are not known.
        RuntimeUnavailableError: ONNX Runtime refuses the graph.
    """
    import onnxruntime

    feeds = example_feeds(model, batch)
    try:
        session = onnxruntime.InferenceSession(
            model.SerializeToString(), session_options(threads), providers=["CPUExecutionProvider"]
        )
        for _ in range(_WARMUP):
            session.run(None, feeds)
        times: list[float] = []
        begin = clock()
        while len(times) < _LEAST_RUNS or clock() - begin < seconds:
            start = clock()
            session.run(None, feeds)
            times.append(1e3 * (clock() - start))
    except session_errors() as error:
        raise RuntimeUnavailableError(f"ONNX Runtime cannot run the graph: {error}") from error
    return undisturbed(times)


def example_feeds(model: onnx.ModelProto, batch: int) -> dict[str, Array]:
    """Return random inputs for a graph, of the extents that the analysis assumes where it leaves them open."""
    import onnx

    shapes = read_shapes(model)
    weights = {tensor.name for tensor in model.graph.initializer}
    random = np.random.default_rng(0)
    feeds: dict[str, Array] = {}
    for value in model.graph.input:
        if value.name in weights:
            continue
        if value.name not in shapes.extents:
            raise UnsupportedError(f"the extents of the graph's input '{value.name}' are not known.")
        extents = list(shapes.extents[value.name])
        if extents and shapes.dynamic[value.name][0]:
            extents[0] = batch
        kind = onnx.helper.tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type)
        floats = kind.kind in "fV"
        feeds[value.name] = random.standard_normal(extents).astype(kind) if floats else np.zeros(extents, kind)
    return feeds
