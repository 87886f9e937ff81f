"""Choosing which layers run sparse: a model of what each form costs, from rates of one measured machine.

The rates are those of a 2-core x86-64 machine with AVX-512 at batch 1; elsewhere the choice is a guess of the right
kind and may be wrong for layers where the two forms are close.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import msgspec
import numpy as np

from .graph import Extent, Graph
from .match import Layer


class LayerChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of one layer with constant weights.

    Attributes:
        weight: the weight's name.
        operator: of the original graph.
        sparsity: the share of weights that are zero.
        sparse: whether it runs sparse.
        reason: why, in a few words.
        macs: multiply-adds of the dense layer for one example; None where its shapes are not known.
        dense_ms: predicted milliseconds on one core, dense; None where the shapes are not known.
        sparse_ms: the same, sparse.
    """

    weight: str
    operator: str
    sparsity: float
    sparse: bool
    reason: str
    macs: int | None = None
    dense_ms: float | None = None
    sparse_ms: float | None = None


@dataclass(frozen=True)
class CostModel:
    """Predicts milliseconds of one core.

    Attributes:
        dense_gflops: rate of ONNX Runtime's dense layers.
        sparse_gflops: rate of the operators on the kept weights.
        copy_gbytes: activations copied into the kernels' layout.
        call_ms: of any node.
        most_kept: share of kept weights from which on nothing runs sparse, whatever is predicted.
        unknown_kept: share up to which a layer of unknown shape runs sparse.
    """

    dense_gflops: float = 105.0
    sparse_gflops: float = 70.0
    copy_gbytes: float = 25.0
    call_ms: float = 0.004
    most_kept: float = 0.5
    unknown_kept: float = 0.25

    def dense(self, macs: float) -> float:
        """Return the milliseconds of a dense layer."""
        return 2e-6 * macs / self.dense_gflops + self.call_ms

    def sparse(self, macs: float, density: float, copied_bytes: float) -> float:
        """Return the milliseconds of a sparse layer."""
        return 2e-6 * macs * density / self.sparse_gflops + 1e-6 * copied_bytes / self.copy_gbytes + self.call_ms


def choose(graph: Graph, layer: Layer, costs: CostModel) -> LayerChoice:
    """Decide on one layer."""
    density = float(np.count_nonzero(layer.weight)) / layer.weight.size
    work = _work(graph, layer)

    def answer(sparse: bool, reason: str) -> LayerChoice:
        return LayerChoice(
            weight=layer.weight_name,
            operator=layer.nodes[0].op_type,
            sparsity=round(1 - density, 4),
            sparse=sparse,
            reason=reason,
            macs=None if work is None else work[0],
            dense_ms=None if work is None else round(costs.dense(work[0]), 4),
            sparse_ms=None if work is None else round(costs.sparse(work[0], density, work[1]), 4),
        )

    if density > costs.most_kept:
        return answer(False, f"keeps more than {100 * costs.most_kept:.0f} % of its weights")
    if work is None:
        return answer(density <= costs.unknown_kept, "shapes are not known before it runs; chosen by sparsity alone")
    faster = costs.sparse(work[0], density, work[1]) < costs.dense(work[0])
    return answer(faster, "predicted faster" if faster else "predicted slower")


def _work(graph: Graph, layer: Layer) -> tuple[int, float] | None:
    """Return multiply-adds of the dense layer for one example, and the bytes that the sparse one copies."""
    out = graph.shapes.get(layer.nodes[0].output[0])
    if not out:
        return None
    extents: list[Extent] = out[2:] if layer.convolution else out[1:-1]
    if not all(isinstance(extent, int) for extent in extents):
        return None
    positions = math.prod(extent for extent in extents if isinstance(extent, int))
    if layer.convolution:
        copied = layer.weight.shape[1] * layer.weight.shape[-1]
    else:
        copied = sum(layer.weight.shape)
    return positions * layer.weight.size, 8.0 * positions * copied
