"""Slimming to 70 % and 50 % of the channels: what is left, how far the function moves, how much faster it runs.

Every zoo network, small networks of other families and, where the package is installed (``pip install transformers``),
networks of ``transformers``, all with random weights: the graph with its weakest channels masked against the graph with
them cut out, in ONNX Runtime. Targets: the ONNX checker and shape inference pass, inputs and outputs keep their shapes,
and an error of at most 1e-4 standard deviations of the output, or, where float32 rounding alone exceeds that, 1e-9 in
double precision; ResNet-50 analysed and rewritten in under 3 s. Each network's figures are kept under --folder and
taken up again, so that the command can be interrupted; --runs 0 leaves the times out.
"""

from __future__ import annotations

import importlib.util
import json
import os
import time
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import torch
import transformer_networks
from architectures import ARCHITECTURES, examples_of, initialised
from exact import run_in_double
from masking import masked_pair, set_statistics, twin_of
from onnx import ModelProto
from record import arguments, interleaved, paired_ratio, write
from torch import Tensor, nn

from sparsepack.exporters.slim import slim
from sparsepack.files import write_bytes
from sparsepack.models.graph.advice import explained
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.groups import find_groups
from sparsepack.models.graph.lowering import to_onnx
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import InputSpec, TorchSource, load_source
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes.measure.parity import BOUND, compare

RATIOS = (0.3, 0.5)
# ONNX Runtime lays channels out in blocks of 16 where the machine has AVX-512, of 8 elsewhere.
BLOCK = 16
Examples = Callable[[int, int], tuple[Tensor, ...]]
Network = tuple[nn.Module, InputSpec, Examples]


def networks() -> dict[str, Callable[[], Network]]:
    """Return what is measured: name -> builder."""
    found: dict[str, Callable[[], Network]] = {name: partial(_of_the_zoo, name) for name in ZOO}
    others = dict(ARCHITECTURES)
    if importlib.util.find_spec("transformers") is None:
        print("transformers is not installed: its networks are left out")
    else:
        others |= transformer_networks.NETWORKS
    for name, (build, spec) in others.items():
        found[name] = partial(_initialised, build, spec)
    return found


def _of_the_zoo(name: str) -> Network:
    source = load_source(name)
    assert isinstance(source, TorchSource)
    module, (spec,) = source.build(), source.record.inputs
    initialise(module, "kaiming-normal", 0, "philox4x32-10")
    module.eval()
    set_statistics(module, source.example_inputs(16, 1))
    return module, spec, source.example_inputs


def _initialised(build: Callable[[], nn.Module], spec: InputSpec) -> Network:
    return initialised(build), spec, partial(examples_of, spec)


def session_of(model: ModelProto) -> Any:
    """Return a session on one thread."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def figures_of(module: nn.Module, spec: InputSpec, examples: Examples, runs: int) -> dict[str, Any]:
    """Return the figures of one network at every ratio."""
    dense = prepared(to_onnx(module, examples(2, 0), [spec]))
    dimensions = analyse(dense)
    groups = find_groups(dimensions)
    feeds = {spec.name: examples(16, 2)[0].numpy()}
    one = {spec.name: feeds[spec.name][:1]}
    figures: dict[str, Any] = {}
    if all(group.pinned for group in groups):
        # Nothing may shrink: what stands in the way is the result.
        stays = [[units, why] for why, units in explained(_stays((group.pinned, group.width) for group in groups))]
        return {f"{ratio:.1f}": {"refused": True, "stays": stays} for ratio in RATIOS}
    for ratio in RATIOS:
        settled, masked = masked_pair(module, examples(16, 1), dimensions, groups, ratio)
        before, rounded = settled.ByteSize(), slim(twin_of(settled), ratio, round_to=BLOCK)
        begin = time.perf_counter()
        slimmed = slim(settled, ratio)
        seconds = time.perf_counter() - begin
        onnx.checker.check_model(slimmed.model, full_check=True)
        models = {"masked": masked, "slim": slimmed.model, "rounded": rounded.model}
        sessions = {name: session_of(model) for name, model in models.items()}
        outputs = {name: sessions[name].run(None, feeds) for name in ("masked", "slim")}
        shapes = [[x.shape for x in outputs[name]] for name in outputs]
        assert shapes[0] == shapes[1], shapes
        error, exact = _worst(outputs["masked"], outputs["slim"]), None
        if error is None or error > BOUND:
            exact = _worst(*(run_in_double(model, feeds) for model in (masked, slimmed.model)))
        tasks = {name: partial(session.run, None, one) for name, session in sessions.items()}
        times = interleaved(tasks, runs, 3) if runs else None
        account = slimmed.account
        figures[f"{ratio:.1f}"] = {
            "parameters": list(account.parameters),
            "macs": list(account.macs),
            "bytes": [before, slimmed.model.ByteSize()],
            "bytes_rounded": rounded.model.ByteSize(),
            "widths": sum(not row.pinned for row in account.groups),
            "blocked": sum(bool(row.blocked) for row in account.groups),
            "stays": [
                [units, why] for why, units in explained(_stays((row.pinned, row.units[1]) for row in account.groups))
            ],
            "not_followed": account.not_followed,
            "error": error,
            "error_in_double": exact,
            "speedup": times and paired_ratio(times["masked"], times["slim"]),
            "speedup_rounded": times and paired_ratio(times["masked"], times["rounded"]),
            "seconds": round(seconds, 3) if runs else None,
        }
    return figures


def _stays(groups: Iterable[tuple[tuple[str, ...], int]]) -> dict[str, int]:
    """Return why units stay: first reason of each pinned group -> units."""
    found: dict[str, int] = {}
    for pinned, width in groups:
        for reason in pinned[:1]:
            found[reason] = found.get(reason, 0) + width
    return found


def _worst(reference: list[Any], found: list[Any]) -> float | None:
    """Return the largest error over all outputs; None where an output does not depend on the input."""
    errors = [compare(np.asarray(a), np.asarray(b)).error for a, b in zip(reference, found, strict=True)]
    known = [error for error in errors if error is not None]
    return max(known) if len(known) == len(errors) else None


def main() -> None:
    """Measure every network and write the record."""
    options = arguments(__doc__, runs=40, folder="out/slimming")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    # Two pools of threads would spin against each other.
    torch.set_num_threads(1)
    figures = {}
    for name, network in networks().items():
        kept = Path(options.folder) / f"{name}.json"
        if not kept.exists():
            begin = time.perf_counter()
            row = figures_of(*network(), options.runs)
            kept.parent.mkdir(parents=True, exist_ok=True)
            write_bytes(kept, json.dumps(row).encode())
            print(f"{name}: {time.perf_counter() - begin:.0f} s", flush=True)
        figures[name] = json.loads(kept.read_text())
    write(options.json, figures)


if __name__ == "__main__":
    main()
