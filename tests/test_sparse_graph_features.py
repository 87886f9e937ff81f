"""What the exporter fuses and understands around a sparse layer, held to ONNX Runtime's own result."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.exporters.sparse_graph.rewrite import rewrite
from sparsepack.files import Array

Nodes = list[onnx.NodeProto]


def sparse_weight(*shape: int) -> Array:
    rng = np.random.default_rng(0)
    return (rng.standard_normal(shape) * (rng.random(shape) < 0.3)).astype(np.float32)


def model_of(nodes: Nodes, constants: dict[str, Any], shape: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(np.asarray(array, np.float32), name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def compared(model: onnx.ModelProto, library: Path, x: Array) -> Nodes:
    """Run both graphs and return the sparse one's nodes."""
    sparse = rewrite(model, costs=ALWAYS_SPARSE).model
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(library))
    expected, found = (
        onnxruntime.InferenceSession(graph.SerializeToString(), options).run(None, {"x": x})[0]
        for graph in (model, sparse)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    return list(sparse.graph.node)


ROOT = 2**0.5
GELU = {
    "product first": [
        ("Div", "a", "r", "d"),
        ("Erf", "d", "e"),
        ("Add", "e", "one", "s"),
        ("Mul", "a", "s", "p"),
        ("Mul", "p", "half", "y"),
    ],
    "half first": [
        ("Mul", "a", "half", "p"),
        ("Div", "a", "r", "d"),
        ("Erf", "d", "e"),
        ("Add", "one", "e", "s"),
        ("Mul", "p", "s", "y"),
    ],
    "half last": [
        ("Mul", "inverse", "a", "d"),
        ("Erf", "d", "e"),
        ("Add", "e", "one", "s"),
        ("Mul", "half", "s", "p"),
        ("Mul", "a", "p", "y"),
    ],
}
NUMBERS = {"r": ROOT, "inverse": 1 / ROOT, "one": 1.0, "half": 0.5, "third": 1 / 3}


def after_product(steps: list[tuple[str, ...]]) -> onnx.ModelProto:
    nodes = [helper.make_node("MatMul", ["x", "w"], ["a"])]
    nodes += [helper.make_node(operator, list(names[:-1]), [names[-1]]) for operator, *names in steps]
    used = {name for node in nodes for name in node.input}
    constants = {"w": sparse_weight(24, 40), **{name: value for name, value in NUMBERS.items() if name in used}}
    return model_of(nodes, constants, ["n", 24])


@pytest.mark.native
@pytest.mark.parametrize("order", GELU)
def test_gelu_by_the_error_function_is_fused(order: str, operators: Path) -> None:
    x = 2 * np.random.default_rng(1).standard_normal((5, 24), np.float32)
    (node,) = compared(after_product(GELU[order]), operators, x)
    assert node.op_type == "SparseMatMul"
    assert {a.name: a.s for a in node.attribute}["activation"] == b"Gelu"


@pytest.mark.native
def test_silu_is_fused(operators: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, 24), np.float32)
    for factors in (("a", "g"), ("g", "a")):
        (node,) = compared(after_product([("Sigmoid", "a", "g"), ("Mul", *factors, "y")]), operators, x)
        assert {a.name: a.s for a in node.attribute}["activation"] == b"Silu"


@pytest.mark.native
@pytest.mark.parametrize(
    "steps",
    [
        # Other constants, other readers, other orders: none of these is the activation.
        [("Div", "a", "half", "d"), *GELU["product first"][1:]],
        [*GELU["product first"][:-1], ("Mul", "p", "third", "y")],
        [("Sigmoid", "a", "g"), ("Mul", "g", "g", "h"), ("Add", "h", "a", "y")],
        [("Sigmoid", "a", "g"), ("Mul", "a", "g", "p"), ("Add", "p", "g", "y")],
        [("Sigmoid", "a", "g"), ("Mul", "a", "g", "p"), ("Add", "p", "a", "y")],
    ],
)
def test_what_only_looks_alike_is_left(steps: list[tuple[str, ...]], operators: Path) -> None:
    x = np.random.default_rng(1).standard_normal((5, 24), np.float32)
    nodes = compared(after_product(steps), operators, x)
    assert len(nodes) == 1 + len(steps)


