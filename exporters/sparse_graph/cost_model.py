"""A model of what a layer costs dense and sparse, for choosing without measuring.

The time of a form of a layer is a sum of what it does, each at a rate of its own: calling it, multiplying, reading
weights, reading and writing activations. The rates in ``rates.json`` are fitted to measured times of one machine
(``benchmarks/layer_grid.py``; one thread of a 2-core x86-64 machine with AVX-512); elsewhere the choice is a guess of
the right kind and may be wrong for layers where the two forms are close.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from ...models.layer_costs import LayerShape

# The kernels compute so many positions at once, and the last of a layer may be partly empty.
_LANES = 16
# Nanoseconds for one of each of the quantities, in their order, by form; written by benchmarks/layer_grid.py --adopt.
RATES_FILE = Path(__file__).with_name("rates.json")
_RATES: dict[str, tuple[float, ...]] = msgspec.json.decode(RATES_FILE.read_bytes(), type=dict[str, tuple[float, ...]])
FORMS = tuple(_RATES)


def form_of(layer: LayerShape) -> str:
    """Return which of :data:`FORMS` a layer is of."""
    return f"{'dense' if layer.density is None else 'sparse'} {_kind(layer)}"


def _kind(layer: LayerShape) -> str:
    """Return the kind of layer, each with code of its own in ONNX Runtime or in the operators."""
    if layer.left and layer.input[-1] > 1:
        return "left"
    if layer.operator != "Conv":
        return "vector" if layer.positions == 1 else "linear"
    if layer.group > 1:
        return "grouped"
    kernel = layer.weight[2:]
    return ("1" if kernel == (1,) else "K") if len(kernel) == 1 else "1x1" if kernel == (1, 1) else "KxK"


def quantities(layer: LayerShape) -> tuple[float, ...]:
    """Return what a layer does: calls, multiply-adds, weights read, activations read, activations written."""
    weights, positions = float(math.prod(layer.weight)), float(layer.positions)
    outputs = layer.weight[0 if layer.operator == "Conv" or layer.transposed else 1]
    if layer.density is not None:
        weights *= layer.density
        # A single token has a kernel of its own, across outputs.
        run = float(layer.input[-1]) if _kind(layer) == "left" else positions
        positions *= _LANES * math.ceil(run / _LANES) / run if positions > 1 else 1.0
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
    margin: float = 0.85
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
