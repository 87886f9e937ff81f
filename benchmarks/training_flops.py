"""Erdos-Renyi-kernel densities, sizes and training operations of ResNet-50, beside the table of Evci et al. 2020."""

from __future__ import annotations

from typing import Any

import torch
from record import arguments, write

from sparsepack.compressor.allocation import densities, kept_count
from sparsepack.compressor.cost import forward_flops, network_bytes, rigl_average_flops, sparse_momentum_step_flops
from sparsepack.compressor.schedule import cubic
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.models.flops import layer_macs
from sparsepack.models.prunable import PrunableTensor, prunable_tensors
from sparsepack.models.zoo import ZOO

STEPS, BEGIN, END = 32_000, 10_000, 25_000
# Share of the dense training's operations, and megabytes; as published (two decimals).
PUBLISHED = {
    "0.8": {
        "erk": 0.42, "uniform": 0.23, "erk_mb": 23.683, "uniform_mb": 23.685, "snfs_erk": 0.61, "rigl_erk": 0.42,
        "rigl_5x_erk": 2.09, "rigl_5x_uniform": 1.14, "gradual": 0.56,
    },
    "0.9": {
        "erk": 0.24, "uniform": 0.13, "erk_mb": 13.499, "uniform_mb": 13.532, "snfs_erk": 0.50, "rigl_erk": 0.25,
        "rigl_5x_erk": 1.23, "rigl_5x_uniform": 0.66, "gradual": 0.51,
    },
}  # fmt: skip


def resnet_50() -> list[PrunableTensor]:
    """Return its prunable tensors with their multiply-adds."""
    module, _ = ZOO["resnet-50"].build()
    return prunable_tensors(module, layer_macs(module, (torch.zeros(1, 3, 224, 224),)))


def row(tensors: list[PrunableTensor], sparsity: float) -> dict[str, float]:
    """Return the figures of one sparsity."""
    space = make_space(tensors, Element())
    dense = forward_flops(tensors)
    erk = {name: round(d * t.size) for (name, d), t in zip(_erk(space, sparsity).items(), tensors, strict=True)}
    # Uniform leaves the first convolution dense and does not make up for it.
    uniform = {t.name: kept_count(t.size, sparsity) for t in tensors[1:]}
    sparse_erk, sparse_uniform = forward_flops(tensors, erk), forward_flops(tensors, uniform)
    first = forward_flops(tensors[:1])
    # The paper's formula is the mean over steps of what the schedule says, not of the masks that stand in between.
    levels = [cubic(step, BEGIN, END, sparsity) for step in range(STEPS)]
    gradual = sum(first + (1 - level) * (dense - first) for level in levels) / len(levels)
    step = 3 * dense
    return {
        "erk": sparse_erk / dense,
        "uniform": sparse_uniform / dense,
        "erk_mb": network_bytes(tensors, erk) / 1e6,
        "uniform_mb": network_bytes(tensors, uniform) / 1e6,
        "snfs_erk": sparse_momentum_step_flops(dense, sparse_erk) / step,
        "rigl_erk": rigl_average_flops(dense, sparse_erk, 100) / step,
        "rigl_5x_erk": 5 * rigl_average_flops(dense, sparse_erk, 100) / step,
        "rigl_5x_uniform": 5 * rigl_average_flops(dense, sparse_uniform, 100) / step,
        "gradual": gradual / dense,
    }


def _erk(space: Any, sparsity: float) -> dict[str, float]:
    return densities("erdos-renyi-kernel", space, sparsity)


def small(name: str, sparsity: float) -> list[float]:
    """Return the densities of a small network."""
    return list(_erk(make_space(prunable_tensors(ZOO[name].build()[0]), Element()), sparsity).values())


def main() -> None:
    """Compute and write the record."""
    given = arguments(__doc__)
    tensors = resnet_50()
    figures = {
        "dense_macs": forward_flops(tensors) // 2,
        "dense_mb": network_bytes(tensors, {}) / 1e6,
        "published": PUBLISHED,
        "resnet-50": {str(s): row(tensors, s) for s in (0.8, 0.9)},
        "erk_densities": {str(s): _erk(make_space(tensors, Element()), s) for s in (0.8, 0.9)},
        "erk_small": {
            name: {str(s): small(name, s) for s in (0.9, 0.98)}
            for name in ("lenet-300-100", "lenet-5-caffe", "lenet-s4")
        },
    }
    write(given.json, figures)


if __name__ == "__main__":
    main()
