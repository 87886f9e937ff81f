"""The removable structure of small random graphs against a brute-force search that shares no code with it.

The search tries every set of hidden units, follows removed positions by hand, and replaces removed activations by
their value on one sample: the set is valid when the widths still match and the output stays the same.
"""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from graphs import Graph, copy, difference, run

from sparsepack.exporters.slim import slim

Array = npt.NDArray[Any]
Step = tuple[str, tuple[int, ...], str]


def random_network(seed: int) -> tuple[list[Step], dict[str, Array], list[int]]:
    """Return steps (operator, operand positions, weight), weights, and the width of every value."""
    random = np.random.default_rng(seed)
    steps: list[Step] = []
    weights: dict[str, Array] = {}
    width = [3]
    hidden = 0
    while hidden < 3 or len(steps) < 6:
        kind = random.choice(["linear", "relu", "add", "concat"] if hidden < 4 else ["relu", "add", "concat"])
        source = int(random.integers(len(width)))
        if kind == "linear":
            size = int(random.integers(1, 4))
            name = f"w{len(steps)}"
            matrix = random.standard_normal((width[source], size)) * (random.random((width[source], size)) < 0.6)
            bias = random.standard_normal(size) * (random.random(size) < 0.4)
            weights[name], weights[f"{name}.bias"] = matrix.astype(np.float32), bias.astype(np.float32)
            steps.append(("linear", (source,), name))
            width.append(size)
            hidden += 1
        elif kind == "relu":
            steps.append(("relu", (source,), ""))
            width.append(width[source])
        else:
            other = int(random.integers(len(width)))
            if kind == "add" and width[source] != width[other]:
                continue
            steps.append((kind, (source, other), ""))
            width.append(width[source] if kind == "add" else width[source] + width[other])
            if width[-1] > 6:
                return random_network(seed + 1000)
    last = f"w{len(steps)}"
    weights[last] = (random.standard_normal((width[-1], 2)) * (random.random((width[-1], 2)) < 0.8)).astype(np.float32)
    weights[f"{last}.bias"] = np.zeros(2, np.float32)
    steps.append(("linear", (len(width) - 1,), last))
    width.append(2)
    return steps, weights, width


def simulate(
    steps: list[Step], weights: dict[str, Array], x: Array, removed: dict[int, frozenset[int]] | None = None
) -> tuple[Array, list[frozenset[int]]] | None:
    """Run the network without the removed positions of each linear step; None when the widths do not match."""
    values, gone = [x.astype(np.float64)], [frozenset[int]()]
    removed = removed or {}
    for index, (kind, sources, name) in enumerate(steps):
        operands = [values[source] for source in sources]
        holes = [gone[source] for source in sources]
        if kind == "linear":
            # A constant can be folded into the bias: read its value on the first sample.
            data = operands[0].copy()
            for position in holes[0]:
                data[:, position] = data[0, position]
            values.append(data @ weights[name].astype(np.float64) + weights[f"{name}.bias"])
            gone.append(removed.get(index, frozenset()))
        elif kind == "relu":
            values.append(np.maximum(operands[0], 0))
            gone.append(holes[0])
        elif kind == "add":
            if holes[0] != holes[1]:
                return None
            values.append(operands[0] + operands[1])
            gone.append(holes[0])
        else:
            values.append(np.concatenate(operands, 1))
            shift = operands[0].shape[1]
            gone.append(holes[0] | {shift + position for position in holes[1]})
        if len(gone[-1]) == values[-1].shape[1]:
            return None
    return (values[-1], gone) if not gone[-1] else None


def reached(steps: list[Step]) -> set[int]:
    """Return the linear steps that the output is computed from."""
    found, wanted = set(), {len(steps)}
    for index in reversed(range(len(steps))):
        if index + 1 in wanted:
            wanted.update(steps[index][1])
            if steps[index][0] == "linear":
                found.add(index)
    return found


def search(steps: list[Step], weights: dict[str, Array], x: Array) -> int:
    """Return the largest number of units that can be removed exactly."""
    simulated = simulate(steps, weights, x)
    assert simulated is not None
    expected = simulated[0]
    last = len(steps) - 1
    units = [(k, c) for k in sorted(reached(steps) - {last}) for c in range(weights[steps[k][2]].shape[1])]
    for count in range(len(units), 0, -1):
        for chosen in itertools.combinations(units, count):
            removed = {k: frozenset(c for j, c in chosen if j == k) for k, _ in chosen}
            result = simulate(steps, weights, x, removed)
            if result is not None and np.allclose(result[0], expected, atol=1e-9):
                return count
    return 0


@pytest.mark.parametrize("seed", range(60))
def test_as_many_units_go_as_a_brute_force_search_finds(seed: int) -> None:
    steps, weights, _ = random_network(seed)
    live = reached(steps)
    graph = Graph()
    names = ["x"]
    for index, (kind, sources, name) in enumerate(steps):
        operands = [names[source] for source in sources]
        if kind == "linear":
            for key in (name, f"{name}.bias"):
                graph.constant(key, weights[key])
            names.append(graph.add("Gemm", *operands, name, f"{name}.bias", name=f"y{index}"))
        elif kind == "concat":
            names.append(graph.add("Concat", *operands, name=f"y{index}", axis=1))
        else:
            names.append(graph.add(kind.capitalize(), *operands, name=f"y{index}"))
    kept = [index for index in range(len(steps)) if _used(steps, index)]
    graph.nodes = [graph.nodes[index] for index in kept]
    used = {name for node in graph.nodes for name in node.input}
    graph.tensors = {name: array for name, array in graph.tensors.items() if name in used}
    model = graph.model({"x": ("batch", 3)}, [names[-1]])
    x = np.random.default_rng(seed).standard_normal((40, 3)).astype(np.float32)
    slimmed = slim(copy(model)).model
    before, after = ({t.name: t.dims for t in m.graph.initializer} for m in (model, slimmed))
    gone = sum(before[steps[k][2]][1] - after[steps[k][2]][1] for k in live if steps[k][2] in after)
    assert gone == search(steps, weights, x)
    if float(run(model, {"x": x})[0].std(axis=0).mean()) > 0:
        assert difference(model, slimmed, {"x": x}) < 1e-4


def _used(steps: list[Step], index: int) -> bool:
    wanted = {len(steps)}
    for position in reversed(range(len(steps))):
        if position + 1 in wanted:
            if position == index:
                return True
            wanted.update(steps[position][1])
    return False
