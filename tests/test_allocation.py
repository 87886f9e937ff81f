"""Allocation against published density tables, and the conservation law: totals are exact."""

from __future__ import annotations

import math
from collections.abc import Mapping

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.allocation import (
    ALLOCATIONS,
    allocate,
    densities,
    erdos_renyi,
    implied_sparsity,
    kept_count,
)
from sparsepack.compressor.space import Space, make_space
from sparsepack.compressor.structure import Channel, Element, NofM, Structure
from sparsepack.errors import UnknownNameError, UsageError
from sparsepack.models.prunable import PrunableTensor

Shapes = Mapping[str, tuple[int, ...]]


def space_of(shapes: Shapes, structure: Structure | None = None, *, keep_outputs: bool = False) -> Space:
    prunable = [
        PrunableTensor(name, shape, "conv" if len(shape) == 4 else "linear", 0, math.prod(shape[1:]), shape[0])
        for name, shape in shapes.items()
    ]
    return make_space(prunable, structure or Element(), outputs=None if keep_outputs else [])


def resnet_50() -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {"conv1": (64, 3, 7, 7)}
    inputs = 64
    for stage, (width, blocks) in enumerate(((64, 3), (128, 4), (256, 6), (512, 3)), start=1):
        for block in range(blocks):
            name = f"layer{stage}.{block}"
            shapes[f"{name}.conv1"] = (width, inputs, 1, 1)
            shapes[f"{name}.conv2"] = (width, width, 3, 3)
            shapes[f"{name}.conv3"] = (4 * width, width, 1, 1)
            if block == 0:
                shapes[f"{name}.downsample"] = (4 * width, inputs, 1, 1)
            inputs = 4 * width
    shapes["fc"] = (1000, 2048)
    return shapes


def as_published(space: Space, sparsity: float) -> float:
    """The authors' code floors the zeros of every layer before it solves, so that it aims at a little less."""
    return sum(math.floor(sparsity * tensor.size) for tensor in space.tensors) / space.total


LENET_300_100 = {"fc1": (300, 784), "fc2": (100, 300), "fc3": (10, 100)}
LENET_5 = {"conv1": (20, 1, 5, 5), "conv2": (50, 20, 5, 5), "fc1": (500, 800), "fc2": (10, 500)}
S4_LENET = {"conv1": (6, 1, 3, 3), "conv2": (16, 6, 3, 3), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}


@pytest.mark.parametrize(
    ("sparsity", "epsilon", "dense"),
    [
        (
            0.8,
            99.5617,
            {"layer1.0.conv1", "layer2.0.conv1"}
            | {f"layer1.{b}.conv3" for b in range(3)}
            | {"layer1.0.downsample", "layer1.1.conv1", "layer1.2.conv1"},
        ),
        (0.9, 48.7866, {"layer1.0.conv1"}),
        (0.95, 24.3721, set()),
    ],
)
def test_erdos_renyi_kernel_on_resnet_50(sparsity: float, epsilon: float, dense: set[str]) -> None:
    shapes = resnet_50()
    assert len(shapes) == 54
    solved, found = erdos_renyi(list(shapes.values()), as_published(space_of(shapes), sparsity), kernel=True)
    assert solved == pytest.approx(epsilon, abs=5e-5)
    assert {name for name, density in zip(shapes, found, strict=True) if density == 1} == dense


@pytest.mark.parametrize(
    ("layer", "at_80", "at_90"),
    [
        ("conv1", 0.8572, 0.4200),
        ("layer1.0.conv2", 0.3619, 0.1773),
        ("layer1.1.conv1", 1, 0.9588),
        ("layer2.0.conv1", 1, 0.5747),
        ("layer2.0.conv2", 0.1769, 0.0867),
        ("layer2.0.conv3", 0.9753, 0.4779),
        ("layer2.0.downsample", 0.5849, 0.2866),
        ("layer3.0.conv1", 0.5849, 0.2866),
        ("layer3.0.conv2", 0.0874, 0.0428),
        ("layer3.1.conv1", 0.4869, 0.2386),
        ("layer3.0.downsample", 0.2921, 0.1431),
        ("layer4.0.conv1", 0.2921, 0.1431),
        ("layer4.0.conv2", 0.0435, 0.0213),
        ("layer4.0.conv3", 0.2433, 0.1192),
        ("layer4.0.downsample", 0.1459, 0.0715),
        ("fc", 0.1482, 0.0726),
    ],
)
def test_erdos_renyi_kernel_densities_of_resnet_50(layer: str, at_80: float, at_90: float) -> None:
    space = space_of(resnet_50())
    for sparsity, expected in ((0.8, at_80), (0.9, at_90)):
        assert densities("erdos-renyi-kernel", space, sparsity)[layer] == pytest.approx(expected, abs=5e-5)


