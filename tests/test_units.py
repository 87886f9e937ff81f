"""Selection of coupled units: budgets, bundles and ties against a brute-force search, masks against hand-made ones."""

from __future__ import annotations

import itertools

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.coupling import Coupling, Width
from sparsepack.compressor.saliency import AGGREGATIONS, SALIENCIES, UnitEvidence, aggregate, unit_scores
from sparsepack.compressor.space import Space
from sparsepack.compressor.units import UnitRule, take_best, take_pooled
from sparsepack.errors import UnsupportedError, UsageError
from sparsepack.models.graph.groups import Member
from sparsepack.models.prunable import PrunableTensor

# Few different scores, so that ties are common.
values = st.sampled_from([-1.0, -0.0, 0.0, 0.5, 1.0, 2.0])


def linear(name: str, outputs: int, inputs: int) -> PrunableTensor:
    return PrunableTensor(name, (outputs, inputs), "linear", 0, inputs, outputs)


def member(tensor: str, indices: list[int], axis: int = 0) -> Member:
    return Member(tensor, axis, True, np.array(indices, np.int64))


def two_widths() -> Coupling:
    """Return a residual width of 2 units (tensors a and b, bias a.bias) and one of 3 (tensor c, last row fixed)."""
    tensors = (linear("a", 2, 3), linear("b", 2, 1), linear("c", 4, 2))
    widths = (
        Width("a", 2, 4, (member("a", [0, 1]), member("b", [1, 0])), (member("a.bias", [0, 1]),)),
        Width("c", 3, 2, (member("c", [0, 1, 2, -1]),), ()),
    )
    shapes = {tensor.name: tensor.shape for tensor in tensors} | {"a.bias": (2,)}
    return Coupling(widths, Space(tensors), shapes, fixed=2)


def best_by_search(
    scores: list[npt.NDArray[np.float64]], sizes: list[int], alive: list[npt.NDArray[np.bool_]], budget: int
) -> list[npt.NDArray[np.bool_]]:
    """Rank everything with plain sorting of tuples and take what fits, leaving a width at its first misfit."""
    units = [(-(0.0 + float(s)), w, i) for w, array in enumerate(scores) for i, s in enumerate(array) if alive[w][i]]
    kept = [np.zeros(array.size, np.bool_) for array in scores]
    full: set[int] = set()
    for _, w, i in sorted(units):
        if w in full or sizes[w] > budget:
            full.add(w)
        else:
            kept[w][i] = True
            budget -= sizes[w]
    return kept


@given(data=st.data())
def test_pooled_units_are_those_of_plain_sorting(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 5), min_size=1, max_size=4))
    scores = [np.array(data.draw(st.lists(values, min_size=n, max_size=n))) for n in counts]
    alive = [np.array(data.draw(st.lists(st.booleans(), min_size=n, max_size=n))) for n in counts]
    sizes = [data.draw(st.integers(1, 6)) for _ in counts]
    total = sum(size * int(mask.sum()) for size, mask in zip(sizes, alive, strict=True))
    budget = data.draw(st.integers(0, total))
    found = take_pooled(scores, sizes, alive, budget)
    for keep, expected in zip(found, best_by_search(scores, sizes, alive, budget), strict=True):
        np.testing.assert_array_equal(keep, expected)
    kept = sum(size * int(keep.sum()) for size, keep in zip(sizes, found, strict=True))
    left_out = [s for s, keep, mask in zip(sizes, found, alive, strict=True) if (mask & ~keep).any()]
    assert 0 <= budget - kept < min(left_out, default=budget + 1)


@given(data=st.data())
def test_no_width_gains_by_exchanging_a_kept_unit_for_a_removed_one(data: st.DataObject) -> None:
    counts = data.draw(st.lists(st.integers(1, 4), min_size=1, max_size=3))
    scores = [np.array(data.draw(st.lists(values, min_size=n, max_size=n))) for n in counts]
    alive = [np.ones(n, np.bool_) for n in counts]
    budget = data.draw(st.integers(0, sum(counts)))
    found = take_pooled(scores, [1] * len(counts), alive, budget)
    # With units of one size the choice is the best of all subsets.
    flat, kept = np.concatenate(scores), np.concatenate(found)
    assert int(kept.sum()) == budget
    best = max(sum(c) for c in itertools.combinations((0.0 + flat).tolist(), budget)) if budget else 0.0
    assert float(flat[kept].sum()) == pytest.approx(best)


