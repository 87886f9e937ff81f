"""Which widths a structure may shrink, what each unit takes with it, and what stays dense and why."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Graph

from sparsepack.compressor.coupling import Coupling, Network, couple
from sparsepack.compressor.structure import Channel
from sparsepack.errors import UnsupportedError, UsageError
from sparsepack.models.graph.coupled import couplings_of_graph
from sparsepack.models.prunable import PrunableTensor, fans


def coupled(graph: Graph, output: str, part: str = "channel", exclude: tuple[str, ...] = (), **shape: int) -> Coupling:
    """Couple the weights of a graph (torch's layout) under a structure."""
    extents: tuple[int | str, ...] = ("batch", *shape.values())
    prunable = [
        PrunableTensor(name, array.shape, "conv" if array.ndim == 4 else "linear", 0, *fans(array.shape))
        for name, array in graph.tensors.items()
        if name.endswith("weight")
    ]
    network = Network(
        couplings_of_graph(graph.model({"x": extents}, [output])),
        {name: array.shape for name, array in graph.tensors.items() if not name.endswith((".mean", ".var"))},
    )
    return couple(network, prunable, Channel(part=part), exclude)


def normalised(graph: Graph, name: str, x: str, inputs: int, outputs: int) -> str:
    x = graph.add(
        "Conv", x, graph.weight(f"{name}.weight", outputs, inputs, 1, 1), graph.weight(f"{name}.bias", outputs)
    )
    entries = [graph.weight(f"{name}.{key}", outputs) for key in ("scale", "shift", "mean")]
    entries.append(graph.constant(f"{name}.var", np.ones(outputs, np.float32)))
    return str(graph.add("BatchNormalization", x, *entries))


def residual() -> tuple[Graph, str]:
    """Return stem -> (+ one block of two convolutions) -> pool -> classifier."""
    graph = Graph()
    stem = graph.add("Relu", normalised(graph, "stem", "x", 3, 4))
    inner = graph.add("Relu", normalised(graph, "inner", stem, 4, 6))
    x = graph.add("Add", stem, normalised(graph, "outer", inner, 6, 4))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    y = graph.add("Gemm", x, graph.weight("fc.weight", 5, 4), graph.weight("fc.bias", 5), transB=1)
    return graph, y


def test_residual_sums_couple_layers_and_bias_and_norm_go_with_them() -> None:
    graph, y = residual()
    found = coupled(graph, y, channels=3, h=8, w=8)
    stem, inner = found.widths
    assert (stem.name, stem.count, stem.size) == ("stem.weight", 4, 3 + 6)
    assert [m.tensor for m in stem.weights] == ["stem.weight", "outer.weight"]
    assert sorted(m.tensor for m in stem.companions) == sorted(
        f"{layer}.{key}" for layer in ("stem", "outer") for key in ("bias", "scale", "shift")
    )
    assert (inner.name, inner.count, inner.size) == ("inner.weight", 6, 4)
    assert found.space.names == ("stem.weight", "inner.weight", "outer.weight")
    assert found.fixed == 0
    assert found.normalised == {"stem.scale", "inner.scale", "outer.scale"}
    assert found.space.warnings == [
        f"'fc.weight' stays dense: it is a dimension of the graph's output '{y}'.",
    ]


def test_what_is_excluded_takes_what_is_coupled_to_it_along() -> None:
    graph, y = residual()
    found = coupled(graph, y, exclude=("out*",), channels=3, h=8, w=8)
    assert [width.name for width in found.widths] == ["inner.weight"]
    assert found.space.excluded == ("outer.weight",)
    assert found.space.unfit["stem.weight"] == "it is coupled to 'outer.weight', which is excluded"
    with pytest.raises(UsageError, match=r"'outter.weight' matches no prunable tensor\. Did you mean 'outer.weight'"):
        coupled(graph, y, exclude=("outter.weight",), channels=3, h=8, w=8)


def attention() -> tuple[Graph, str]:
    """Return x [batch, 3, 8] -> attention with 2 heads of width 4 -> MLP of 6 hidden units -> y [batch, 3, 8]."""
    graph = Graph()
    graph.constant("split", np.array([0, 3, 2, 4]))
    graph.constant("join", np.array([0, 3, 8]))

    def project(name: str, x: str, inputs: int, outputs: int) -> str:
        turned = graph.add("Transpose", graph.weight(f"{name}.weight", outputs, inputs), perm=[1, 0])
        return str(graph.add("Add", graph.add("MatMul", x, turned), graph.weight(f"{name}.bias", outputs)))

    q, k, v = (
        graph.add("Transpose", graph.add("Reshape", project(name, "x", 8, 8), "split"), perm=perm)
        for name, perm in (("q", [0, 2, 1, 3]), ("k", [0, 2, 3, 1]), ("v", [0, 2, 1, 3]))
    )
    mixed = graph.add("MatMul", graph.add("Softmax", graph.add("MatMul", q, k), axis=-1), v)
    joined = graph.add("Reshape", graph.add("Transpose", mixed, perm=[0, 2, 1, 3]), "join")
    x = project("out", joined, 8, 8)
    return graph, project("fc2", graph.add("Relu", project("fc1", x, 8, 6)), 6, 8)


def test_heads_and_neurons_are_told_apart() -> None:
    graph, y = attention()
    heads = coupled(graph, y, "head", tokens=3, features=8)
    (width,) = heads.widths
    assert (width.count, width.size) == (2, 3 * 4 * 8)
    assert sorted(m.tensor for m in (*width.weights, *width.companions)) == sorted(
        f"{name}.{key}" for name in "qkv" for key in ("weight", "bias")
    )
    masks = heads.expand([np.array([False, True])])
    assert masks["k.weight"].tolist() == [[False] * 8] * 4 + [[True] * 8] * 4
    assert "neurons, and the structure is head" in heads.space.unfit["fc1.weight"]
    neurons = coupled(graph, y, "neuron", tokens=3, features=8)
    assert ("fc1.weight", 6) in [(width.name, width.count) for width in neurons.widths]
    assert "heads, and the structure is neuron" in neurons.space.unfit["q.weight"]
    everything = coupled(graph, y, tokens=3, features=8)
    names = [width.name for width in everything.widths]
    assert sorted(names) == sorted(width.name for width in (*heads.widths, *neurons.widths))


def test_nothing_to_prune_says_why() -> None:
    graph, y = residual()
    with pytest.raises(
        UnsupportedError, match=r"structure head\. 'stem.weight' stays dense: its output units are channels"
    ):
        coupled(graph, y, "head", channels=3, h=8, w=8)
