"""The account of a cut for people: layers under their modules' names, equal couplings told once, with what to do."""

from __future__ import annotations

import numpy as np
import pytest
from graphs import Graph

from sparsepack.errors import UnsupportedError
from sparsepack.exporters.slim import slim
from sparsepack.models.graph.advice import explained
from sparsepack.models.graph.labels import labelled
from sparsepack.models.graph.trace import Node


def node(op: str, inputs: tuple[str, ...], label: str) -> Node:
    return Node(0, op, inputs, (f"{label}.out",), {}, label)


def test_an_operator_is_called_after_the_module_whose_parameters_it_reads() -> None:
    nodes = [
        node("Transpose", ("head.fc.weight",), "node_transpose"),
        node("MatMul", ("x", "node_transpose.out"), "node_linear_3"),
        node("Conv", ("x", "stem.conv.weight", "stem.conv.bias"), "Conv_12"),
        node("Conv", ("x", "stem.conv.weight"), "/stem/conv/Conv"),
        node("Add", ("x", "table"), "node_add"),
        node("MatMul", ("x", "y"), "node_product"),
    ]
    found = labelled(nodes, ["head.fc.weight", "stem.conv.weight", "stem.conv.bias", "table"])
    expected = ["head.fc", "head.fc", "stem.conv", "/stem/conv/Conv", "node_add", "node_product"]
    assert [node.label for node in found] == expected


def test_equal_couplings_are_told_once_and_those_of_most_units_first() -> None:
    told = explained(
        {
            "Gather 'words' looks its rows up by a computed or single index": 50,
            "LayerNormalization 'a.norm' normalises over it": 30,
            "LayerNormalization 'b.norm' normalises over it": 40,
            "it is what it is": 1,
        }
    )
    assert [count for _, count in told] == [70, 50, 1]
    assert told[0][0].startswith("LayerNormalization 'a.norm' (and 1 more) normalises over it (mean and variance ")
    assert "cut the table itself" in told[1][0]
    assert told[2][0] == "it is what it is"


def test_a_matrix_that_is_transposed_first_is_named_by_its_parameter() -> None:
    graph = Graph()
    for name, shape in (("up.weight", (6, 4)), ("down.weight", (4, 6))):
        graph.add("Transpose", graph.weight(name, *shape), name=f"{name}.t", perm=[1, 0])
    x = graph.add("Relu", graph.add("MatMul", "x", "up.weight.t"))
    graph.add("MatMul", x, "down.weight.t", name="y")
    account = slim(graph.model({"x": ("batch", 4)}, ["y"]), 0.5).account
    assert [str(row) for row in account.layers] == ["MatMul up: 6 -> 3", "MatMul down: 4"]
    row = next(row for row in account.groups if not row.pinned)
    assert (row.parameters, row.macs, row.bytes) == ((48, 24), (48, 24), (192, 96))


def test_tables_of_indices_are_no_widths() -> None:
    graph = Graph()
    hidden = graph.add("Relu", graph.add("MatMul", "x", graph.weight("a", 4, 6)))
    picked = graph.add("GatherElements", hidden, graph.constant("places", np.zeros((2, 3), np.int64)), axis=1)
    graph.add("MatMul", picked, graph.weight("b", 3, 2), name="y")
    account = slim(graph.model({"x": (2, 4)}, ["y"])).account
    members = [member for row in account.groups for member in row.members]
    assert "a[1]" in members and not any(member.startswith("places") for member in members)


def test_when_nothing_can_go_the_refusal_names_the_coupling_and_what_to_do() -> None:
    graph = Graph()
    x = graph.add("LayerNormalization", "x", graph.weight("norm.weight", 6), graph.weight("norm.bias", 6))
    graph.add("MatMul", x, graph.weight("only", 6, 2), name="y")
    with pytest.raises(UnsupportedError) as caught:
        slim(graph.model({"x": ("batch", 6)}, ["y"]), 0.5)
    assert "it is a dimension of the graph's output 'y' (the result would have another shape" in str(caught.value)
    assert "LayerNormalization 'layernormalization0' normalises over it (mean and variance" in str(caught.value)
