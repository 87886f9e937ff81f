"""Selection against sorting, brute force and torch.nn.utils.prune; its counts, ties and nesting as properties."""

from __future__ import annotations

import itertools
import math
import tracemalloc
from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torch.nn.utils import prune

from sparsepack.compressor import selection, threshold
from sparsepack.compressor.allocation import allocate, kept_count
from sparsepack.compressor.selection import n_of_m, select, top_k
from sparsepack.compressor.space import Space, make_space
from sparsepack.compressor.structure import Channel, Element, NofM, Structure
from sparsepack.compressor.threshold import kth_largest
from sparsepack.errors import UnsupportedError, UsageError
from sparsepack.models.prunable import PrunableTensor

Array = np.ndarray[Any, Any]
Masks = dict[str, Array]


def space_of(scores: dict[str, Array], structure: Structure | None = None) -> Space:
    prunable = [
        PrunableTensor(name, array.shape, "conv" if array.ndim > 2 else "linear", 0, 0, 0)
        for name, array in scores.items()
    ]
    return make_space(prunable, structure or Element(), outputs=[])


def choose(scores: dict[str, Array], k: int | dict[str, int], **options: Any) -> Masks:
    return select(scores, k, Element(), space_of(scores), **options)


@pytest.fixture(params=["as it is", "tiny chunks"])
def chunks(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Small arrays are sorted partially; tiny chunks send them through the counting passes, chunk borders included."""
    if request.param == "tiny chunks":
        monkeypatch.setattr(threshold, "CHUNK", 5)
        monkeypatch.setattr(selection, "CHUNK", 5)
    yield


# Few distinct values, so that ties are the rule; both zeros, both infinities, subnormals.
tied = st.sampled_from([-math.inf, -2.0, -1e-45, -0.0, 0.0, 1e-45, 1.0, 1.5, math.inf])
wild = st.floats(width=32, allow_nan=False)
arrays = hnp.arrays(np.float32, st.integers(1, 23), elements=st.one_of(tied, wild))
several = st.lists(arrays, min_size=1, max_size=4)
counting_passes_are_slow = settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])


def by_sorting(scores: list[Array], k: int, within: list[Array] | None = None) -> list[Array]:
    """The definition itself: sort (score descending, tensor, position) and take the first k candidates."""
    order = sorted(
        (-float(value), number, position)
        for number, array in enumerate(scores)
        for position, value in enumerate(array)
        if within is None or within[number][position]
    )
    masks = [np.zeros(array.size, np.bool_) for array in scores]
    for _, number, position in order[:k]:
        masks[number][position] = True
    return masks


@pytest.mark.usefixtures("chunks")
@counting_passes_are_slow
@given(scores=several, data=st.data())
def test_top_k_equals_sorting(scores: list[Array], data: st.DataObject) -> None:
    k = data.draw(st.integers(0, sum(array.size for array in scores)))
    for mask, expected in zip(top_k(scores, k), by_sorting(scores, k), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.usefixtures("chunks")
@counting_passes_are_slow
@given(scores=several, data=st.data())
def test_top_k_within_equals_sorting(scores: list[Array], data: st.DataObject) -> None:
    within = [data.draw(hnp.arrays(np.bool_, array.size)) for array in scores]
    k = data.draw(st.integers(0, sum(int(mask.sum()) for mask in within)))
    for mask, expected in zip(top_k(scores, k, within), by_sorting(scores, k, within), strict=True):
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.usefixtures("chunks")
@counting_passes_are_slow
@given(scores=several)
def test_masks_are_nested_in_k(scores: list[Array]) -> None:
    previous = [np.zeros(array.size, np.bool_) for array in scores]
    for k in range(sum(array.size for array in scores) + 1):
        masks = top_k(scores, k)
        assert sum(int(mask.sum()) for mask in masks) == k
        assert all((mask >= before).all() for mask, before in zip(masks, previous, strict=True))
        previous = masks


@given(values=st.lists(st.floats(width=32, allow_nan=False), min_size=4, max_size=24, unique=True), data=st.data())
def test_the_order_of_tensors_does_not_matter_without_ties(values: list[float], data: st.DataObject) -> None:
    cut = data.draw(st.integers(1, len(values) - 1))
    k = data.draw(st.integers(0, len(values)))
    scores = {"a": np.array(values[:cut], np.float32), "b": np.array(values[cut:], np.float32)}
    if len({float(v) + 0.0 for array in scores.values() for v in array}) < len(values):
        return
    scores = {name: array.reshape(1, -1) for name, array in scores.items()}
    forth = choose(scores, k)
    back = choose(dict(reversed(scores.items())), k)
    assert list(back) == ["b", "a"]
    for name in scores:
        np.testing.assert_array_equal(forth[name], back[name])


@pytest.mark.usefixtures("chunks")
def test_ties_go_to_the_earlier_tensor_and_position() -> None:
    scores = {"a": np.array([[1.0, 2.0], [1.0, 1.0]], np.float32), "b": np.ones((2, 3), np.float32)}
    masks = choose(scores, 5)
    assert masks["a"].tolist() == [[True, True], [True, True]]
    assert masks["b"].tolist() == [[True, False, False], [False, False, False]]
    assert choose(scores, 3)["a"].tolist() == [[True, True], [True, False]]
    # 0.0 and -0.0 are one value.
    assert choose({"a": np.array([[-0.0, 0.0, -0.0, 0.0]], np.float32)}, 2)["a"].tolist() == [
        [True, True, False, False]
    ]


@pytest.mark.usefixtures("chunks")
@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_every_float_type_ranks(dtype: Any) -> None:
    scores = np.array([[3, -1, 0, 2, -math.inf, math.inf, 2, 1]], dtype)
    mask = choose({"w": scores}, 4)["w"]
    assert mask.tolist() == [[True, False, False, True, False, True, True, False]]


@pytest.mark.usefixtures("chunks")
def test_mixed_precisions_are_compared_exactly() -> None:
    # 1 + 2**-40 rounds to 1 in float32; the threshold must not.
    scores = {"a": np.ones((1, 6), np.float32), "b": np.array([[1 + 2.0**-40, 1 - 2.0**-40]])}
    masks = choose(scores, 1)
    assert not masks["a"].any()
    assert masks["b"].tolist() == [[True, False]]
    masks = choose(scores, 7)
    assert masks["a"].all()
    assert masks["b"].tolist() == [[True, False]]


@settings(max_examples=60)
@given(
    weights=hnp.arrays(np.float64, st.integers(1, 10), elements=st.floats(-8, 8)),
    norm=st.sampled_from([1, 2, 3]),
    data=st.data(),
)
def test_magnitude_is_the_best_sparse_approximation(weights: Array, norm: int, data: st.DataObject) -> None:
    kept = data.draw(st.integers(0, weights.size))
    mask = choose({"w": np.abs(weights).reshape(1, -1)}, kept)["w"].reshape(-1)
    error = (np.abs(weights * ~mask) ** norm).sum()
    best = min(
        (np.abs(np.delete(weights, list(chosen))) ** norm).sum()
        for chosen in itertools.combinations(range(weights.size), kept)
    )
    assert error == pytest.approx(best)


def torch_mask(layer: torch.nn.Module) -> np.ndarray[tuple[int, ...], np.dtype[np.bool_]]:
    """Return the mask that torch's pruning left on a layer."""
    mask = dict(layer.named_buffers())["weight_mask"]
    return np.asarray(mask.numpy() == 1)


def test_global_unstructured_equals_torch() -> None:
    generator = torch.Generator().manual_seed(7)
    layers = {name: torch.nn.Linear(*shape) for name, shape in {"a": (40, 30), "b": (30, 20), "c": (20, 10)}.items()}
    for layer in layers.values():
        torch.nn.init.normal_(layer.weight, generator=generator)
    scores = {name: layer.weight.detach().abs().numpy().copy() for name, layer in layers.items()}
    space = space_of(scores)
    for sparsity in (0.1, 0.5, 0.9, 0.99):
        fresh = {name: torch.nn.Linear(layer.in_features, layer.out_features) for name, layer in layers.items()}
        for name, layer in fresh.items():
            layer.weight.data.copy_(layers[name].weight.data)
        prune.global_unstructured(
            [(layer, "weight") for layer in fresh.values()], prune.L1Unstructured, amount=sparsity
        )
        masks = select(scores, allocate("global", space, Element(), sparsity), Element(), space)
        for name, layer in fresh.items():
            np.testing.assert_array_equal(masks[name], torch_mask(layer))


def test_repeated_l1_unstructured_equals_torch_and_the_published_counts() -> None:
    # Twenty rounds of 20 % a layer on the LeNet of "On Iterative Neural Network Pruning, Reinitialization, and the
    # Similarity of Masks": the counts of its L1-unstructured runs.
    published = {1: 47870, 2: 38296, 3: 30636, 5: 19608, 10: 6425, 14: 2630, 20: 691}
    shapes = {"conv1": (6, 1, 3, 3), "conv2": (16, 6, 3, 3), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    generator = torch.Generator().manual_seed(0)
    modules = {}
    for name, shape in shapes.items():
        modules[name] = torch.nn.Module()
        modules[name].register_parameter("weight", torch.nn.Parameter(torch.randn(shape, generator=generator)))
    scores = {name: module.get_parameter("weight").detach().abs().numpy().copy() for name, module in modules.items()}
    masks = {name: np.ones(shape, np.bool_) for name, shape in shapes.items()}
    for number in range(1, 21):
        counts = {name: kept_count(int(mask.sum()), 0.2) for name, mask in masks.items()}
        masks = choose(scores, counts, within=masks)
        for name, module in modules.items():
            prune.l1_unstructured(module, "weight", amount=0.2)  # type: ignore[no-untyped-call]  # untyped in torch
            np.testing.assert_array_equal(masks[name], torch_mask(module))
        if number in published:
            assert sum(int(mask.sum()) for mask in masks.values()) == published[number]
    assert [int(mask.sum()) for mask in masks.values()] == [2, 10, 553, 116, 10]


@pytest.mark.parametrize("norm", [1, 2, math.inf, -math.inf])
def test_channel_selection_equals_torch_ln_structured(norm: float) -> None:
    generator = torch.Generator().manual_seed(1)
    layer = torch.nn.Conv2d(5, 12, 3)
    torch.nn.init.normal_(layer.weight, generator=generator)
    scores = {"w": layer.weight.detach().abs().numpy().copy()}
    structure = Channel(norm)
    space = space_of(scores, structure)
    for sparsity in (0.25, 0.5, 0.75):
        other = torch.nn.Conv2d(5, 12, 3)
        other.weight.data.copy_(layer.weight.data)
        # Untyped in torch.
        prune.ln_structured(other, "weight", amount=sparsity, n=norm, dim=0)  # type: ignore[no-untyped-call]
        masks = select(scores, allocate("uniform", space, structure, sparsity), structure, space)
        np.testing.assert_array_equal(masks["w"], torch_mask(other))


@pytest.mark.usefixtures("chunks")
@counting_passes_are_slow
@given(
    scores=hnp.arrays(np.float32, st.tuples(st.integers(1, 6), st.just(4)), elements=st.one_of(tied, wild)),
    n=st.integers(1, 4),
)
def test_n_of_m_equals_sorting_every_block(scores: Array, n: int) -> None:
    mask = n_of_m(scores, n)
    for row, kept in zip(scores, mask, strict=True):
        (expected,) = by_sorting([row], n)
        np.testing.assert_array_equal(kept, expected)


@given(scores=hnp.arrays(np.float64, (2, 6), elements=st.floats(-4, 4)))
def test_n_of_m_loses_least_of_all_patterns(scores: Array) -> None:
    mask = n_of_m(np.abs(scores), 2)
    for row, kept in zip(np.abs(scores), mask, strict=True):
        best = max(row[list(pair)].sum() for pair in itertools.combinations(range(6), 2))
        assert row[kept].sum() == pytest.approx(best)


def test_n_of_m_within_an_earlier_mask() -> None:
    scores = np.array([[4.0, 3.0, 2.0, 1.0], [-math.inf, 3.0, 2.0, 1.0]], np.float32)
    within = np.array([[False, True, True, True], [True, False, False, True]])
    assert n_of_m(scores, 2, within).tolist() == [[False, True, True, False], [True, False, False, True]]
    within[1, 0] = False
    assert n_of_m(scores, 2, within)[1].tolist() == [False, False, False, True]


def test_n_of_m_of_a_convolution_keeps_n_in_every_block() -> None:
    rng = np.random.default_rng(0)
    scores = {"conv": rng.random((6, 8, 3, 3)), "fc": rng.random((5, 16))}
    structure = NofM(1, 4)
    space = space_of(scores, structure)
    masks = select(scores, allocate("uniform", space, structure, 0.75), structure, space)
    assert masks["conv"].shape == (6, 8, 3, 3)
    assert (masks["conv"].reshape(6, 2, 4, 3, 3).sum(axis=2) == 1).all()
    assert (masks["fc"].reshape(5, 4, 4).sum(axis=2) == 1).all()
    with pytest.raises(UsageError, match="'conv' under 1:4 keeps 108 weights, not 100"):
        select(scores, {"conv": 100, "fc": 20}, structure, space)


def test_n_equal_to_m_keeps_everything() -> None:
    assert n_of_m(np.ones((3, 4)), 4).all()


@settings(max_examples=100)
@given(scores=several, data=st.data())
def test_keep_alive_equals_reserving_the_best_of_each(scores: list[Array], data: st.DataObject) -> None:
    named = {str(i): array.reshape(1, -1) for i, array in enumerate(scores)}
    k = data.draw(st.integers(len(scores), sum(array.size for array in scores)))
    masks = choose(named, k, keep_alive=True)
    best = [int(np.argmax(array + np.float32(0))) for array in scores]
    rest = [np.arange(array.size) != best[i] for i, array in enumerate(scores)]
    expected = by_sorting(scores, k - len(scores), rest)
    for i in range(len(scores)):
        expected[i][best[i]] = True
        np.testing.assert_array_equal(masks[str(i)].reshape(-1), expected[i])


def test_keep_alive_rescues_a_layer_at_the_cost_of_the_weakest_elsewhere() -> None:
    scores = {"big": np.array([[9.0, 8.0, 7.0, 6.0]]), "small": np.array([[0.1, 0.2]])}
    assert not choose(scores, 3)["small"].any()
    masks = choose(scores, 3, keep_alive=True)
    assert masks["big"].tolist() == [[True, True, False, False]]
    assert masks["small"].tolist() == [[False, True]]
    with pytest.raises(UsageError, match="keeping every layer alive needs at least 2 weights, the sparsity leaves 1"):
        choose(scores, 1, keep_alive=True)


def test_keep_alive_ignores_a_layer_that_an_earlier_round_has_emptied() -> None:
    scores = {"a": np.array([[3.0, 2.0]]), "b": np.array([[1.0, 1.0]]), "c": np.array([[0.0, 0.0]])}
    within = {"a": np.array([[True, True]]), "b": np.array([[False, False]]), "c": np.array([[True, True]])}
    masks = choose(scores, 2, keep_alive=True, within=within)
    assert [masks[name].tolist() for name in "abc"] == [[[True, False]], [[False, False]], [[True, False]]]


def test_global_channels_compete_by_score_per_weight() -> None:
    # Sums would rank the wide layer first; per weight the narrow one is worth more.
    scores = {"wide": np.full((2, 8), 1.0), "narrow": np.array([[1.5, 1.5], [0.5, 0.5]])}
    space = space_of(scores, Channel())
    masks = select(scores, 10, Channel(), space)
    assert masks["narrow"].tolist() == [[True, True], [False, False]]
    assert masks["wide"].tolist() == [[True] * 8, [False] * 8]


def test_channels_that_do_not_fit_let_later_ones_in() -> None:
    scores = {"wide": np.array([[3.0] * 4, [2.0] * 4]), "narrow": np.array([[1.0], [0.5]])}
    masks = select(scores, 6, Channel(), space_of(scores, Channel()))
    # 4 weights for the best, the second best would need 4 of the 2 left, both small ones fit.
    assert masks["wide"].tolist() == [[True] * 4, [False] * 4]
    assert masks["narrow"].tolist() == [[True], [True]]


@settings(max_examples=60)
@given(
    shapes=st.lists(st.tuples(st.integers(1, 4), st.integers(1, 5)), min_size=1, max_size=4),
    keep_alive=st.booleans(),
    data=st.data(),
)
def test_channel_selection_misses_less_than_the_smallest_group_left_out(
    shapes: list[tuple[int, int]], keep_alive: bool, data: st.DataObject
) -> None:
    scores = {
        str(i): data.draw(hnp.arrays(np.float32, shape, elements=st.floats(0, 4, width=16)))
        for i, shape in enumerate(shapes)
    }
    least = sum(shape[1] for shape in shapes) if keep_alive else 0
    quota = data.draw(st.integers(least, sum(array.size for array in scores.values())))
    masks = select(scores, quota, Channel(), space_of(scores, Channel()), keep_alive=keep_alive)
    missing = quota - sum(int(mask.sum()) for mask in masks.values())
    out = [mask.shape[1] for mask in masks.values() for row in mask if not row.any()]
    assert 0 <= missing < min(out, default=1)
    assert all((mask.all(axis=1) | ~mask.any(axis=1)).all() for mask in masks.values())
    if keep_alive:
        assert all(mask.any() for mask in masks.values())


def test_channel_rounds_stay_within_the_earlier_mask() -> None:
    rng = np.random.default_rng(2)
    scores = {"a": rng.random((8, 6)), "b": rng.random((5, 8))}
    space = space_of(scores, Channel())
    first = select(scores, 60, Channel(), space)
    flipped = {name: 1 - array for name, array in scores.items()}
    second = select(flipped, 30, Channel(), space, within=first)
    assert all((second[name] <= first[name]).all() for name in scores)
    with pytest.raises(UsageError, match="cannot keep 70 weights of the space"):
        select(flipped, 70, Channel(), space, within=first)
    with pytest.raises(UsageError, match="keeping every layer alive needs 4 more weights"):
        select(scores, 10, Channel(), space, keep_alive=True)


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16, np.float32, np.float64])
def test_a_nan_is_refused_by_name_and_place(dtype: Any) -> None:
    scores = {"a": np.ones((2, 2), dtype), "b": np.array([[1.0, 2.0], [math.nan, -math.inf]], dtype)}
    with pytest.raises(UnsupportedError, match=r"weight 2 of 'b' is not a number \(NaN\)"):
        choose(scores, 3)


