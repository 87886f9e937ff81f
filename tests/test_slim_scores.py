"""Scores and selection of coupled units, against values worked out by hand."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import pytest
from graphs import Graph

from sparsepack.errors import UnknownNameError
from sparsepack.models.graph.dimensions import Dimensions, analyse
from sparsepack.models.graph.groups import (
    SCORES,
    Group,
    find_groups,
    random_score,
    score_named,
    select,
    taylor,
)
from sparsepack.models.graph.weights import Weights

# Three filters of two weights: (3, -4), (1, 0), (0, 0.5).
FILTERS = np.array([[3, -4], [1, 0], [0, 0.5]], np.float32)
SCALES = np.array([-0.5, 2.0, 0.25], np.float32)


def two_layers() -> tuple[Dimensions, dict[str, Group], Weights]:
    """Return x -> conv a (3 filters) -> BatchNorm -> conv b (2 filters of the same three inputs) -> conv c -> y."""
    graph = Graph()
    graph.constant("a.weight", FILTERS.reshape(3, 2, 1, 1))
    x = graph.add("Conv", "x", "a.weight")
    statistics = [graph.constant("n.scale", SCALES), graph.constant("n.shift", np.zeros(3, np.float32))]
    statistics += [graph.constant("n.mean", np.zeros(3, np.float32)), graph.constant("n.var", np.ones(3, np.float32))]
    x = graph.add("BatchNormalization", x, *statistics)
    x = graph.add("Conv", x, graph.constant("b.weight", np.arange(12, dtype=np.float32).reshape(4, 3, 1, 1)))
    graph.add("Conv", x, graph.weight("c.weight", 2, 4, 1, 1), name="y")
    dimensions = analyse(graph.model({"x": ("batch", 2, 4, 4)}, ["y"]))
    groups = {group.name: group for group in find_groups(dimensions)}
    return dimensions, groups, Weights(dimensions)


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("l1", [7.0, 1.0, 0.5]),
        ("l2", [5.0, 1.0, 0.5]),
        ("batch-norm-scale", [0.5, 2.0, 0.25]),
        # Distances: |f0-f1| = sqrt(4 + 16), |f0-f2| = sqrt(9 + 20.25), |f1-f2| = sqrt(1 + 0.25).
        (
            "geometric-median",
            [20**0.5 + 29.25**0.5, 20**0.5 + 1.25**0.5, 29.25**0.5 + 1.25**0.5],
        ),
    ],
)
def test_scores_are_their_closed_forms(name: str, expected: list[float]) -> None:
    _, groups, weights = two_layers()
    np.testing.assert_allclose(SCORES[name](groups["a.weight"], weights), expected, rtol=1e-6)


def test_a_group_without_batch_norm_is_scored_by_l1() -> None:
    _, groups, weights = two_layers()
    found = SCORES["batch-norm-scale"](groups["b.weight"], weights)
    np.testing.assert_allclose(found, [3.0, 12.0, 21.0, 30.0])


def test_taylor_is_the_squared_sum_of_weight_times_gradient() -> None:
    _, groups, weights = two_layers()
    gradients: Mapping[str, np.ndarray] = {
        "a.weight": np.array([[1, 2], [-3, 5], [1, 4]], np.float64).reshape(3, 2, 1, 1),
        "n.scale": np.array([2.0, 1.0, 0.0]),
    }
    # (3 - 8) + (-0.5 * 2) = -6; -3 + 2 = -1; 2 + 0 = 2.
    np.testing.assert_allclose(taylor(gradients)(groups["a.weight"], weights), [36.0, 1.0, 4.0])


def test_random_scores_repeat_with_their_seed() -> None:
    _, groups, weights = two_layers()
    first, again, other = (random_score(seed)(groups["a.weight"], weights) for seed in (1, 1, 2))
    np.testing.assert_array_equal(first, again)
    assert (first != other).any()


def test_an_unknown_score_suggests_the_near_miss() -> None:
    with pytest.raises(UnknownNameError, match="Did you mean 'geometric-median'"):
        score_named("geometric-medium")


def test_ranking_across_groups_divides_by_each_groups_mean() -> None:
    _, groups, _ = two_layers()
    free = [groups["a.weight"], groups["b.weight"]]
    # Relative: (0.3, 1.2, 1.5) and (0.4, 0.4, 1.6, 1.6); 3 of the 7 lowest are 0.3, 0.4, 0.4.
    scores = {"a.weight": np.array([1.0, 4.0, 5.0]), "b.weight": np.array([10.0, 40.0, 10.0, 40.0])}
    chosen = select(free, scores, 0.5, across=True)
    a, b = (group.units.tolist() for group in free)
    assert chosen == {a[0], b[0], b[2]}
    # Group by group the kept share is rounded down: 1 of 3 and 2 of 4 stay.
    assert select(free, scores, 0.5) == {a[0], a[1], b[0], b[2]}


def test_ties_across_groups_take_no_more_than_the_share() -> None:
    _, groups, _ = two_layers()
    free = [groups["a.weight"], groups["b.weight"]]
    chosen = select(free, {"a.weight": np.ones(3), "b.weight": np.ones(4)}, 0.3, across=True)
    assert chosen == set(free[0].units.tolist()[:2])


def test_one_unit_of_every_group_stays() -> None:
    _, groups, _ = two_layers()
    free = [groups["a.weight"], groups["b.weight"]]
    scores = {"a.weight": np.zeros(3), "b.weight": np.array([1e3, 2e3, 3e3, 4e3])}
    chosen = select(free, scores, 0.6, across=True)
    assert len(chosen & set(free[0].units.tolist())) == 2
