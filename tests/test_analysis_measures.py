"""Measures of masks, weights and predictions against closed forms, brute force and other libraries."""

import itertools
import math

import numpy as np
import numpy.typing as npt
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepack.compressor.analysis.effective import live_weights, unchanged_weights
from sparsepack.compressor.analysis.masks import (
    constant_class,
    hamming_distance,
    jaccard_distance,
    pooled_distance,
    structure_index,
)
from sparsepack.compressor.analysis.pareto import pareto_front
from sparsepack.compressor.analysis.predictions import accuracy, agreement, ensemble_accuracy, softmax
from sparsepack.compressor.analysis.stability import average_ranks, mean_change, rank_correlation
from sparsepack.compressor.mask import BoolArray

bits = st.lists(st.booleans(), min_size=1, max_size=40)


@given(st.data())
def test_distances_are_those_of_sets(data: st.DataObject) -> None:
    first = data.draw(bits)
    second = data.draw(st.lists(st.booleans(), min_size=len(first), max_size=len(first)))
    a, b = ({i for i, bit in enumerate(mask) if bit} for mask in (first, second))
    expected = 1 - len(a & b) / len(a | b) if a | b else 0
    masks = np.array(first), np.array(second)
    assert jaccard_distance(*masks) == pytest.approx(expected)
    assert pooled_distance({"x": masks[0], "y": masks[0]}, {"x": masks[1], "y": masks[1]}) == pytest.approx(expected)
    assert hamming_distance(*masks) == pytest.approx(len(a ^ b) / len(first))


def test_independent_masks_and_nested_ones() -> None:
    numbers = np.random.default_rng(0)
    for q in (0.1, 0.5, 0.9):
        a, b = (numbers.random(200_000) < q for _ in range(2))
        assert jaccard_distance(a, b) == pytest.approx(1 - q / (2 - q), abs=0.01)
    inner = np.arange(100) < 20
    assert jaccard_distance(inner, np.arange(100) < 50) == pytest.approx(1 - 20 / 50)


def test_structure_index() -> None:
    numbers = np.random.default_rng(1)
    found = [structure_index(numbers.random((32, 40, 3, 3)) < 0.3) for _ in range(20)]
    assert np.mean([value for value in found if value is not None]) == pytest.approx(1, abs=0.2)
    whole = np.zeros((4, 10, 3, 3), bool)
    whole[:, :5] = True
    # Every input has all 36 or none: variance 18^2, over that of drawing 36 of 360 with 180 kept.
    assert structure_index(whole) == pytest.approx(18**2 / (36 * 0.25 * (360 - 36) / 359))
    assert structure_index(np.tile(np.array([[True], [False]]), (1, 6))) == 0
    assert structure_index(np.ones((4, 4), bool)) is None and structure_index(np.ones((4, 1), bool)) is None


@given(st.lists(st.integers(0, 5), min_size=1, max_size=30))
def test_ranks_share_the_mean_of_ties(values: list[int]) -> None:
    ordered = sorted(values)
    expected = [np.mean([i for i, other in enumerate(ordered) if other == value]) for value in values]
    np.testing.assert_allclose(average_ranks(np.array(values)), expected)


def test_stability_counts_weights_alive_in_both_rounds() -> None:
    before, after = np.array([1.0, -2.0, 3.0, 9.0]), np.array([1.5, -1.0, 3.0, 0.0])
    alive = np.array([True, True, True, False])
    assert mean_change(before, after, alive) == pytest.approx(0.5)
    assert rank_correlation(before, after, alive) == pytest.approx(0.5)  # ranks 0 1 2 and 1 0 2: 1 - 6 * 2 / 24
    assert rank_correlation(-before, before, alive) == pytest.approx(1)
    assert mean_change(before, after, alive & False) is None
    assert rank_correlation(before, after, np.array([True, False, False, False])) is None
    assert rank_correlation(np.ones(4), after, alive) is None


def test_predictions() -> None:
    outputs = np.array([[1000.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, math.log(2)]])
    probabilities = softmax(outputs)
    np.testing.assert_allclose(probabilities[0], [1, 0, 0], atol=1e-12)
    np.testing.assert_allclose(probabilities[2], [0.25, 0.25, 0.5])
    labels = np.array([0, 1, 1])
    assert accuracy(probabilities, labels) == pytest.approx(2 / 3)
    # Two that are unsure and wrong in different places are right together.
    a = np.array([[0.9, 0.1], [0.6, 0.4]])
    b = np.array([[0.4, 0.6], [0.1, 0.9]])
    truth = np.array([0, 1])
    assert (accuracy(a, truth), accuracy(b, truth), ensemble_accuracy([a, b], truth)) == (0.5, 0.5, 1.0)
    assert agreement(a, b) == 0 and agreement(a, a) == 2
    assert constant_class(np.array([1, 1, 1])) == 1 and constant_class(np.array([1, 0])) is None