@given(data=st.data(), bundle=st.integers(2, 4))
def test_rounded_widths_are_multiples_within_the_budget(data: st.DataObject, bundle: int) -> None:
    counts = data.draw(st.lists(st.integers(1, 11), min_size=1, max_size=4))
    scores = [np.array(data.draw(st.lists(values, min_size=n, max_size=n))) for n in counts]
    alive = [np.ones(n, np.bool_) for n in counts]
    sizes = [data.draw(st.integers(1, 6)) for _ in counts]
    least = sum(min(bundle, n) * size for n, size in zip(counts, sizes, strict=True))
    budget = data.draw(st.integers(least, sum(n * s for n, s in zip(counts, sizes, strict=True))))
    found = take_pooled(scores, sizes, alive, budget, round_to=bundle)
    assert sum(size * int(keep.sum()) for size, keep in zip(sizes, found, strict=True)) <= budget
    for n, array, keep in zip(counts, scores, found, strict=True):
        width = int(keep.sum())
        assert width == n or (width % bundle == 0 and width > 0)
        np.testing.assert_array_equal(keep, take_best(array, width, np.ones(n, np.bool_)))


def test_too_small_a_budget_for_one_bundle_each_is_refused() -> None:
    scores, alive = [np.ones(8), np.ones(8)], [np.ones(8, np.bool_)] * 2
    with pytest.raises(UsageError, match="keeping 4 units of every width needs 8 more weights"):
        take_pooled(scores, [2, 3], alive, 12, round_to=4)


def test_the_best_of_one_width() -> None:
    scores, alive = np.array([1.0, 3.0, 3.0, 2.0]), np.array([True, True, True, False])
    assert take_best(scores, 1, alive).tolist() == [False, True, False, False]
    assert take_best(scores, 3, alive).tolist() == [True, True, True, False]
    assert take_best(scores, 1, alive, round_to=2).tolist() == [False, True, True, False]
    assert take_best(scores, 3, alive, round_to=8).tolist() == [True, True, True, False]


def test_masks_take_the_unit_out_of_every_tensor() -> None:
    coupling = two_widths()
    masks = coupling.expand([np.array([True, False]), np.array([True, False, True])])
    assert masks["a"].tolist() == [[True] * 3, [False] * 3]
    assert masks["b"].tolist() == [[False], [True]]
    assert masks["c"].tolist() == [[True] * 2, [False] * 2, [True] * 2, [True] * 2]
    assert masks["a.bias"].tolist() == [True, False]
    assert [keep.tolist() for keep in coupling.alive(masks)] == [[True, False], [True, False, True]]


def test_sparsity_counts_the_weights_of_the_space_and_what_is_fixed_stays() -> None:
    coupling = two_widths()
    evidence = UnitEvidence({name: np.ones(shape) for name, shape in coupling.shapes.items()})
    rule = UnitRule(coupling, "global")
    # 16 weights, 2 of them fixed; at a quarter 12 stay: 10 of the widths, in order, as all score the same.
    masks = rule.select(evidence, 0.25)
    assert sum(int(masks[t.name].sum()) for t in coupling.space.tensors) == 12
    assert masks["a"].all() and masks["c"].tolist() == [[True] * 2, [False] * 2, [False] * 2, [True] * 2]
    with pytest.raises(UsageError, match="of 16 weights 2 belong to units that cannot be removed"):
        rule.select(evidence, 0.95)
    # Two thirds of nothing is left of a later round: within what the first one kept.
    later = rule.select(evidence, 0.5, masks)
    assert all((later[name] <= masks[name]).all() for name in masks)


def test_a_width_gets_the_mean_density_of_its_tensors() -> None:
    coupling = two_widths()
    evidence = UnitEvidence({name: np.ones(shape) for name, shape in coupling.shapes.items()})
    # Width a: (6 * 0.5 + 2 * 1) / 8 = 0.625 of 2 units, rounded down to 1; width c: 2/3 of 3 units.
    rule = UnitRule(coupling, {"a": 0.5, "b": 1.0, "c": 2 / 3})
    implied = (6 * 0.5 + 8 / 3) / 16
    masks = rule.select(evidence, implied)
    assert [int(keep.sum()) for keep in coupling.alive(masks)] == [1, 2]


WEIGHTS = {
    "a": np.array([[3.0, -4.0, 0.0], [1.0, 1.0, 1.0]]),
    "b": np.array([[2.0], [12.0]]),
    "c": np.array([[0.0, 1.0], [3.0, 4.0], [-1.0, 0.0], [9.0, 9.0]]),
    "a.bias": np.array([0.5, -2.0]),
}