@pytest.mark.parametrize(
    ("shapes", "sparsity", "expected"),
    [
        (LENET_300_100, 0.9, [0.0796, 0.2302, 1]),
        (LENET_5, 0.9, [1, 0.0871, 0.0884, 1]),
        (S4_LENET, 0.9, [1, 0.2272, 0.0759, 0.1419, 0.7845]),
        (LENET_300_100, 0.98, [0.0154, 0.0445, 0.3674]),
        (LENET_5, 0.98, [0.2779, 0.0143, 0.0146, 0.4572]),
        (S4_LENET, 0.98, [0.336, 0.0452, 0.0151, 0.0282, 0.1562]),
    ],
)
def test_erdos_renyi_kernel_on_small_networks(shapes: Shapes, sparsity: float, expected: list[float]) -> None:
    space = space_of(shapes)
    found = densities("erdos-renyi-kernel", space, as_published(space, sparsity))
    assert list(found.values()) == pytest.approx(expected, abs=5.1e-5)


def test_erdos_renyi_without_kernel_keeps_epsilon_times_n_plus_m() -> None:
    # SET's rule for linear layers: a layer of n inputs and m outputs has epsilon (n + m) connections.
    epsilon, found = erdos_renyi([(4000, 3072), (1000, 4000), (4000, 1000)], 0.985, kernel=False)
    assert found[0] * 3072 * 4000 == pytest.approx(epsilon * (3072 + 4000))
    assert found[1] * 4000 * 1000 == pytest.approx(epsilon * 5000)
    # The two rules differ by the kernel alone: with equal kernels everywhere the densities of plain ER stay the same.
    assert erdos_renyi([(8, 4, 3, 3), (8, 8, 3, 3)], 0.9, kernel=False)[1] == pytest.approx(
        erdos_renyi([(8, 4), (8, 8)], 0.9, kernel=True)[1]
    )


shape = st.lists(st.integers(1, 12), min_size=2, max_size=4).map(tuple)
spaces = st.lists(shape, min_size=1, max_size=6).map(lambda s: space_of({str(i): x for i, x in enumerate(s)}))
sparsities = st.floats(0, 0.999)
per_tensor = st.sampled_from([name for name in ALLOCATIONS if name != "global"])


@given(space=spaces, sparsity=sparsities, allocation=per_tensor)
def test_counts_are_exact_and_next_to_the_ideal(space: Space, sparsity: float, allocation: str) -> None:
    counts = allocate(allocation, space, Element(), sparsity)
    assert isinstance(counts, dict)
    assert tuple(counts) == space.names
    assert sum(counts.values()) == kept_count(space.total, sparsity) == allocate("global", space, Element(), sparsity)
    ideal = densities(allocation, space, sparsity)
    for tensor in space.tensors:
        assert 0 <= counts[tensor.name] <= tensor.size
        assert abs(counts[tensor.name] - ideal[tensor.name] * tensor.size) < 1 + 1e-6


@given(space=spaces, sparsity=sparsities, allocation=per_tensor)
def test_ideal_densities_add_up(space: Space, sparsity: float, allocation: str) -> None:
    ideal = densities(allocation, space, sparsity)
    assert all(0 <= density <= 1 + 1e-12 for density in ideal.values())
    kept = sum(ideal[t.name] * t.size for t in space.tensors)
    assert kept == pytest.approx((1 - sparsity) * space.total)


@given(space=spaces, levels=st.lists(sparsities, min_size=2, max_size=5).map(sorted), allocation=per_tensor)
def test_limits_of_an_earlier_round_hold(space: Space, levels: list[float], allocation: str) -> None:
    limits: dict[str, int] = {t.name: t.size for t in space.tensors}
    for level in levels:
        counts = allocate(allocation, space, Element(), level, limits=limits)
        assert isinstance(counts, dict)
        assert all(counts[name] <= limits[name] for name in limits)
        assert sum(counts.values()) == kept_count(space.total, level)
        limits = counts


def test_what_limits_refuse_goes_to_the_others() -> None:
    space = space_of({"a": (10, 100), "b": (10, 100)})
    assert allocate("uniform", space, Element(), 0.5, limits={"a": 100, "b": 1000}) == {"a": 100, "b": 900}


