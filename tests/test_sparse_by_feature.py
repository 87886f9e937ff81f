"""Sparse products that hand each other their activations by feature: no transposes are left, nothing else changes."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import helper, numpy_helper
from test_sparse_graph_features import Nodes, compared, model_of, sparse_weight

from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.exporters.sparse_graph.rewrite import rewrite

TOKENS, HEADS, SIZE = 40, 3, 8
FEATURES = HEADS * SIZE


def flags(nodes: Nodes) -> list[str]:
    """Which of the products read (A) and write (Y) by feature, in graph order."""
    products = (node for node in nodes if node.op_type == "SparseMatMul")
    found = ({a.name for a in node.attribute} & {"transA", "transY"} for node in products)
    return ["".join(sorted(name[-1] for name in names)) for names in found]


def operators_of(nodes: Nodes) -> list[str]:
    return [node.op_type for node in nodes]


def chain(*between: onnx.NodeProto, shape: list[Any], outputs: int = 24) -> onnx.ModelProto:
    """Two products, the second of ``a`` or of what lies between."""
    last = between[-1].output[0] if between else "a"
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        *between,
        helper.make_node("MatMul", [last, "v"], ["y"]),
    ]
    return model_of(nodes, {"w": sparse_weight(24, outputs), "v": sparse_weight(outputs, 10)}, shape)


@pytest.mark.native
@pytest.mark.parametrize("shape", [[70, 24], ["n", 24], [2, 70, 24], ["n", 32, 24], ["n", 2, 33, 24]])
def test_two_products_in_a_row(shape: list[Any], operators: Path) -> None:
    for examples in (1, 3):
        x = np.random.default_rng(1).standard_normal([e if isinstance(e, int) else examples for e in shape])
        nodes = compared(chain(shape=shape), operators, x.astype(np.float32))
        assert flags(nodes) == ["Y", "A"]


@pytest.mark.native
def test_what_is_fused_goes_along(operators: Path) -> None:
    bias = helper.make_node("Add", ["a", "b"], ["c"])
    model = chain(bias, helper.make_node("Gelu", ["c"], ["d"]), shape=[2, 40, 24])
    model.graph.initializer.append(numpy_helper.from_array(np.linspace(-1, 1, 24, dtype=np.float32), "b"))
    nodes = compared(model, operators, np.random.default_rng(1).standard_normal((2, 40, 24), np.float32))
    assert flags(nodes) == ["Y", "A"]
    assert operators_of(nodes) == ["SparseMatMul"] * 2


@pytest.mark.native
@pytest.mark.parametrize(
    ("between", "shape"),
    [
        # Few tokens, a number of tokens that nobody knows, a vector; another reader; a residual by token.
        ([], [4, 31, 24]),
        ([], [4, "t", 24]),
        ([], [24]),
        ([helper.make_node("Add", ["a", "x"], ["b"])], [2, 40, 24]),
        ([helper.make_node("Tanh", ["a"], ["b"])], [2, 40, 24]),
    ],
)
def test_otherwise_it_stays_by_token(between: Nodes, shape: list[Any], operators: Path) -> None:
    x = np.random.default_rng(1).standard_normal([e if isinstance(e, int) else 50 for e in shape]).astype(np.float32)
    assert flags(compared(chain(*between, shape=shape), operators, x)) == ["", ""]


def test_a_value_that_leaves_the_graph_stays_as_it_is() -> None:
    model = chain(shape=[2, 40, 24])
    model.graph.output.append(helper.make_tensor_value_info("a", onnx.TensorProto.FLOAT, None))
    assert flags(list(rewrite(model, costs=ALWAYS_SPARSE).model.graph.node)) == ["", ""]


def attention(
    *,
    key: list[list[int]],
    tokens: int = TOKENS,
    heads: tuple[int, ...] = (-1, TOKENS, HEADS, SIZE),
    joined: tuple[int, ...] = (-1, TOKENS, FEATURES),
    value: list[int] | None = None,
) -> onnx.ModelProto:
    """Self-attention of one layer; ``key`` and ``value`` are what turns the heads of keys and of values round."""
    nodes = []
    for name in ("q", "k", "v"):
        nodes.append(helper.make_node("MatMul", ["x", f"w{name}"], [name]))
        nodes.append(helper.make_node("Reshape", [name, "heads"], [f"{name}s"]))
    nodes.append(helper.make_node("Transpose", ["qs"], ["qt"], perm=[0, 2, 1, 3]))
    nodes.append(helper.make_node("Transpose", ["vs"], ["vt"], perm=value or [0, 2, 1, 3]))
    at = "ks"
    for index, permutation in enumerate(key):
        nodes.append(helper.make_node("Transpose", [at], [f"kt{index}"], perm=permutation))
        at = f"kt{index}"
    nodes += [
        helper.make_node("MatMul", ["qt", at], ["scores"]),
        helper.make_node("Softmax", ["scores"], ["p"], axis=-1),
        helper.make_node("MatMul", ["p", "vt"], ["context"]),
        helper.make_node("Transpose", ["context"], ["ct"], perm=[0, 2, 1, 3]),
        helper.make_node("Reshape", ["ct", "joined"], ["c"]),
        helper.make_node("MatMul", ["c", "wo"], ["y"]),
    ]
    weights = {f"w{name}": sparse_weight(FEATURES, FEATURES) for name in "qkvo"}
    model = model_of(nodes, weights, ["n", tokens, FEATURES])
    for name, shape in {"heads": heads, "joined": joined}.items():
        model.graph.initializer.append(numpy_helper.from_array(np.array(shape, np.int64), name))
    return model


def examples(count: int, tokens: int = TOKENS) -> Any:
    return np.random.default_rng(1).standard_normal((count, tokens, FEATURES)).astype(np.float32)


@pytest.mark.native
@pytest.mark.parametrize("key", [[[0, 2, 3, 1]], [[0, 2, 1, 3], [0, 1, 3, 2]]])
def test_an_attention_keeps_no_transposes(key: list[list[int]], operators: Path, tmp_path: Path) -> None:
    model = attention(key=key)
    for count in (1, 2):
        nodes = compared(model, operators, examples(count))
        assert flags(nodes) == ["Y", "Y", "Y", "A"]
    options = onnxruntime.SessionOptions()
    options.register_custom_ops_library(str(operators))
    options.optimized_model_filepath = str(tmp_path / "optimised.onnx")
    options.log_severity_level = 3
    sparse = rewrite(model, costs=ALWAYS_SPARSE).model
    assert {tensor.name for tensor in sparse.graph.initializer}.isdisjoint({"heads", "joined"})
    onnxruntime.InferenceSession(sparse.SerializeToString(), options)
    assert "Transpose" not in operators_of(list(onnx.load(tmp_path / "optimised.onnx").graph.node))


@pytest.mark.native
def test_heads_that_are_cut_another_way_stay_by_token(operators: Path) -> None:
    # Two tokens of 12 features in a head, which would have to lie side by side.
    split = attention(key=[[0, 2, 3, 1]], heads=(-1, 2 * TOKENS, HEADS, SIZE // 2), joined=(-1, TOKENS, FEATURES))
    assert flags(compared(split, operators, examples(2))) == [""] * 4
    # All examples in one row of tokens: only what follows the attention sees a difference.
    flat = attention(key=[[0, 2, 3, 1]], joined=(-1, FEATURES))
    assert flags(compared(flat, operators, examples(2))) == ["Y", "Y", "Y", ""]


@pytest.mark.native
def test_heads_of_few_tokens_stay_by_token(operators: Path) -> None:
    few = attention(key=[[0, 2, 3, 1]], tokens=16, heads=(-1, 16, HEADS, SIZE), joined=(-1, 16, FEATURES))
    assert flags(compared(few, operators, examples(2, 16))) == [""] * 4
