"""A model of what a layer costs dense and sparse, for choosing without measuring.

The rates are those of a 2-core x86-64 machine with AVX-512; elsewhere the choice is a guess of the right kind and may
be wrong for layers where the two forms are close.
"""

from __future__ import annotations

from dataclasses import dataclass

from ...models.layer_costs import LayerShape


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

    def ms(self, layer: LayerShape) -> float:
        """Return the predicted milliseconds of a layer, dense or sparse as its shape says."""
        if layer.density is None:
            return 2e-6 * layer.macs / self.dense_gflops + self.call_ms
        copied = layer.weight[1] * layer.weight[-1] if layer.operator == "Conv" else sum(layer.weight)
        copied_bytes = 8.0 * layer.positions * copied
        kept = layer.macs * layer.density
        return 2e-6 * kept / self.sparse_gflops + 1e-6 * copied_bytes / self.copy_gbytes + self.call_ms