def test_scores_of_another_shape_are_refused() -> None:
    space = space_of({"a": np.ones((2, 2))})
    with pytest.raises(UnsupportedError, match=r"scores of 'a' have shape \(4, 1\); its weights have shape \(2, 2\)"):
        select({"a": np.ones((4, 1))}, 2, Element(), space)


def test_a_quota_larger_than_the_candidates_is_refused() -> None:
    scores = {"a": np.ones((2, 2)), "b": np.ones((1, 2))}
    with pytest.raises(UsageError, match="cannot keep 7 weights of the space: 6 are candidates"):
        choose(scores, 7)
    with pytest.raises(UsageError, match="cannot keep 3 weights of 'b': 2 are candidates"):
        choose(scores, {"a": 1, "b": 3})
    with pytest.raises(UsageError, match="cannot keep 3 weights of 'a': 2 are candidates"):
        within = {"a": np.array([[True, True], [False, False]]), "b": np.ones((1, 2), np.bool_)}
        choose(scores, {"a": 3, "b": 1}, within=within)


def test_scores_are_not_changed_and_masks_are_new() -> None:
    scores = {"a": np.arange(6.0, dtype=np.float32).reshape(2, 3)}
    copy = scores["a"].copy()
    masks = choose(scores, 3)
    masks["a"][:] = False
    np.testing.assert_array_equal(scores["a"], copy)


def test_many_scores_need_little_memory() -> None:
    rng = np.random.default_rng(0)
    flat = [np.abs(rng.standard_normal(size, dtype=np.float32)) for size in (3_000_000, 500_000, 500_001)]
    total = sum(array.size for array in flat)
    for scores in (flat, [np.ones_like(array) for array in flat]):
        tracemalloc.start()
        masks = top_k(scores, total // 10)
        peak = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        assert sum(int(mask.sum()) for mask in masks) == total // 10
        # The masks themselves are a quarter of the scores' bytes.
        assert peak < 0.8 * 4 * total
    cut = kth_largest(flat, total // 10)
    joined = np.sort(np.concatenate(flat))
    assert cut.value == joined[total - total // 10]
