"""Slimming to 70 % and 50 % of the channels: what is left, how far the function moves, how much faster it runs.

Every zoo network and small networks of other families, with random weights: the graph with its weakest channels masked
against the graph with them cut out, in ONNX Runtime. Targets: an error of at most 1e-4 standard deviations of the
output, or, where float32 rounding alone exceeds that, 1e-9 in double precision; ResNet-50 analysed and rewritten in
under 3 s.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import onnxruntime
from architectures import ARCHITECTURES, examples_of, initialised
from exact import run_in_double
from masking import masked_pair, set_statistics
from onnx import ModelProto
from record import arguments, interleaved, paired_ratio, write
from torch import Tensor, nn

from sparsepack.exporters.slim import slim
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.lowering import to_onnx
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import InputSpec, TorchSource, load_source
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes.measure.parity import BOUND, compare

RATIOS = (0.3, 0.5)
Examples = Callable[[int, int], tuple[Tensor, ...]]


def session_of(model: ModelProto) -> Any:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def figures_of(module: nn.Module, spec: InputSpec, examples: Examples, runs: int) -> dict[str, Any]:
    """Return the figures of one network at every ratio."""
    dense = prepared(to_onnx(module, examples(2, 0), [spec]))
    dimensions = analyse(dense)
    groups = find_groups(dimensions)
    feeds = {spec.name: examples(16, 2)[0].numpy()}
    one = {spec.name: feeds[spec.name][:1]}
    figures = {}
    for ratio in RATIOS:
        settled, masked = masked_pair(module, examples(16, 1), dimensions, groups, ratio)
        before = settled.ByteSize()
        begin = time.perf_counter()
        slimmed = slim(settled, ratio)
        seconds = time.perf_counter() - begin
        sessions = {"masked": session_of(masked), "slim": session_of(slimmed.model)}
        outputs = {name: np.asarray(session.run(None, feeds)[0]) for name, session in sessions.items()}
        error = compare(outputs["masked"], outputs["slim"]).error
        exact = None
        if error is None or error > BOUND:
            exact = compare(*(run_in_double(model, feeds)[0] for model in (masked, slimmed.model))).error
        times = interleaved({name: partial(session.run, None, one) for name, session in sessions.items()}, runs, 3)
        account = slimmed.account
        figures[f"{ratio:.1f}"] = {
            "parameters": list(account.parameters),
            "macs": list(account.macs),
            "bytes": [before, slimmed.model.ByteSize()],
            "widths": sum(not row.pinned for row in account.groups),
            "error": error,
            "error_in_double": exact,
            "speedup": paired_ratio(times["masked"], times["slim"]),
            "seconds": round(seconds, 3),
        }
    return figures


def main() -> None:
    """Measure every network and write the record."""
    options = arguments(__doc__, runs=40)
    # Timing is on one thread; torch, which only sets BatchNorm statistics, may use all.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    figures = {}
    for name in ZOO:
        source = load_source(name)
        assert isinstance(source, TorchSource)
        module, (spec,) = source.build(), source.record.inputs
        initialise(module, "kaiming-normal", 0, "philox4x32-10")
        module.eval()
        set_statistics(module, source.example_inputs(16, 1))
        figures[name] = figures_of(module, spec, source.example_inputs, options.runs)
    for name, (build, spec) in ARCHITECTURES.items():

        def examples(batch: int, seed: int, spec: InputSpec = spec) -> tuple[Tensor, ...]:
            return examples_of(spec, batch, seed)

        figures[name] = figures_of(initialised(build), spec, examples, options.runs)
    write(options.json, figures)


if __name__ == "__main__":
    main()