@pytest.mark.native
@pytest.mark.parametrize("named", ["SAME_UPPER", "SAME_LOWER", "VALID"])
@pytest.mark.parametrize(("stride", "kernel"), [(1, 3), (2, 3), (3, 2), (1, 4)])
def test_named_padding(named: str, stride: int, kernel: int, operators: Path) -> None:
    settings: dict[str, Any] = {"auto_pad": named, "strides": [stride] * 2}
    node = helper.make_node("Conv", ["x", "w"], ["y"], **settings)
    model = model_of([node], {"w": sparse_weight(6, 4, kernel, kernel)}, [1, 4, 11, 8])
    (found,) = compared(model, operators, np.random.default_rng(1).standard_normal((1, 4, 11, 8), np.float32))
    assert found.op_type == "SparseConv"


def test_named_padding_of_an_unknown_size_stays_dense() -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="SAME_UPPER")
    model = model_of([node], {"w": sparse_weight(6, 4, 3, 3)}, [1, 4, "h", "w"])
    assert [n.op_type for n in rewrite(model, costs=ALWAYS_SPARSE).model.graph.node] == ["Conv"]
    node = helper.make_node("Conv", ["x", "w"], ["y"], auto_pad="VALID")
    model = model_of([node], {"w": sparse_weight(6, 4, 3, 3)}, [1, 4, "h", "w"])
    assert [n.op_type for n in rewrite(model, costs=ALWAYS_SPARSE).model.graph.node] == ["SparseConv"]


@pytest.mark.native
@pytest.mark.parametrize("group", [1, 2, 4])
def test_one_dimension_and_groups(group: int, operators: Path) -> None:
    node = helper.make_node("Conv", ["x", "w"], ["y"], group=group, pads=[2, 1], strides=[2], dilations=[2])
    model = model_of([node], {"w": sparse_weight(8, 4 // group, 3)}, [2, 4, 17])
    (found,) = compared(model, operators, np.random.default_rng(1).standard_normal((2, 4, 17), np.float32))
    assert found.op_type == "SparseConv"


@pytest.mark.native
@pytest.mark.slow
def test_the_runtimes_own_fusions_go_on_around_sparse_layers(operators: Path, tmp_path: Path) -> None:
    import torch

    from sparsepack.models.graph.lowering import to_onnx
    from sparsepack.models.source import TorchSource, load_source

    torch.manual_seed(0)
    source = load_source("text-encoder")
    assert isinstance(source, TorchSource)
    model = to_onnx(source.build().eval(), source.example_inputs(2), source.record.inputs)
    fused = {}
    for name, graph in {"dense": model, "sparse": rewrite(model, costs=ALWAYS_SPARSE).model}.items():
        options = onnxruntime.SessionOptions()
        options.register_custom_ops_library(str(operators))
        options.log_severity_level = 3
        options.optimized_model_filepath = str(tmp_path / f"{name}.onnx")
        onnxruntime.InferenceSession(graph.SerializeToString(), options)
        kinds = [node.op_type for node in onnx.load(tmp_path / f"{name}.onnx").graph.node]
        fused[name] = {kind: kinds.count(kind) for kind in ("FusedMatMul", "LayerNormalization", "Softmax", "Gelu")}
    # The attention's scaled products (and those of values, turned round in the same node), and normalisation as one
    # node; no Gelu is left beside a sparse layer.
    assert fused["sparse"]["FusedMatMul"] == 2 * fused["dense"]["FusedMatMul"] > 0
    assert fused["dense"]["LayerNormalization"] == fused["sparse"]["LayerNormalization"] > 0
    assert fused["sparse"]["Gelu"] == 0
