"""A model of what a layer costs dense and sparse, for choosing without measuring.

The time of a form of a layer is a sum of what it does, each at a rate of its own: calling it, multiplying, reading
weights, reading and writing activations. The rates are fitted to measured times of one machine (``benchmarks/
layer_grid.py``; one thread of a 2-core x86-64 machine with AVX-512); elsewhere the choice is a guess of the right kind
and may be wrong for layers where the two forms are close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field

from ...models.layer_costs import LayerShape

# The kernels compute so many positions at once, and the last of a layer may be partly empty.
_LANES = 16
# Nanoseconds for one of each of the quantities, in their order.
_RATES: dict[str, tuple[float, ...]] = {
    "dense 1x1": (6480.0, 0.0183, 0.0, 0.159, 0.151),
    "dense KxK": (4600.0, 0.018, 0.0, 0.227, 0.146),
    "dense 1-D": (4140.0, 0.0227, 0.0, 0.0, 0.0),
    "dense grouped": (6690.0, 0.0154, 0.0, 0.0, 1.15),
    "dense linear": (1770.0, 0.0186, 0.036, 0.0, 0.0),
    "sparse 1x1": (3850.0, 0.0282, 0.0, 0.156, 0.0895),
    "sparse KxK": (3630.0, 0.0279, 0.0, 0.409, 0.0844),
    "sparse 1-D": (3300.0, 0.0, 13.7, 0.0, 0.0317),
    "sparse grouped": (2830.0, 0.0256, 0.0, 1.28, 0.0),
    "sparse linear": (131.0, 0.027, 0.404, 0.166, 0.433),
}
FORMS = tuple(_RATES)


def form_of(layer: LayerShape) -> str:
    """Return which of :data:`FORMS` a layer is of."""
    return f"{'dense' if layer.density is None else 'sparse'} {_kind(layer)}"


def _kind(layer: LayerShape) -> str:
    """Return the kind of layer, each with code of its own in ONNX Runtime or in the operators."""
    if layer.operator != "Conv":
        return "linear"
    if layer.group > 1:
        return "grouped"
    kernel = layer.weight[2:]
    return "1-D" if len(kernel) == 1 else "1x1" if kernel == (1, 1) else "KxK"


def quantities(layer: LayerShape) -> tuple[float, ...]:
    """Return what a layer does: calls, multiply-adds, weights read, activations read, activations written."""
    weights, positions = float(math.prod(layer.weight)), float(layer.positions)
    outputs = layer.weight[0 if layer.operator == "Conv" or layer.transposed else 1]
    if layer.density is not None:
        weights *= layer.density
        positions = _LANES * math.ceil(positions / _LANES)
    return 1.0, weights * positions, weights, float(math.prod(layer.input)), outputs * positions


@dataclass(frozen=True)
class CostModel:
    """Predicts milliseconds of one core, and says how far the prediction is trusted.

    Attributes:
        rates: nanoseconds of every quantity, by form.
        margin: sparse is chosen where it is predicted to take less than this share of the dense time.
        most_kept: share of kept weights from which on nothing runs sparse, whatever is predicted.
        unknown_kept: share up to which a layer of unknown shape runs sparse.
    """

    rates: Mapping[str, tuple[float, ...]] = field(default_factory=lambda: _RATES)
    margin: float = 0.95
    most_kept: float = 0.5
    unknown_kept: float = 0.25

    def ms(self, layer: LayerShape) -> float:
        """Return the predicted milliseconds of a layer, dense or sparse as its shape says."""
        return 1e-6 * math.fsum(r * q for r, q in zip(self.rates[form_of(layer)], quantities(layer), strict=True))

    def prefers_sparse(self, dense_ms: float, sparse_ms: float) -> bool:
        """Tell whether predicted times are far enough apart to choose sparse."""
        return sparse_ms < self.margin * dense_ms


# For tests, and for measuring what would not be chosen.
ALWAYS_SPARSE = CostModel(margin=math.inf, most_kept=1.0, unknown_kept=1.0)
