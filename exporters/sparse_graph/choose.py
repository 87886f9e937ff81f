"""Choosing which layers run sparse: by measured costs where there are any, otherwise by a model of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec
import numpy as np

from ...models.layer_costs import CostTable, LayerShape
from .cost_model import CostModel
from .graph import Graph
from .match import Layer
from .shape import layer_shape

# Given the layers of a network in both forms, returns what is known of them.
Measure = Callable[[Sequence[LayerShape]], CostTable]


class LayerChoice(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What became of one layer with constant weights.

    Attributes:
        weight: the weight's name.
        operator: of the original graph.
        sparsity: the share of weights that are zero.
        sparse: whether it runs sparse.
        reason: why, in a few words.
        macs: multiply-adds of the dense layer for one example; None where its shapes are not known.
        dense_ms: milliseconds of one run dense, measured or predicted for one core; None where they are not known.
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


def choose(
    graph: Graph, layers: Sequence[Layer], costs: CostModel, measure: Measure | None, batch: int
) -> list[LayerChoice]:
    """Decide on all layers of a network.

    Args:
        graph: that the layers are of.
        layers: as matched.
        costs: the model that predicts what is not measured.
        measure: asked once, for every layer whose costs decide; None predicts everything.
        batch: examples a run, where the graph leaves it open.
    """
    shapes = [layer_shape(graph, layer, batch) for layer in layers]
    densities = [float(np.count_nonzero(layer.weight)) / layer.weight.size for layer in layers]
    table = CostTable({})
    if measure is not None:
        asked = [
            form
            for shape, density in zip(shapes, densities, strict=True)
            if shape is not None and density <= costs.most_kept
            for form in (shape, shape.sparse(density))
        ]
        table = measure(asked)
    return [
        _choose(layer, shape, density, costs, table)
        for layer, shape, density in zip(layers, shapes, densities, strict=True)
    ]


def _choose(layer: Layer, shape: LayerShape | None, density: float, costs: CostModel, table: CostTable) -> LayerChoice:
    def answer(sparse: bool, reason: str, dense_ms: float | None = None, sparse_ms: float | None = None) -> LayerChoice:
        return LayerChoice(
            weight=layer.weight_name,
            operator=layer.nodes[0].op_type,
            sparsity=round(1 - density, 4),
            sparse=sparse,
            reason=reason,
            macs=None if shape is None else shape.macs // shape.examples,
            dense_ms=None if dense_ms is None else round(dense_ms, 4),
            sparse_ms=None if sparse_ms is None else round(sparse_ms, 4),
        )

    if shape is None:
        if density > costs.most_kept:
            return answer(False, _too_dense(costs))
        return answer(density <= costs.unknown_kept, "shapes are not known before it runs; chosen by sparsity alone")
    measured = (table.find(shape), table.find(shape.sparse(density)))
    if measured[0] is not None and measured[1] is not None:
        dense_ms, sparse_ms = measured[0].ms, measured[1].ms
        faster = sparse_ms < dense_ms
        return answer(faster, f"measured {'faster' if faster else 'slower'}", dense_ms, sparse_ms)
    dense_ms, sparse_ms = costs.ms(shape), costs.ms(msgspec.structs.replace(shape, density=density))
    if density > costs.most_kept:
        return answer(False, _too_dense(costs), dense_ms, sparse_ms)
    faster = costs.prefers_sparse(dense_ms, sparse_ms)
    close = not faster and sparse_ms < dense_ms
    return answer(
        faster, f"predicted {'too close' if close else 'faster' if faster else 'slower'}", dense_ms, sparse_ms
    )


def _too_dense(costs: CostModel) -> str:
    return f"keeps more than {100 * costs.most_kept:.0f} % of its weights"