@given(st.integers(0, 2**32 - 1))
def test_agreement_bound(seed: int) -> None:
    numbers = np.random.default_rng(seed)
    labels = numbers.integers(0, 3, 50)
    a, b = (numbers.random((50, 3)) + 0.7 * np.eye(3)[labels] for _ in range(2))
    assert agreement(a, b) >= 50 * (accuracy(a, labels) + accuracy(b, labels) - 1) - 1e-9


@given(st.lists(st.tuples(st.integers(0, 6), st.integers(0, 6)), min_size=1, max_size=12))
def test_pareto_front_by_brute_force(points: list[tuple[int, int]]) -> None:
    def beaten(i: int) -> bool:
        return any(other[0] <= points[i][0] and other[1] >= points[i][1] and other != points[i] for other in points)

    front = pareto_front([(float(x), float(y)) for x, y in points])
    assert sorted(front) == [i for i in range(len(points)) if not beaten(i)]
    assert [points[i][0] for i in front] == sorted(points[i][0] for i in front)


class Small(nn.Module):
    """Two layers with a ReLU and a bias that could cancel."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.second = nn.Linear(3, 4), nn.Linear(4, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, 3] to [N, 2]."""
        output: torch.Tensor = self.second(torch.relu(self.first(x)))
        return output


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_weights_is_on_no_path() -> None:
    module = nn.Sequential(nn.Linear(3, 0), nn.Linear(0, 2))
    masks = {name: np.ones(shape, np.bool_) for name, shape in (("0.weight", (0, 3)), ("1.weight", (2, 0)))}
    found = live_weights(module, masks, (torch.zeros(1, 3),))
    assert {name: mask.shape for name, mask in found.items()} == {"0.weight": (0, 3), "1.weight": (2, 0)}


@given(st.integers(0, 2**20 - 1))
def test_live_weights_by_following_every_path(seed: int) -> None:
    drawn = np.array([seed >> i & 1 for i in range(20)], bool)
    masks = {"first.weight": drawn[:12].reshape(4, 3), "second.weight": drawn[12:].reshape(2, 4)}
    module = Small()
    before = {name: value.clone() for name, value in module.state_dict().items()}
    for from_inputs in (False, True):
        expected: dict[str, BoolArray] = {name: np.zeros_like(mask) for name, mask in masks.items()}
        for i, h, o in itertools.product(range(3), range(4), range(2)):
            if masks["first.weight"][h, i] and masks["second.weight"][o, h]:
                expected["first.weight"][h, i] = expected["second.weight"][o, h] = True
        if not from_inputs:
            # A unit without inputs still hands its bias on.
            expected["second.weight"] = masks["second.weight"]
        found = live_weights(module, masks, (torch.randn(2, 3),), from_inputs=from_inputs)
        for name in masks:
            np.testing.assert_array_equal(found[name], expected[name])
    assert all(torch.equal(before[name], value) for name, value in module.state_dict().items())


@pytest.mark.parametrize("seed", range(4))
def test_live_weights_of_pruned_inputs_are_those_of_the_formula(seed: int) -> None:
    """Whole inputs pruned: 9 c2 + 9 c2 a + fc1 fc2 + fc2 fc3 + 10 fc3 weights are left that lead to an output."""
    from sparsepack.models.zoo.lenet import LeNetS4

    module = LeNetS4(1, (0, 0, 0, 0), 400, 10)
    numbers = np.random.default_rng(seed)
    inputs = {"conv1": (1, 1), "conv2": (6, 3), "fc1": (400, 40), "fc2": (120, 30), "fc3": (84, 20)}
    masks: dict[str, BoolArray] = {}
    chosen: dict[str, npt.NDArray[np.int64]] = {}
    for name, (count, left) in inputs.items():
        weight = getattr(module, name).weight
        chosen[name] = numbers.permutation(count)[:left]
        mask = np.zeros(tuple(weight.shape), bool)
        mask[:, chosen[name]] = True
        masks[f"{name}.weight"] = mask
    live = live_weights(module, masks, (torch.zeros(1, 1, 28, 28),))
    channels = len(set(chosen["fc1"] // 25))
    assert int(live["conv1.weight"].sum()) == 9 * 3
    assert int(live["conv2.weight"].sum()) == 9 * 3 * channels
    assert [int(live[f"fc{n}.weight"].sum()) for n in (1, 2, 3)] == [40 * 30, 30 * 20, 20 * 10]


def test_unchanged_weights() -> None:
    begin, end = {"w": np.array([1.0, 2.0, 0.0, 4.0])}, {"w": np.array([1.0, 2.5, 0.0, 0.0])}
    assert unchanged_weights(begin, end, {"w": np.array([True, True, True, False])}) == 2
