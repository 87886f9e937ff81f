"""ResNet-50 at 50 % of the channels: our slimmed graph against the one that Torch-Pruning gives.

The peer is optional: ``pip install torch-pruning==1.6.1 --no-deps``. Both remove half of the channels by the L1 norm of
their filters; both graphs are lowered, counted and run by the same code, on one thread, run by run in turn. Targets:
parameters and multiply-accumulates within 2 % of the peer's, latency no worse; with ``--target-latency``'s choice of
widths, at no more parameters than the peer's, faster.
"""

from __future__ import annotations

import copy
import importlib.metadata
import os
from functools import partial
from pathlib import Path
from typing import Any

import torch
from masking import set_statistics, twin_of
from onnx import ModelProto
from record import arguments, interleaved, paired_ratio, summary, write
from slimming import session_of
from torch import nn

from sparsepack.exporters.slim import scores_of, slim
from sparsepack.exporters.slim_cut import plan
from sparsepack.exporters.slim_latency import LatencyTarget
from sparsepack.exporters.slim_target import Problem
from sparsepack.models.graph.dimensions import Dimensions, analyse
from sparsepack.models.graph.groups import find_groups, select
from sparsepack.models.graph.lowering import to_onnx
from sparsepack.models.graph.prepare import prepared
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import InputSpec, TorchSource, load_source
from sparsepack.runtimes.tune import cost_source

RATIO = 0.5
_HALVINGS = 8


def peers_graph(module: nn.Module, example: torch.Tensor, spec: InputSpec) -> ModelProto:
    """Return the graph of a copy of ``module`` that the peer has pruned."""
    import torch_pruning

    pruned = copy.deepcopy(module)
    classifier = [layer for layer in pruned.modules() if isinstance(layer, nn.Linear)]
    pruner = torch_pruning.pruner.MagnitudePruner(
        pruned,
        example,
        importance=torch_pruning.importance.MagnitudeImportance(p=1),
        pruning_ratio=RATIO,
        ignored_layers=classifier,
    )
    pruner.step()
    return to_onnx(pruned.eval(), (example,), [spec])


def by_latency(dense: ModelProto, parameters: int, costs: Path) -> dict[str, float]:
    """Return the shares of the least-narrowed choice by measured layers with at most so many parameters."""
    measure = cost_source(costs, tune=True, threads=1)
    assert measure is not None
    dimensions = analyse(dense)
    groups = find_groups(dimensions)
    problem = Problem(dimensions, groups, scores_of(dimensions, groups, "l1"))
    low, high = 0.05, 1.0
    best: dict[str, float] = {}
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        shares = LatencyTarget(middle, False, measure).shares(problem)
        removed = select(groups, problem.scores, shares)
        if _parameters(dimensions, removed) <= parameters:
            best, low = shares, middle
        else:
            high = middle
    return best


def _parameters(dimensions: Dimensions, removed: frozenset[int]) -> int:
    _, cut = plan(dimensions, removed)
    total = 0
    for tensor in dimensions.model.graph.initializer:
        count = 1
        for extent in cut.extents(tensor.name) if tensor.name in cut.kept else tensor.dims:
            count *= extent
        total += count if tensor.data_type == tensor.FLOAT else 0
    return total


def main() -> None:
    """Measure both and write the record."""
    options = arguments(__doc__, runs=60, costs="out/slimming/resnet-50-costs.json")
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    torch.set_num_threads(1)
    source = load_source("resnet-50")
    assert isinstance(source, TorchSource)
    module, (spec,) = source.build(), source.record.inputs
    initialise(module, "kaiming-normal", 0, "philox4x32-10")
    set_statistics(module, source.example_inputs(4, 1))
    (example,) = source.example_inputs(1, 0)
    dense = prepared(to_onnx(module, (example,), [spec]))
    theirs = prepared(peers_graph(module, example, spec))
    counts = {name: slim(twin_of(graph)).account for name, graph in (("dense", dense), ("peer", theirs))}
    halved = slim(twin_of(dense), RATIO)
    Path(options.costs).parent.mkdir(parents=True, exist_ok=True)
    shares = by_latency(dense, counts["peer"].parameters[0], Path(options.costs))
    chosen = slim(twin_of(dense), shares)
    sessions = {
        name: session_of(graph)
        for name, graph in (("dense", dense), ("peer", theirs), ("ours", halved.model), ("by latency", chosen.model))
    }
    feeds = {spec.name: example.numpy()}
    times = interleaved(
        {name: partial(session.run, None, feeds) for name, session in sessions.items()}, options.runs, 3
    )
    figures: dict[str, Any] = {"peer": f"torch-pruning {importlib.metadata.version('torch-pruning')}", "ratio": RATIO}
    sizes = {
        "dense": (counts["dense"].parameters[0], counts["dense"].macs[0]),
        "peer": (counts["peer"].parameters[0], counts["peer"].macs[0]),
        "ours": (halved.account.parameters[1], halved.account.macs[1]),
        "by latency": (chosen.account.parameters[1], chosen.account.macs[1]),
    }
    figures["graphs"] = {
        name: {"parameters": sizes[name][0], "macs": sizes[name][1], **summary(times[name])} for name in sessions
    }
    figures["peer over ours"] = paired_ratio(times["peer"], times["ours"])
    figures["peer over by latency"] = paired_ratio(times["peer"], times["by latency"])
    write(options.json, figures)


if __name__ == "__main__":
    main()
