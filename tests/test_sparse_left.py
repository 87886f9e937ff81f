"""Sparse weights on the left of a product: the operator against float64, and the exporter that finds them."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from test_sparse_operators import FULL, MATRIX, MG, MV, OPSET, draw, node_model, session

from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.exporters.sparse_graph.gaps import pack
from sparsepack.exporters.sparse_graph.rewrite import rewrite
from sparsepack.files import Array
from sparsepack.models.layer_costs import LayerShape
from sparsepack.runtimes.onnx_session import session_errors
from sparsepack.runtimes.tune import one_node_model

LEFT = {**FULL, "left": 1}


def product(weight: Array, x: Array, options: dict[str, Any], bias: Array | None, library: Path) -> list[Array]:
    """Run ``weight @ x`` on one and two threads, often enough that the layer knows its threads."""
    stored = weight.T.copy() if options.get("transA") else weight
    mask = stored != 0
    constants = {"g": pack(mask), "v": stored[mask], "b": bias}
    model = node_model("SparseMatMul", constants, {"shape": list(stored.shape), "left": 1, **options})
    found = []
    for threads in (1, 2):
        opened = session(model, library, threads)
        found += [opened.run(None, {"x": x})[0] for _ in range(6)]
    return found


@pytest.mark.native
@pytest.mark.parametrize("columns", [1, 2, 7, 16, 33, 128, 201])
@pytest.mark.parametrize("batch", [(), (3,), (2, 3), (0,)])
def test_a_weight_on_the_left_equals_float64(columns: int, batch: tuple[int, ...], operators: Path) -> None:
    weight = draw((45, 70), 0.2, seed=columns)
    x, bias = draw((*batch, 70, columns), 1.0, seed=1), draw((45, 1), 1.0, seed=2)
    expected = weight.astype(np.float64) @ x.astype(np.float64)
    for options in ({}, {"transA": 1}, {"input_size": [columns]}):
        for found in product(weight, x, options, None, operators):
            np.testing.assert_allclose(found, expected, rtol=1e-5, atol=2e-5)
    for found in product(weight, x, {"activation": "Relu"}, bias, operators):
        np.testing.assert_allclose(found, np.maximum(expected + bias, 0), rtol=1e-5, atol=2e-5)


@pytest.mark.native
def test_matrices_of_a_batch_do_not_depend_on_each_other(operators: Path) -> None:
    weight, x = draw((30, 50), 0.3), draw((4, 50, 37), 1.0)
    together = product(weight, x, {}, None, operators)[0]
    for index in range(4):
        np.testing.assert_array_equal(product(weight, x[index], {}, None, operators)[-1], together[index])


@pytest.mark.native
@pytest.mark.parametrize("columns", [1, 13])
@pytest.mark.parametrize("activation", ["", "Silu"])
def test_scales_belong_to_outputs_and_the_residual_comes_before_the_activation(
    columns: int, activation: str, operators: Path
) -> None:
    weight = np.rint(draw((6, 5), 0.5) * 10).astype(np.float32)
    scales = np.array([0.5, 1.0, 2.0, 4.0, 0.25, 3.0], np.float32)
    x, residual = draw((2, 5, columns), 1.0, seed=1), draw((2, 6, columns), 1.0, seed=2)
    constants = {"g": pack(weight != 0), "v": weight[weight != 0].astype(np.int8), "b": None, "r": residual}
    attributes = {**LEFT, "scales": scales.tolist(), "activation": activation}
    found = session(node_model("SparseMatMul", {**constants}, attributes), operators).run(None, {"x": x})[0]
    expected = (scales[:, None] * weight).astype(np.float64) @ x + residual
    if activation:
        expected = expected / (1 + np.exp(-expected))
    np.testing.assert_allclose(found, expected, rtol=1e-5, atol=1e-4)


MALFORMED: dict[str, tuple[dict[str, Array | None], dict[str, Any], tuple[int, ...], str]] = {
    "a vector": ({"g": MG, "v": MV}, LEFT, (5,), "last dimension but one of 5"),
    "the other way round": ({"g": MG, "v": MV}, LEFT, (6, 3), "last dimension but one of 5"),
    "a bias for columns": ({"g": MG, "v": MV, "b": np.ones(6, np.float32)}, LEFT, (5, 3), "expected [6, 1]"),
    "a residual": ({"g": MG, "v": MV, "b": None, "r": np.ones((5, 3), np.float32)}, LEFT, (5, 3), "expected [6, 3]"),
    "transB": ({"g": MG, "v": MV}, {**LEFT, "transB": 1}, (5, 3), "transA, not transB"),
    "transY": ({"g": MG, "v": MV}, {**LEFT, "transY": 1}, (5, 3), "transY is for weights on the right"),
    "a negative size": ({"g": MG, "v": MV}, {**LEFT, "input_size": [-1]}, (5, 3), "one positive value"),
    "two sizes": ({"g": MG, "v": MV}, {**LEFT, "input_size": [3, 3]}, (5, 3), "one positive value"),
    "no shape": ({"g": MG, "v": MV}, {"left": 1}, (5, 3), "shape must be two positive values"),
    "outside": ({"g": MG, "v": MV}, {**LEFT, "shape": [2, 2]}, (2, 3), "outside"),
}


@pytest.mark.native
@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_products_are_refused(case: str, operators: Path) -> None:
    constants, attributes, shape, text = MALFORMED[case]
    with pytest.raises(session_errors()) as caught:
        session(node_model("SparseMatMul", constants, attributes), operators).run(
            None, {"x": np.ones(shape, np.float32)}
        )
    assert "sparsepack::SparseMatMul:" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.native
@pytest.mark.parametrize("shape", [(0, 3), (5, 0), (2, 5, 0)])
def test_empty_inputs(shape: tuple[int, ...], operators: Path) -> None:
    opened = session(node_model("SparseMatMul", {"g": MG, "v": MV}, LEFT), operators)
    x = np.ones(shape, np.float32)
    if shape[-2] == MATRIX.shape[1]:
        assert opened.run(None, {"x": x})[0].shape == (MATRIX @ x).shape
    else:
        with pytest.raises(session_errors(), match="last dimension but one"):
            opened.run(None, {"x": x})


def left_model(
    operator: str,
    shape: list[Any],
    *after: onnx.NodeProto,
    weight: Array | None = None,
    flip: bool = False,
    **options: Any,
) -> onnx.ModelProto:
    """``w @ x`` with what follows; ``c`` is a bias for rows, ``d`` one for columns."""
    weight = draw((24, 40), 0.2) if weight is None else weight
    constants = {"w": weight, "c": draw((24, 1), 1.0, seed=5), "d": draw((9,), 1.0, seed=6)}
    names = ["w", "x"]
    nodes = []
    if flip:
        nodes.append(helper.make_node("Transpose", ["w"], ["t"], perm=[1, 0]))
        names[0] = "t"
    if operator == "Gemm":
        names.append(options.pop("bias", "c"))
    nodes += [helper.make_node(operator, names, ["m"], **options), *after]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info(nodes[-1].output[0], TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=OPSET[:1], ir_version=10)


BIAS = helper.make_node("Add", ["m", "c"], ["a"])
RELU = helper.make_node("Relu", ["a"], ["y"])
TURNED = np.ascontiguousarray(draw((24, 40), 0.2).T)


@pytest.mark.native
@pytest.mark.parametrize(
    ("model", "shapes"),
    [
        (left_model("MatMul", [40, "p"], BIAS, RELU), [(40, 9), (40, 1), (40, 70)]),
        (left_model("MatMul", ["n", 40, 9], BIAS, RELU), [(1, 40, 9), (5, 40, 9)]),
        (left_model("MatMul", ["n", 3, 40, 9], BIAS, RELU), [(2, 3, 40, 9)]),
        (left_model("MatMul", ["n", 40, 9], BIAS, RELU, weight=TURNED, flip=True), [(2, 40, 9)]),
        (left_model("Gemm", [40, 9]), [(40, 9)]),
        (left_model("Gemm", [40, 9], weight=TURNED, transA=1), [(40, 9)]),
        (left_model("Gemm", [40, 9], flip=True, transA=1), [(40, 9)]),
        (left_model("MatMul", ["n", 40, 9], helper.make_node("Add", ["m", "d"], ["y"])), [(3, 40, 9)]),
    ],
)
def test_the_exporter_takes_weights_on_the_left(
    model: onnx.ModelProto, shapes: list[tuple[int, ...]], operators: Path
) -> None:
    rewritten = rewrite(model, costs=ALWAYS_SPARSE)
    assert [choice.sparse for choice in rewritten.choices] == [True]
    kinds = [node.op_type for node in rewritten.model.graph.node]
    # A bias for columns is none for the operator, and stays an Add.
    columns = model.graph.node[-1].op_type == "Add"
    assert kinds == ["SparseMatMul", "Add"] if columns else kinds == ["SparseMatMul"]
    dense, sparse = session(model, operators), session(rewritten.model, operators)
    for shape in shapes:
        x = draw(shape, 1.0, seed=3)
        np.testing.assert_allclose(sparse.run(None, {"x": x})[0], dense.run(None, {"x": x})[0], rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    "model",
    [
        left_model("Gemm", [9, 40], transB=1),
        left_model("Gemm", [40, 9], alpha=2.0),
        left_model("Gemm", [40, 9], bias="d"),
        left_model("MatMul", [40]),
    ],
)
def test_products_that_the_operator_does_not_compute_stay_dense(model: onnx.ModelProto) -> None:
    assert not rewrite(model, costs=ALWAYS_SPARSE).choices


@pytest.mark.parametrize(
    ("weight", "extents", "density", "sparse"),
    [
        ((256, 256), (4, 256, 196), 0.1, True),
        # Many outputs of few columns: half of every vector is empty.
        ((1024, 32), (8, 32, 8), 0.4, False),
        ((256, 256), (4, 256, 196), 0.6, False),
    ],
)
def test_the_model_of_costs_chooses(
    weight: tuple[int, int], extents: tuple[int, ...], density: float, sparse: bool
) -> None:
    model = one_node_model(LayerShape("MatMul", extents, weight, transposed=True, left=True))
    (constant,) = model.graph.initializer
    constant.CopyFrom(numpy_helper.from_array(draw(weight, density), constant.name))
    (choice,) = rewrite(model).choices
    assert choice.sparse is sparse
    assert choice.macs == weight[0] * weight[1] * extents[-1]