@pytest.mark.parametrize(
    ("name", "aggregation", "expected"),
    [
        # Unit 0 holds a's row 0 and b's row 1.
        ("l1", None, [7.0 + 12.0, 3.0 + 2.0]),
        ("l1", "mean", [9.5, 2.5]),
        ("l1", "l2", [(49.0 + 144.0) ** 0.5, 13.0**0.5]),
        ("l1", "max", [12.0, 3.0]),
        ("l2", None, [13.0, 7.0**0.5]),
        ("l2", "sum", [5.0 + 12.0, 3.0**0.5 + 2.0]),
        ("geometric-median", None, [(4 + 25 + 1) ** 0.5 + 10.0] * 2),
    ],
)
def test_saliencies_are_their_closed_forms(name: str, aggregation: str | None, expected: list[float]) -> None:
    found = unit_scores(name, aggregation, two_widths(), UnitEvidence(weights=WEIGHTS), pooled=False)
    np.testing.assert_allclose(found[0], expected, rtol=1e-12)


def test_taylor_sums_signed_products_of_weights_and_biases_before_it_squares() -> None:
    gradients = {"a": np.full((2, 3), 2.0), "b": np.array([[1.0], [-1.0]]), "c": np.ones((4, 2)), "a.bias": np.ones(2)}
    evidence = UnitEvidence(weights=WEIGHTS, gradients=gradients)
    found = unit_scores("taylor", None, two_widths(), evidence, pooled=True)
    # 2 * (3 - 4) - 12 + 0.5, and 2 * 3 + 2 - 2.
    np.testing.assert_allclose(found[0], [13.5**2, 6.0**2])
    np.testing.assert_allclose(found[1], [1.0, 49.0, 1.0])
    with pytest.raises(UnsupportedError, match="no gradient reaches 'a'"):
        unit_scores("taylor", None, two_widths(), UnitEvidence(weights=WEIGHTS), pooled=True)


def test_pooled_scores_are_per_weight() -> None:
    found = unit_scores("l1", None, two_widths(), UnitEvidence(weights=WEIGHTS), pooled=True)
    np.testing.assert_allclose(found[0], [19.0 / 4, 5.0 / 4])
    np.testing.assert_allclose(found[1], [0.5, 3.5, 0.5])
    found = unit_scores("l2", None, two_widths(), UnitEvidence(weights=WEIGHTS), pooled=True)
    np.testing.assert_allclose(found[0], [(169 / 4) ** 0.5, (7 / 4) ** 0.5])


def test_the_methods_own_scores_are_summed() -> None:
    scores = {name: np.ones_like(array) for name, array in WEIGHTS.items() if name != "a.bias"}
    found = unit_scores(None, None, two_widths(), UnitEvidence(scores), pooled=False)
    assert [array.tolist() for array in found] == [[4.0, 4.0], [2.0, 2.0, 2.0]]


def test_what_a_saliency_cannot_rank_is_named() -> None:
    with pytest.raises(UnsupportedError, match="'a' has none; exclude it"):
        unit_scores("batch-norm-scale", None, two_widths(), UnitEvidence(weights=WEIGHTS), pooled=False)
    broken = UnitEvidence(weights={**WEIGHTS, "c": np.full((4, 2), np.nan)})
    with pytest.raises(UnsupportedError, match="a unit of 'c' has a score that is not a number"):
        unit_scores("l1", None, two_widths(), broken, pooled=False)


def test_random_scores_repeat_with_the_seed_and_differ_between_rounds() -> None:
    first, again, other = (
        unit_scores("random", None, two_widths(), UnitEvidence(seed=3, draw=draw), pooled=True)[1] for draw in (0, 0, 1)
    )
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


@given(data=st.data(), how=st.sampled_from(AGGREGATIONS), pooled=st.booleans())
def test_one_layer_is_its_own_aggregate(data: st.DataObject, how: str, pooled: bool) -> None:
    row = np.array(data.draw(st.lists(st.floats(0, 100), min_size=1, max_size=6)))[None]
    found = aggregate(row, np.full_like(row, 7.0), how, pooled)
    np.testing.assert_allclose(found, row[0], atol=1e-9)


def test_every_saliency_says_what_it_is() -> None:
    assert all(entry.summary and entry.aggregation in AGGREGATIONS for entry in SALIENCIES.values())