@given(space=spaces, sparsity=sparsities, allocation=per_tensor)
def test_keep_alive_leaves_one_weight_in_each_tensor(space: Space, sparsity: float, allocation: str) -> None:
    total = kept_count(space.total, sparsity)
    if total < len(space.tensors):
        with pytest.raises(UsageError, match=f"keeping every layer alive needs at least {len(space.tensors)} weights"):
            allocate(allocation, space, Element(), sparsity, keep_alive=True)
        return
    counts = allocate(allocation, space, Element(), sparsity, keep_alive=True)
    assert isinstance(counts, dict)
    assert sum(counts.values()) == total
    assert min(counts.values()) >= 1


@given(space=spaces, sparsity=sparsities, allocation=per_tensor)
def test_channel_counts_are_whole_groups_and_never_too_many(space: Space, sparsity: float, allocation: str) -> None:
    counts = allocate(allocation, space, Channel(), sparsity)
    assert isinstance(counts, dict)
    assert sum(counts.values()) <= kept_count(space.total, sparsity)
    ideal = densities(allocation, space, sparsity)
    for tensor in space.tensors:
        groups = Channel().groups(tensor)
        assert counts[tensor.name] % groups.size == 0
        # Nearest whole number below or above the share, so small groups never soak up what large ones leave.
        assert abs(counts[tensor.name] / groups.size - ideal[tensor.name] * groups.count) < 1 + 1e-6


def test_rounding_is_torch_pruning_s_on_a_single_tensor() -> None:
    # torch.nn.utils.prune removes round(amount * n), halves to even.
    assert [kept_count(5, 0.5), kept_count(7, 0.5), kept_count(10, 0.9)] == [3, 3, 1]
    assert kept_count(266_200, 0.9) == 26_620


def test_largest_remainders_are_rounded_up() -> None:
    space = space_of({"a": (1, 7), "b": (1, 6), "c": (1, 7)})
    # Ideal 2.1, 1.8 and 2.1 of a total of 6.
    assert allocate("uniform", space, Element(), 0.7) == {"a": 2, "b": 2, "c": 2}
    # Equal remainders: the first comes first.
    assert allocate("uniform", space_of({"a": (1, 3), "b": (1, 3)}), Element(), 0.5) == {"a": 2, "b": 1}


def test_n_of_m_has_one_answer() -> None:
    space = space_of({"a": (8, 16), "b": (4, 8, 3, 3)}, NofM(1, 4))
    assert allocate("uniform", space, NofM(1, 4), 0.75) == {"a": 32, "b": 72}
    with pytest.raises(UsageError, match=r"1:4 keeps 1 of every 4 weights: its sparsity is 0\.75, not 0\.5"):
        allocate("uniform", space, NofM(1, 4), 0.5)


def test_densities_by_layer() -> None:
    space = space_of(LENET_5)
    given_densities = {"conv*": 1.0, "fc1": 0.1, "*": 0.5}
    implied = implied_sparsity(given_densities, space)
    assert implied == pytest.approx((360_000 + 2_500) / 430_500)
    assert allocate(given_densities, space, Element(), implied) == {
        "conv1": 500,
        "conv2": 25_000,
        "fc1": 40_000,
        "fc2": 2_500,
    }
    halfway = allocate(given_densities, space, Element(), implied / 2)
    assert halfway == {"conv1": 500, "conv2": 25_000, "fc1": 220_000, "fc2": 3_750}


@pytest.mark.parametrize(
    ("allocation", "message"),
    [
        ({"fc1": 0.1}, "no density is given for 'conv1'; add it, or '\\*' for all the rest"),
        ({"fc9": 0.1, "*": 1.0}, "'fc9' matches no tensor of the space. Did you mean 'fc"),
        ({"*": 1.5}, r"the density of '\*' is 1\.5; it must lie in \[0, 1\]"),
        ({"*": 0.5}, r"imply a sparsity of 0\.5, less than the 0\.9 asked for"),
    ],
)
def test_impossible_densities_by_layer(allocation: dict[str, float], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        allocate(allocation, space_of(LENET_5), Element(), 0.9)


def test_an_unknown_allocation_suggests_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'erdos-renyi-kernel'"):
        allocate("erdos-reny-kernel", space_of(LENET_5), Element(), 0.9)


def test_without_sparsity_everything_stays() -> None:
    for name in ALLOCATIONS:
        counts = allocate(name, space_of(LENET_5), Element(), 0.0)
        assert (counts if isinstance(counts, int) else sum(counts.values())) == 430_500
