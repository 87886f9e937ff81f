"""Reading large weights without copies gives what reading them with copies gives."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Graph
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepack.models.graph import groups, trace
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.trace import slice_values
from sparsepack.models.graph.weights import Weights

Slice = tuple[int, list[int]]


@given(
    shape=st.lists(st.integers(1, 5), min_size=1, max_size=3),
    seed=st.integers(0, 999),
    density=st.sampled_from([0.0, 0.1, 0.9]),
    chunk=st.sampled_from([1, 7, 1 << 22]),
    data=st.data(),
)
@settings(max_examples=150, deadline=None)
def test_slices_read_as_zero_are_those_of_a_masked_copy(
    shape: list[int], seed: int, density: float, chunk: int, data: st.DataObject
) -> None:
    random = np.random.default_rng(seed)
    array = random.choice([1.0, 2.0], shape) * (random.random(shape) < density)
    axes = st.integers(0, len(shape) - 1)
    zeroed = [
        (axis, np.array(sorted(data.draw(st.sets(st.integers(0, shape[axis] - 1)))), np.int64))
        for axis in data.draw(st.lists(axes, max_size=3))
    ]
    masked = array.copy()
    for axis, indices in zeroed:
        masked[(slice(None),) * axis + (indices,)] = 0
    axis = data.draw(axes)
    expected = [row.flat[0] if (row == row.flat[0]).all() else np.nan for row in np.moveaxis(masked, axis, 0)]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(trace, "_CHUNK", chunk)
        found = slice_values(array.astype(np.float32), axis, zeroed)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("chunk", [1, 10, 1 << 22])
@pytest.mark.parametrize("power", [1, 2])
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_norms_do_not_depend_on_how_many_rows_are_summed_at_a_time(
    monkeypatch: pytest.MonkeyPatch, chunk: int, power: int, axis: int
) -> None:
    array = np.random.default_rng(1).standard_normal((7, 4, 3)).astype(np.float32)
    monkeypatch.setattr(groups, "_CHUNK", chunk)
    others = tuple(a for a in range(3) if a != axis)
    expected = (np.abs(array.astype(np.float64)) ** power).sum(axis=others)
    np.testing.assert_allclose(groups._reduce(array, axis, power), expected, rtol=1e-12)


def test_a_moved_weight_is_live_where_its_masked_values_are_not_zero() -> None:
    graph = Graph()
    graph.weight("w", 4, 6)
    graph.tensors["w"][1, 2] = 0
    turned = graph.add("Transpose", "w", perm=[1, 0])
    picked = graph.add("Gather", turned, graph.constant("rows", np.array([5, 2, 0])), axis=0)
    graph.add("MatMul", "x", picked, name="y")
    dimensions = analyse(graph.model({"x": ("batch", 3)}, ["y"]))
    weights = Weights(dimensions, {"w": [(0, np.array([3])), (1, np.array([0]))]})
    np.testing.assert_array_equal(weights.live(picked), weights[picked] != 0)
    assert weights.live(picked).tolist() == [[True, True, True, False], [True, False, True, False], [False] * 4]
