"""Costs against the RigL paper's tables for ResNet-50: sizes, inference and training FLOPs."""

import math

import pytest

from sparsepack.compressor.allocation import densities
from sparsepack.compressor.cost import (
    exchange_step_flops,
    forward_flops,
    frozen_step_flops,
    masked_step_flops,
    network_bytes,
    rigl_average_flops,
    scoring_flops,
    selected_step_flops,
    sparse_momentum_step_flops,
)
from sparsepack.compressor.schedule import cubic
from sparsepack.compressor.space import Space
from sparsepack.errors import UnsupportedError
from sparsepack.models.prunable import Kind, PrunableTensor


def resnet_50() -> list[PrunableTensor]:
    """ResNet-50 at 224 pixels, stride on the 3x3, written out by hand: shapes and output positions."""
    tensors = []

    def add(name: str, shape: tuple[int, ...], side: int) -> None:
        kind: Kind = "conv" if len(shape) == 4 else "linear"
        tensors.append(PrunableTensor(name, shape, kind, 0, 0, 0, math.prod(shape) * side * side))

    add("conv1", (64, 3, 7, 7), 112)
    inputs, side = 64, 56
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            after = side // 2 if stage > 1 and block == 0 else side
            add(f"{name}.conv1", (width, inputs, 1, 1), side)
            add(f"{name}.conv2", (width, width, 3, 3), after)
            add(f"{name}.conv3", (4 * width, width, 1, 1), after)
            if block == 0:
                add(f"{name}.downsample", (4 * width, inputs, 1, 1), after)
            inputs, side = 4 * width, after
    add("fc", (1000, 2048), 1)
    return tensors


RESNET_50 = resnet_50()
SPACE = Space(tuple(RESNET_50))
DENSE = forward_flops(RESNET_50)


def published_counts(sparsity: float, allocation: str) -> dict[str, int]:
    """Weights kept under the papers' counting: floor(sparsity * size) zeros in each tensor."""
    if allocation == "uniform":
        # RigL's uniform leaves the first convolution dense.
        return {t.name: t.size - math.floor(sparsity * t.size) for t in RESNET_50[1:]}
    aim = sum(math.floor(sparsity * t.size) for t in RESNET_50) / SPACE.total
    found = densities(allocation, SPACE, aim)
    return {t.name: t.size - math.floor((1 - found[t.name]) * t.size) for t in RESNET_50}


def micronet(kept: dict[str, int]) -> float:
    """The MicroNet challenge's count: conv1 at 115 x 115, and one addition for every output."""
    total = 0.0
    for t in RESNET_50:
        assert t.macs is not None
        positions = 115**2 if t.name == "conv1" else t.macs // t.size
        total += positions * (2 * kept.get(t.name, t.size) + t.shape[0])
    return total


def test_dense_resnet_50() -> None:
    assert SPACE.total == 25_502_912
    assert len(RESNET_50) == 54
    assert forward_flops(RESNET_50) / 2 == pytest.approx(4.0892e9, rel=1e-5)
    assert micronet({}) == pytest.approx(8.202e9, rel=1e-4)
    assert network_bytes(RESNET_50, {}) / 1e6 == pytest.approx(102.122, abs=5e-4)


@pytest.mark.parametrize(
    ("allocation", "sparsity", "macs", "challenge", "megabytes"),
    [
        ("erdos-renyi-kernel", 0.8, 0.4138, 0.4153, 23.684),
        ("erdos-renyi-kernel", 0.9, 0.2418, 0.2431, 13.499),
        ("uniform", 0.8, 0.2231, 0.2254, 23.729),
        ("uniform", 0.9, 0.1260, 0.1285, 13.532),
    ],
)
def test_inference_of_sparse_resnet_50(
    allocation: str, sparsity: float, macs: float, challenge: float, megabytes: float
) -> None:
    kept = published_counts(sparsity, allocation)
    assert forward_flops(RESNET_50, kept) / DENSE == pytest.approx(macs, abs=5e-5)
    assert micronet(kept) / micronet({}) == pytest.approx(challenge, abs=6e-5)
    assert network_bytes(RESNET_50, kept) / 1e6 == pytest.approx(megabytes, abs=6e-4)


def test_training_flops_of_rigl_and_sparse_momentum() -> None:
    def ratio(method: str, sparsity: float, allocation: str) -> float:
        dense, sparse = round(micronet({})), round(micronet(published_counts(sparsity, allocation)))
        step = (
            rigl_average_flops(dense, sparse, 100)
            if method == "rigl"
            else float(sparse_momentum_step_flops(dense, sparse))
        )
        return step / masked_step_flops(dense)

    erk = "erdos-renyi-kernel"
    assert [ratio("snfs", s, erk) for s in (0.8, 0.9)] == pytest.approx([0.610, 0.495], abs=5e-4)
    assert [ratio("rigl", s, erk) for s in (0.8, 0.9)] == pytest.approx([0.417, 0.246], abs=5e-4)
    assert [5 * ratio("rigl", s, erk) for s in (0.8, 0.9)] == pytest.approx([2.086, 1.228], abs=1e-3)
    assert [5 * ratio("rigl", s, "uniform") for s in (0.8, 0.9)] == pytest.approx([1.140, 0.657], abs=1e-3)


@pytest.mark.parametrize(("sparsity", "published"), [(0.8, 0.560), (0.9, 0.505)])
def test_training_flops_of_gradual_pruning(sparsity: float, published: float) -> None:
    # 32,000 steps, pruned from 10,000 to 25,000, looked at every 1,000 steps, both ends counted.
    levels = [cubic(step, 10_000, 25_000, sparsity) for step in range(0, 32_001, 1_000)]
    steps = [masked_step_flops(round(micronet(published_counts(level, "uniform")))) for level in levels]
    dense = masked_step_flops(round(micronet({})))
    assert sum(steps) / len(steps) / dense == pytest.approx(published, abs=1e-3)


def test_steps_reduce_to_dense_training_when_nothing_is_pruned() -> None:
    assert masked_step_flops(DENSE) == 3 * DENSE
    for step in (exchange_step_flops, sparse_momentum_step_flops, selected_step_flops, frozen_step_flops):
        assert step(DENSE, DENSE) == 3 * DENSE
    assert rigl_average_flops(DENSE, DENSE, 100) == 3 * DENSE
    assert scoring_flops(DENSE, 128) == 128 * 3 * DENSE


def test_freezing_saves_weight_gradients_only() -> None:
    # Nothing trained: forward and activation gradients stay dense.
    assert frozen_step_flops(DENSE, 0) == 2 * DENSE
    # A score for each weight: without any kept weight only the score gradients are left.
    assert selected_step_flops(DENSE, 0) == DENSE


def test_unknown_multiply_adds_are_an_error() -> None:
    with pytest.raises(UnsupportedError, match="the multiply-adds of 'w' are not known"):
        forward_flops([PrunableTensor("w", (2, 2), "linear", 0, 2, 2)])
