"""Speedup of single layers against their sparsity, 50 to 99 %: convolutions and linear layers of the usual sizes.

Each layer alone in ONNX Runtime, dense and sparse in turn (``sparsepack.runtimes.tune``), one thread and two. What is
measured is kept in a table for each number of threads; the same command goes on from there, ``--minutes`` bounds one
call.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from layers import convolution, linear, measured
from record import RESULTS, arguments, write

from sparsepack.models.layer_costs import LayerShape

SPARSITIES = (0.5, 0.6, 0.7, 0.8, 0.85, 0.9, 0.95, 0.98, 0.99)
LAYERS: dict[str, LayerShape] = {
    "1x1, 64 to 256, 56x56": convolution((64, 256), 56, 1),
    "1x1, 1024 to 256, 14x14": convolution((1024, 256), 14, 1),
    "1x1, 2048 to 512, 7x7": convolution((2048, 512), 7, 1),
    "3x3, 64 to 64, 56x56": convolution((64, 64), 56, 3),
    "3x3, 256 to 256, 14x14": convolution((256, 256), 14, 3),
    "3x3, 512 to 512, 7x7": convolution((512, 512), 7, 3),
    "3x3, 128 to 128, 56x56, stride 2": convolution((128, 128), 56, 3, stride=2),
    "linear, 384 to 1536, 128 tokens": linear((1, 128), 384, 1536),
    "linear, 1536 to 384, 128 tokens": linear((1, 128), 1536, 384),
    "linear, 768 to 768, 512 tokens": linear((1, 512), 768, 768),
    "linear, 1024 to 1024, 1 token": linear((1,), 1024, 1024),
}


def main() -> None:
    """Measure what is missing and write the record."""
    options = arguments(__doc__, threads="1,2", minutes=20.0, tables=str(RESULTS), fresh=False)
    figures: dict[str, Any] = {"sparsities": SPARSITIES, "threads": {}}
    for threads in map(int, options.threads.split(",")):
        path = Path(options.tables) / f"layer_curves_costs_{threads}.json"
        shapes = list(LAYERS.values())
        table = measured(path, shapes, SPARSITIES, threads=threads, minutes=options.minutes, fresh=options.fresh)
        if table is None:
            return
        rows = figures["threads"][str(threads)] = {}
        for name, shape in LAYERS.items():
            dense = table.costs[shape]
            sparse = [table.costs[shape.sparse(1 - sparsity)] for sparsity in SPARSITIES]
            rows[name] = {
                "dense_ms": dense.ms,
                "sparse_ms": [cost.ms for cost in sparse],
                "speedup": [round(dense.ms / cost.ms, 3) for cost in sparse],
                "speedup_within_dense_layers": [round(dense.inner_ms / cost.ms, 3) for cost in sparse],
            }
    write(options.json, figures)


if __name__ == "__main__":
    main()
