"""Explicit against effective sparsity of structured masks, against the closed form for the LeNet of paper S4."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Graph, copy, difference, widths

from sparsepack.exporters.slim import slim

# Live inputs of conv1, conv2, fc1, fc2, fc3 in rounds 5, 10 and 20 (20 % of the remaining inputs go each round).
ROUNDS = {5: (1, 2, 131, 40, 27), 10: (1, 2, 43, 14, 10), 20: (1, 2, 5, 2, 2)}


@pytest.mark.parametrize("number", ROUNDS)
def test_the_effective_sparsity_of_masked_inputs_is_the_closed_form(number: int) -> None:
    _, conv2, fc1, fc2, fc3 = ROUNDS[number]
    graph = Graph(number)
    shapes = {"conv2": (16, 6, 3, 3), "fc1": (120, 400), "fc2": (84, 120), "fc3": (10, 84)}
    live = {}
    graph.weight("conv1", 6, 1, 3, 3)
    for (name, shape), count in zip(shapes.items(), (conv2, fc1, fc2, fc3), strict=True):
        graph.weight(name, *shape, scale=0.3)
        live[name] = np.sort(graph.random.permutation(shape[1])[:count])
        graph.tensors[name][:, np.setdiff1d(np.arange(shape[1]), live[name])] = 0
    x = graph.add("MaxPool", graph.add("Tanh", graph.add("Conv", "x", "conv1")), kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("MaxPool", graph.add("Tanh", graph.add("Conv", x, "conv2")), kernel_shape=[2, 2], strides=[2, 2])
    x = graph.add("Flatten", x)
    for name in ("fc1", "fc2"):
        x = graph.add("Tanh", graph.add("Gemm", x, name, graph.weight(f"{name}.bias", shapes[name][0]), transB=1))
    graph.add("Gemm", x, "fc3", name="y", transB=1)
    # 26 x 26 -> conv 24 -> 12 -> conv 10 -> 5: sixteen maps of 5 x 5.
    model = graph.model({"x": ("batch", 1, 26, 26)}, ["y"])
    slimmed = slim(copy(model))
    maps = np.unique(live["fc1"] // 25).size
    effective = 9 * conv2 + 9 * conv2 * maps + fc1 * fc2 + fc2 * fc3 + 10 * fc3
    total = 54 + 864 + 48_000 + 10_080 + 840
    assert slimmed.account.weights == (total, _nonzero(graph), effective)
    shapes_after = widths(slimmed.model)
    assert shapes_after["conv2"][:2] == (maps, conv2)
    assert (shapes_after["fc2"], shapes_after["fc3"]) == ((fc3, fc2), (10, fc3))
    images = np.random.default_rng(0).standard_normal((8, 1, 26, 26)).astype(np.float32)
    assert difference(model, slimmed.model, {"x": images}) < 1e-4


def _nonzero(graph: Graph) -> int:
    return sum(int(np.count_nonzero(a)) for name, a in graph.tensors.items() if not name.endswith("bias"))


def test_the_parity_bound_sees_a_layer_that_is_zeroed() -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("MatMul", "x", graph.weight("a", 3, 4)))
    graph.add(
        "Add",
        graph.add("MatMul", x, graph.weight("b", 4, 2)),
        graph.add("MatMul", "x", graph.weight("c", 3, 2)),
        name="y",
    )
    model = graph.model({"x": ("batch", 3)}, ["y"])
    graph.tensors["b"][:] = 0
    zeroed = graph.model({"x": ("batch", 3)}, ["y"])
    x_values = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    assert difference(model, zeroed, {"x": x_values}) > 1e-2
