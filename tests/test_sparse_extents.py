"""Extents that must be equal get one name, and no others."""

from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters.sparse_graph.graph import Graph


def shapes_of(nodes: list[onnx.NodeProto], inputs: dict[str, list[Any]], **constants: Any) -> dict[str, list[Any]]:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(value), name) for name, value in constants.items()],
    )
    return Graph(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)).shapes


@pytest.mark.parametrize(
    ("given", "target", "expected"),
    [
        (["n", 6, 8], [-1, 6, 2, 4], "n"),
        (["n", 6, 8], [-1, 48], "n"),
        (["n", 6, 8], [-1, 8], None),
        (["n", 6, 8], [-1, 4, 2], None),
        ([2, 6, 8], [-1, 6, 2, 4], 2),
        (["n", "m", 8], [-1, 6, 8], None),
        ([None, 6, 8], [-1, 6, 2, 4], None),
    ],
)
def test_a_reshape_counts_elements(given: list[Any], target: list[int], expected: Any) -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["y"])]
    found = shapes_of(nodes, {"x": given}, s=np.array(target, np.int64))["y"][0]
    assert found == expected if expected is not None else found not in given


@pytest.mark.parametrize(
    ("operator", "left", "right", "expected"),
    [
        ("Add", ["n", 6, 8], ["n", 6, 8], "n"),
        ("Mul", ["n", 6, 8], [1, 6, 8], "n"),
        ("Sub", ["n", 6, 8], [6, 8], "n"),
        ("Add", ["n", 6, 8], ["m", 6, 8], None),
        ("MatMul", ["n", 6, 8], ["n", 8, 3], "n"),
        ("MatMul", ["n", 6, 8], [8, 3], "n"),
        ("MatMul", ["n", 6, 8], ["m", 8, 3], None),
    ],
)
def test_broadcasting(operator: str, left: list[Any], right: list[Any], expected: str | None) -> None:
    # Behind reshapes, so that inference alone knows none of the names.
    inputs = {"x": left, "z": right}
    nodes = [helper.make_node("Reshape", [name, f"{name}s"], [f"{name}r"]) for name in inputs]
    nodes.append(helper.make_node(operator, ["xr", "zr"], ["y"]))
    targets = {
        f"{name}s": np.array([-1 if isinstance(e, str) else e for e in shape], np.int64)
        for name, shape in inputs.items()
    }
    found = shapes_of(nodes, inputs, **targets)["y"]
    assert found[0] == expected if expected is not None else found[0] not in ("n", "m")
    assert found[1] == 6


def test_an_addend_of_more_dimensions_is_no_batch() -> None:
    nodes = [helper.make_node("Reshape", ["x", "s"], ["r"]), helper.make_node("Add", ["r", "c"], ["y"])]
    found = shapes_of(nodes, {"x": ["n", 8]}, s=np.array([-1, 1, 8]), c=np.zeros((3, 1, 8), np.float32))["y"]
    assert found[0] != "n"
    found = shapes_of(nodes, {"x": ["n", 8]}, s=np.array([-1, 1, 8]), c=np.zeros((1, 1, 8), np.float32))["y"]
    assert found[0] == "n"


@pytest.mark.parametrize(
    ("starts", "ends", "steps", "whole"),
    [
        ([0], [2**63 - 1], [1], True),
        ([0], [5], [1], False),
        ([1], [2**63 - 1], [1], False),
        ([0], [2**63 - 1], [2], False),
    ],
)
def test_a_slice_of_everything(starts: list[int], ends: list[int], steps: list[int], whole: bool) -> None:
    nodes = [
        helper.make_node("Constant", [], ["t"], value_ints=steps),
        helper.make_node("Slice", ["x", "s", "e", "a", "t"], ["y"]),
    ]
    constants = {"s": np.array(starts), "e": np.array(ends), "a": np.array([0])}
    assert (shapes_of(nodes, {"x": ["n", 8]}, **constants)["y"][0] == "n") == whole
