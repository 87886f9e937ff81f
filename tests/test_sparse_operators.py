"""The operators inside ONNX Runtime: equal to the dense layers, and a clear error for every malformed node."""

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.exporters.sparse_graph.gaps import nonzero_bits, pack
from sparsepack.exporters.sparse_graph.rewrite import DOMAIN, rewrite
from sparsepack.files import Array
from sparsepack.runtimes.onnx_session import session_errors

pytestmark = pytest.mark.native

OPSET = [helper.make_opsetid("", 20), helper.make_opsetid(DOMAIN, 1)]


def session(model: onnx.ModelProto, library: Path, threads: int = 1) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 4
    options.intra_op_num_threads = threads
    options.register_custom_ops_library(str(library))
    return onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])


def draw(shape: tuple[int, ...], density: float, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    weight: Array = rng.standard_normal(shape).astype(np.float32) * (rng.random(shape) < density)
    return weight.astype(np.float32)


def node_model(operator: str, constants: dict[str, Array | None], attributes: dict[str, Any], *open: str) -> Any:
    """A model of one node of ours; constants in ``open`` are inputs instead, None is left out."""
    names = [name if array is not None else "" for name, array in constants.items()]
    node = helper.make_node(operator, ["x", *names], ["y"], domain=DOMAIN, **attributes)
    inputs = [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in ("x", *open)]
    output = helper.make_tensor_value_info("y", TensorProto.FLOAT, None)
    stored = [numpy_helper.from_array(a, n) for n, a in constants.items() if a is not None and n not in open]
    graph = helper.make_graph([node], "g", inputs, [output], stored)
    return helper.make_model(graph, opset_imports=OPSET, ir_version=10)


WEIGHT = draw((8, 4, 3, 3), 0.3)
G, V = pack(nonzero_bits(WEIGHT)), WEIGHT[nonzero_bits(WEIGHT)]
SHAPE = {"shape": [8, 4, 3, 3]}
ONES = np.ones(8, np.float32)


def with_normalisation(**changes: Array | None) -> dict[str, Array | None]:
    return {"g": G, "v": V, "b": None, "r": None, "scale": ONES, "shift": ONES, "mean": ONES, "var": ONES, **changes}


MALFORMED: dict[str, tuple[dict[str, Array | None], dict[str, Any], str]] = {
    "outside": ({"g": G, "v": V}, {"shape": [2, 2, 3, 3]}, "outside"),
    "too few values": ({"g": G, "v": V[:-1]}, SHAPE, "more weights"),
    "too many values": ({"g": G, "v": np.append(V, V)}, SHAPE, "values are given"),
    "gaps of a wrong type": ({"g": G.astype(np.int64), "v": V}, SHAPE, "tensor(int64)"),
    "values of a wrong type": ({"g": G, "v": V.astype(np.float64)}, SHAPE, "float32, float16 or int8"),
    "values of a wrong rank": ({"g": G, "v": V.reshape(1, -1)}, SHAPE, "list"),
    "no shape": ({"g": G, "v": V}, {}, "shape"),
    "a negative extent": ({"g": G, "v": V}, {"shape": [8, -4, 3, 3]}, "shape"),
    "a huge shape": ({"g": G, "v": V}, {"shape": [2**31 - 1, 2**31 - 1, 2**15, 2**15]}, "too large"),
    "more taps than offsets": ({"g": np.zeros(1, np.uint8), "v": V[:1]}, {"shape": [1, 1, 512, 512]}, "65535 taps"),
    "a zero stride": ({"g": G, "v": V}, {**SHAPE, "strides": [0, 1]}, "strides"),
    "three strides": ({"g": G, "v": V}, {**SHAPE, "strides": [1, 1, 1]}, "strides"),
    "huge paddings": ({"g": G, "v": V}, {**SHAPE, "pads": [10**9] * 4}, "pads"),
    "negative paddings": ({"g": G, "v": V}, {**SHAPE, "pads": [-1] * 4}, "pads"),
    "a group that does not divide": ({"g": G, "v": V}, {**SHAPE, "group": 3}, "group"),
    "an unknown activation": ({"g": G, "v": V}, {**SHAPE, "activation": "Tanh"}, "unknown activation"),
    "one bound": ({"g": G, "v": V}, {**SHAPE, "activation": "Clip", "activation_params": [0.0]}, "activation_params"),
    "scales": ({"g": G, "v": V.astype(np.int8)}, {**SHAPE, "scales": [1.0, 2.0]}, "scales"),
    "a small input": ({"g": G, "v": V}, {**SHAPE, "input_size": [1, 1]}, "larger"),
    "bias": ({"g": G, "v": V, "b": np.zeros(7, np.float32)}, SHAPE, "bias"),
    "residual": (
        {"g": G, "v": V, "b": None, "r": np.zeros((1, 8, 3, 3), np.float32)},
        SHAPE,
        "residual",
    ),
    "a short mean": (with_normalisation(mean=ONES[:5]), SHAPE, "mean has shape [5]"),
    "half a normalisation": (with_normalisation(var=None), SHAPE, "variance must be a constant"),
    "a negative variance": (with_normalisation(var=-ONES), SHAPE, "not positive in channel 0"),
    "a short bias": (with_normalisation(b=ONES[:3]), SHAPE, "bias has shape [3]"),
}


@pytest.mark.parametrize("case", MALFORMED)
def test_malformed_nodes_are_refused(case: str, operators: Path) -> None:
    constants, attributes, text = MALFORMED[case]
    with pytest.raises(session_errors()) as caught:
        session(node_model("SparseConv", constants, attributes), operators).run(
            None, {"x": np.ones((1, 4, 8, 8), np.float32)}
        )
    assert text in str(caught.value)


MATRIX = draw((6, 5), 0.5)
MG, MV = pack(nonzero_bits(MATRIX)), MATRIX[nonzero_bits(MATRIX)]
FULL = {"shape": [6, 5]}

MALFORMED_PRODUCTS: dict[str, tuple[dict[str, Array | None], dict[str, Any], str]] = {
    "outside": ({"g": MG, "v": MV}, {"shape": [2, 2]}, "outside"),
    "too few values": ({"g": MG, "v": MV[:-1]}, FULL, "more weights"),
    "too many values": ({"g": MG, "v": np.append(MV, MV)}, FULL, "values are given"),
    "no shape": ({"g": MG, "v": MV}, {}, "shape must be two positive values"),
    "three extents": ({"g": MG, "v": MV}, {"shape": [6, 5, 1]}, "shape must be two positive values"),
    "an extent of zero": ({"g": MG, "v": MV}, {"shape": [0, 5]}, "shape must be two positive values"),
    "a huge shape": ({"g": MG, "v": MV}, {"shape": [2**31 - 1, 2**31 - 1]}, "too large"),
    "the other way round": ({"g": MG, "v": MV}, {"shape": [6, 5], "transB": 1}, "last dimension of 5"),
    "a short bias": ({"g": MG, "v": MV, "b": np.ones(4, np.float32)}, FULL, "bias has shape [4]"),
    "a residual": ({"g": MG, "v": MV, "b": None, "r": np.ones((3, 4), np.float32)}, FULL, "residual has shape [3, 4]"),
    "scales": ({"g": MG, "v": MV.astype(np.int8)}, {**FULL, "scales": [1.0, 2.0]}, "int8 values need 1 or 5 scales"),
    "no scales": ({"g": MG, "v": MV.astype(np.int8)}, FULL, "int8 values need 1 or 5 scales"),
    "an unknown activation": ({"g": MG, "v": MV}, {**FULL, "activation": "Tanh"}, "unknown activation"),
    "by feature": ({"g": MG, "v": MV}, {**FULL, "transA": 1}, "expected a last dimension but one of 6"),
    "a residual by token": (
        {"g": MG, "v": MV, "b": None, "r": np.ones((3, 5), np.float32)},
        {**FULL, "transY": 1},
        "residual has shape [3, 5], expected [5, 3]",
    ),
}


@pytest.mark.parametrize("case", MALFORMED_PRODUCTS)
def test_malformed_products_are_refused(case: str, operators: Path) -> None:
    constants, attributes, text = MALFORMED_PRODUCTS[case]
    with pytest.raises(session_errors()) as caught:
        session(node_model("SparseMatMul", constants, attributes), operators).run(
            None, {"x": np.ones((3, 6), np.float32)}
        )
    assert "sparsepack::SparseMatMul:" in str(caught.value)
    assert text in str(caught.value)


@pytest.mark.parametrize("tokens", [1, 2, 8, 9, 16, 17, 64, 65, 200])
def test_a_product_of_any_number_of_tokens(tokens: int, operators: Path) -> None:
    weight = draw((70, 45), 0.2, seed=tokens)
    mask = nonzero_bits(weight)
    residual, bias = draw((tokens, 45), 1.0, seed=1), draw((45,), 1.0, seed=2)
    constants = {"g": pack(mask), "v": weight[mask], "b": bias, "r": residual}
    x = draw((tokens, 70), 1.0, seed=3)
    for threads in (1, 2):
        opened = session(node_model("SparseMatMul", {**constants}, {"shape": [70, 45]}), operators, threads)
        for _ in range(6):  # the layer cuts its work by what it has seen of the threads
            found = opened.run(None, {"x": x})[0]
            np.testing.assert_allclose(found, x.astype(np.float64) @ weight + bias + residual, rtol=1e-5, atol=2e-5)


@pytest.mark.parametrize("extents", [(1,), (7,), (64,), (130,), (3, 1), (2, 50), (2, 3, 65), (2, 0), (0, 4)])
@pytest.mark.parametrize("activation", ["", "Relu", "Gelu"])
def test_a_product_by_feature_is_the_product_by_token(
    extents: tuple[int, ...], activation: str, operators: Path
) -> None:
    weight, bias = draw((70, 45), 0.2), draw((45,), 1.0, seed=2)
    mask = nonzero_bits(weight)
    x, residual = draw((*extents, 70), 1.0, seed=3), draw((*extents, 45), 1.0, seed=1)
    base = {"shape": [70, 45], "activation": activation}
    for added in (None, residual):
        constants = {"g": pack(mask), "v": weight[mask], "b": bias, "r": added}
        expected = session(node_model("SparseMatMul", constants, base), operators).run(None, {"x": x})[0]
        for names in ({"transA": 1}, {"transY": 1}, {"transA": 1, "transY": 1}):
            turned = None if added is None else (added.swapaxes(-1, -2) if "transY" in names else added)
            model = node_model("SparseMatMul", {**constants, "r": turned}, {**base, **names})
            given = np.ascontiguousarray(x.swapaxes(-1, -2)) if "transA" in names else x
            for threads in (1, 2):
                found = session(model, operators, threads).run(None, {"x": given})[0]
                np.testing.assert_array_equal(found.swapaxes(-1, -2) if "transY" in names else found, expected)


def test_a_vector_has_no_features_side_by_side(operators: Path) -> None:
    for names, text in (({"transA": 1}, "a last dimension but one of 6"), ({"transY": 1}, "two dimensions or more")):
        opened = session(node_model("SparseMatMul", {"g": MG, "v": MV}, {**FULL, **names}), operators)
        with pytest.raises(session_errors(), match=text):
            opened.run(None, {"x": np.ones(6, np.float32)})


def test_a_token_alone_and_in_a_batch_are_the_same(operators: Path) -> None:
    weight = draw((300, 90), 0.3)
    constants: dict[str, Array | None] = {"g": pack(weight != 0), "v": weight[weight != 0]}
    opened = session(node_model("SparseMatMul", constants, {"shape": [300, 90]}), operators)
    x = draw((70, 300), 1.0, seed=1)
    together = opened.run(None, {"x": x})[0]
    for count in (1, 5, 16):
        np.testing.assert_array_equal(opened.run(None, {"x": x[:count]})[0], together[:count])


@pytest.mark.parametrize("name", ["v", "scale", "b"])
def test_what_is_laid_out_at_load_must_be_constant(name: str, operators: Path) -> None:
    model = node_model("SparseConv", with_normalisation(b=ONES), SHAPE, name)
    with pytest.raises(session_errors(), match="must be a constant"):
        opened = session(model, operators)
        opened.run(None, {"x": np.ones((1, 4, 8, 8), np.float32), name: V if name == "v" else ONES})


@pytest.mark.parametrize(
    ("shape", "text"),
    [((1, 5, 8, 8), "channels"), ((1, 4, 2, 8), "larger"), ((4, 8, 8), "rank"), ((0, 4, 8, 8), ""), ((3, 4, 8, 8), "")],
)
def test_inputs_of_a_convolution(shape: tuple[int, ...], text: str, operators: Path) -> None:
    opened = session(node_model("SparseConv", {"g": G, "v": V}, SHAPE), operators)
    if not text:
        assert opened.run(None, {"x": np.ones(shape, np.float32)})[0].shape == (shape[0], 8, 6, 6)
        return
    with pytest.raises(session_errors(), match=text):
        opened.run(None, {"x": np.ones(shape, np.float32)})


@pytest.mark.parametrize(
    ("shape", "text"), [((2, 3, 6), ""), ((2, 2, 3, 6), ""), ((2, 0, 6), ""), ((6,), ""), ((2, 3, 7), "last dim")]
)
def test_inputs_of_a_product(shape: tuple[int, ...], text: str, operators: Path) -> None:
    weight = draw((6, 5), 0.5)
    constants = {"g": pack(nonzero_bits(weight)), "v": weight[nonzero_bits(weight)]}
    opened = session(node_model("SparseMatMul", {**constants}, {"shape": [6, 5]}), operators)
    x = np.random.default_rng(1).standard_normal(shape).astype(np.float32)
    if text:
        with pytest.raises(session_errors(), match=text):
            opened.run(None, {"x": x})
    else:
        np.testing.assert_allclose(opened.run(None, {"x": x})[0], x @ weight, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("extents", [("n", 7), ("n", "m", 7), ("n", 3, "m", 7)])
def test_rewritten_products_take_any_batch(extents: tuple[Any, ...], operators: Path) -> None:
    weight = draw((7, 6), 0.4)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, extents)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight, "w")],
    )
    rewritten = rewrite(helper.make_model(graph, opset_imports=OPSET[:1], ir_version=10), costs=ALWAYS_SPARSE)
    assert [node.op_type for node in rewritten.model.graph.node] == ["SparseMatMul"]
    opened = session(rewritten.model, operators)
    for batch in (1, 2, 19):
        x = draw(tuple(batch if isinstance(extent, str) else extent for extent in extents), 1.0, seed=batch)
        expected = x.astype(np.float64) @ weight
        np.testing.assert_allclose(opened.run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("kind", ["float16", "int8"])
def test_stored_types_of_values(kind: str, operators: Path) -> None:
    weight = np.rint(draw((6, 5), 0.5) * 10).astype(np.float32)
    mask = nonzero_bits(weight)
    attributes: dict[str, Any] = {"shape": [6, 5]}
    if kind == "int8":
        attributes["scales"] = [0.5, 1.0, 2.0, 4.0, 0.25]
    model = node_model("SparseMatMul", {"g": pack(mask), "v": weight[mask].astype(kind)}, attributes)
    x = np.random.default_rng(1).standard_normal((3, 6)).astype(np.float32)
    expected = (x @ weight) * np.array(attributes.get("scales", 1.0), np.float32)
    np.testing.assert_allclose(session(model, operators).run(None, {"x": x})[0], expected, rtol=1e-5, atol=1e-4)


@st.composite
def convolutions(choose: st.DrawFn) -> tuple[onnx.ModelProto, tuple[int, ...]]:
    """A dense Conv with what may follow it, and an input shape without its batch."""
    axes, group = choose(st.integers(1, 2)), choose(st.integers(1, 2))
    cin, cout = group * choose(st.integers(1, 9)), group * choose(st.integers(1, 9))
    kernel, density = choose(st.integers(1, 3)), choose(st.sampled_from([0.0, 0.1, 0.5, 1.0]))
    rng = np.random.default_rng(choose(st.integers(0, 99)))
    attributes: dict[str, Any] = {
        "strides": [choose(st.integers(1, 3)) for _ in range(axes)],
        "dilations": [choose(st.integers(1, 2)) for _ in range(axes)],
        "pads": [choose(st.integers(0, 2)) for _ in range(2 * axes)],
        "group": group,
    }
    constants = {"w": draw((cout, cin // group, *[kernel] * axes), density)}
    inputs = ["x", "w"]
    if choose(st.booleans()):
        inputs.append("b")
        constants["b"] = rng.standard_normal(cout).astype(np.float32)
    nodes, last = [helper.make_node("Conv", inputs, ["c"], **attributes)], "c"
    if choose(st.booleans()):
        for name in ("scale", "shift", "mean"):
            constants[name] = rng.standard_normal(cout).astype(np.float32)
        constants["var"] = rng.uniform(0.1, 2, cout).astype(np.float32)
        nodes.append(
            helper.make_node("BatchNormalization", [last, "scale", "shift", "mean", "var"], ["n"], epsilon=1e-3)
        )
        last = "n"
    if choose(st.booleans()):
        # The residual is another layer of the same shape.
        constants["w2"] = draw(constants["w"].shape, density, seed=1)
        nodes = [helper.make_node("Conv", ["x", "w2"], ["other"], **attributes), *nodes]
        nodes.append(helper.make_node("Add", [last, "other"], ["a"]))
        last = "a"
    activation = choose(st.sampled_from(["Relu", "LeakyRelu", "HardSwish", "Gelu", "Identity"]))
    nodes.append(helper.make_node(activation, [last], ["y"]))
    size = [choose(st.integers(5, 19)) for _ in range(axes)]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", cin, *size])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=OPSET[:1], ir_version=10), (cin, *size)


@settings(max_examples=60, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(case=convolutions(), threads=st.integers(1, 2))
def test_rewritten_convolutions_equal_dense_ones(
    operators: Path, case: tuple[onnx.ModelProto, tuple[int, ...]], threads: int
) -> None:
    model, shape = case
    rewritten = rewrite(model, costs=ALWAYS_SPARSE)
    assert all(choice.sparse for choice in rewritten.choices)
    # Everything but an Identity was fused.
    assert {node.op_type for node in rewritten.model.graph.node} <= {"SparseConv", "Identity"}
    dense, sparse = session(model, operators), session(rewritten.model, operators, threads)
    for batch in (1, 3):
        x = np.random.default_rng(3).standard_normal((batch, *shape)).astype(np.float32)
        expected, found = dense.run(None, {"x": x})[0], sparse.run(None, {"x": x})[0]
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4 * max(1.0, float(np.abs(expected).max())))
