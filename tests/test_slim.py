"""Cutting: exact folding of constants, what is kept and why, messages, and the same function after every operator."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Graph, copy, difference, run, widths
from onnx import TensorProto, helper, numpy_helper

from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters.slim import choose, mask, slim
from sparsepack.exporters.slim_cut import plan
from sparsepack.models.graph.dimensions import analyse
from sparsepack.models.graph.effects import unknown
from sparsepack.models.graph.groups import find_groups, random_score
from sparsepack.models.graph.invariant import loose_cells
from sparsepack.models.graph.prepare import prepared, read_graph
from sparsepack.models.graph.rules import RULES
from sparsepack.models.graph.shapes import read_shapes
from sparsepack.models.graph.trace import Node, Trace

IMAGE = {"x": ("batch", 3, 8, 8)}


def images(seed: int = 0) -> dict[str, np.ndarray]:
    return {"x": np.random.default_rng(seed).standard_normal((6, 3, 8, 8)).astype(np.float32)}


def masked_channel(kernel: int, product: str = "Conv") -> onnx.ModelProto:
    """Return conv -> relu -> reader, channels 1 and 3 of the first convolution masked but with biases 0.5 and -0.5."""
    graph = Graph()
    weight = graph.weight("first", 4, 3, 1, 1)
    graph.tensors[weight][[1, 3]] = 0
    bias = graph.constant("bias", np.array([0.1, 0.5, -0.2, -0.5], np.float32))
    x = graph.add("Relu", graph.add("Conv", "x", weight, bias))
    if product == "Conv":
        graph.weight("second", 5, 4, kernel, kernel)
        x = graph.add("Conv", x, "second", name="reader", pads=[kernel // 2] * 4)
        x = graph.add("Relu", x)
    graph.add("GlobalAveragePool", x, name="pooled")
    graph.add("Flatten", "pooled", name="flat")
    if product == "Conv":
        graph.add("Gemm", "flat", graph.weight("last", 5, 2), name="y")
    elif product == "Gemm":
        graph.add("Gemm", "flat", graph.weight("second", 4, 2), graph.weight("shift", 2), name="y", alpha=2.0, beta=3.0)
    else:
        graph.add("MatMul", "flat", graph.weight("second", 4, 2), name="y")
    return graph.model(IMAGE, ["y"])


@pytest.mark.parametrize("product", ["Conv", "Gemm", "MatMul"])
def test_a_masked_channel_with_a_bias_is_folded_into_its_reader(product: str) -> None:
    model = masked_channel(1, product)
    slimmed = slim(copy(model))
    assert widths(slimmed.model)["first"] == (2, 3, 1, 1)
    assert difference(model, slimmed.model, images()) < 1e-5
    assert slimmed.account.error_bound == 0


@pytest.mark.parametrize("taken", [0, 1, 2, 3])
@pytest.mark.parametrize("how", ["Slice", "Split", "Gather"])
def test_a_channel_that_is_taken_out_alone_is_the_one_that_stays(how: str, taken: int) -> None:
    graph = Graph()
    weight, bias = graph.weight("first", 4, 3, 1, 1), graph.constant("bias", np.arange(1, 5, dtype=np.float32))
    x = graph.add("Conv", "x", weight, bias)
    numbers = {name: graph.constant(name, np.array([n])) for name, n in (("s", taken), ("e", taken + 1), ("a", 1))}
    if how == "Slice":
        graph.add("Slice", x, *numbers.values(), name="alone")
    elif how == "Gather":
        graph.add("Gather", x, "s", name="alone", axis=1)
    else:
        graph.add("Identity", graph.add("Split", x, axis=1, num_outputs=4, outputs=4)[taken], name="alone")
    model = graph.model(IMAGE, [graph.add("Relu", "alone", name="y")])
    assert difference(model, slim(copy(model)).model, images()) == 0


def test_a_channel_is_folded_beside_a_bias_that_is_computed() -> None:
    model = masked_channel(1)
    (reader,) = [node for node in model.graph.node if node.output[0] == "reader"]
    reader.input.append("negated")
    model.graph.initializer.append(numpy_helper.from_array(np.arange(5, dtype=np.float32), "offset"))
    model.graph.node.insert(0, helper.make_node("Neg", ["offset"], ["negated"]))
    slimmed = slim(copy(model))
    assert widths(slimmed.model)["first"] == (2, 3, 1, 1)
    assert difference(model, slimmed.model, images()) < 1e-5


def test_a_constant_channel_stays_where_zero_padding_makes_folding_inexact() -> None:
    model = masked_channel(3)
    slimmed = slim(copy(model))
    # Channel 3 is zero after the Relu and goes; channel 1 is 0.5 inside and 0 in the padding.
    assert widths(slimmed.model)["first"] == (3, 3, 1, 1)
    assert difference(model, slimmed.model, images()) < 1e-5
    assert any("first: constant channels stay because reader reads them" in line for line in slimmed.account.lines())


def test_the_approximation_is_bounded_and_only_touches_the_border() -> None:
    model = masked_channel(3)
    del model.graph.output[:]
    model.graph.output.append(helper.make_tensor_value_info("reader", TensorProto.FLOAT, None))
    slimmed = slim(copy(model), approximate=True)
    assert widths(slimmed.model)["first"] == (2, 3, 1, 1)
    gap = np.abs(run(model, images())[0] - run(slimmed.model, images())[0])
    assert gap[:, :, 1:-1, 1:-1].max() < 1e-5
    assert 1e-3 < gap.max() <= slimmed.account.error_bound + 1e-5


def test_units_without_a_path_to_the_output_go_although_they_are_alive() -> None:
    graph = Graph()
    graph.weight("first", 3, 6)
    graph.weight("second", 6, 2)
    graph.tensors["second"][[0, 4]] = 0
    x = graph.add("Sigmoid", graph.add("MatMul", "x", "first"))
    graph.add("MatMul", x, "second", name="y")
    model = graph.model({"x": ("batch", 3)}, ["y"])
    slimmed = slim(copy(model))
    assert widths(slimmed.model) == {"first": (3, 4), "second": (4, 2)}
    x_values = np.random.default_rng(0).standard_normal((6, 3)).astype(np.float32)
    assert difference(model, slimmed.model, {"x": x_values}) < 1e-5


def test_what_a_cut_adds_never_has_a_name_of_an_earlier_cut() -> None:
    model = masked_channel(1)
    names = ["x.slim1", "x.slim2", "x.slim2_", "x.slim3"]
    model.graph.initializer.extend(numpy_helper.from_array(np.zeros(1, np.float32), name) for name in names)
    _, cut = plan(analyse(prepared(model)), [])
    added = [cut.add(np.ones(1, np.float32), "x") for _ in range(3)]
    assert len({*names, *added}) == len(names) + len(added)


def test_a_graph_with_nothing_dead_comes_back_unchanged() -> None:
    graph = Graph()
    graph.add(
        "MatMul",
        graph.add("Relu", graph.add("MatMul", "x", graph.weight("a", 3, 4))),
        graph.weight("b", 4, 2),
        name="y",
    )
    model = graph.model({"x": ("batch", 3)}, ["y"])
    before = model.SerializeToString(deterministic=True)
    slimmed = slim(model)
    assert slimmed.model.SerializeToString(deterministic=True) == before
    assert "nothing could be removed" in slimmed.account.lines()[-1]


def test_a_graph_whose_every_channel_is_coupled_to_the_output_is_refused_with_the_coupling() -> None:
    graph = Graph()
    graph.add("Conv", "x", graph.weight("only", 4, 3, 1, 1), name="y")
    with pytest.raises(UnsupportedError, match=r"nothing in this graph can be removed.*the graph's output 'y'"):
        slim(graph.model(IMAGE, ["y"]), 0.5)


@pytest.mark.parametrize("ratio", [1.0, -0.1])
def test_a_ratio_outside_its_range_is_refused(ratio: float) -> None:
    with pytest.raises(UnsupportedError, match="expected at least 0 and less than 1"):
        slim(masked_channel(1), ratio)


def test_an_unknown_operator_pins_what_it_touches_and_is_named() -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a", 4, 3, 1, 1)))
    x = graph.add("Relu", graph.add("Conv", x, graph.weight("b", 4, 4, 1, 1)))
    x = graph.add("Det", x, name="strange")
    graph.add("Gemm", x, graph.weight("c", 4, 2), name="y")
    slimmed = slim(graph.model(IMAGE, ["y"]), 0.5)
    shapes = widths(slimmed.model)
    assert (shapes["a"], shapes["b"]) == ((2, 3, 1, 1), (4, 2, 1, 1))
    assert slimmed.account.not_followed == {"Det 'strange'": "the operator Det has no rule"}


def test_what_the_body_of_an_if_reads_is_left_alone() -> None:
    graph = Graph()
    a = graph.add("Relu", graph.add("Conv", "x", graph.weight("a", 4, 3, 1, 1)))
    b = graph.add("Relu", graph.add("Conv", a, graph.weight("b", 4, 4, 1, 1)), name="inner")
    flag = graph.add(
        "Greater", graph.add("ReduceMax", "x", keepdims=0), graph.constant("zero", np.zeros((), np.float32))
    )
    bodies = {
        key: helper.make_graph(
            [helper.make_node(op, [b], ["out"])],
            key,
            [],
            [helper.make_tensor_value_info("out", TensorProto.FLOAT, None)],
        )
        for key, op in (("then_branch", "Relu"), ("else_branch", "Neg"))
    }
    x = graph.add("If", flag, name="choice", **bodies)
    graph.add("ReduceMean", x, graph.constant("axes", np.array([2, 3])), name="y")
    model = graph.model(IMAGE, ["y"])
    slimmed = slim(copy(model), 0.5)
    assert widths(slimmed.model)["b"] == (4, 2, 1, 1)
    assert "its body is left alone" in slimmed.account.not_followed["If 'choice'"]
    assert run(slimmed.model, images())[0].shape == (6, 4, 1, 1)


def test_broken_graphs_are_refused_with_the_reason(tmp_path: Path) -> None:
    graph = Graph()
    graph.add("Conv", "x", graph.weight("a", 4, 3, 1, 1), name="y")
    model = graph.model(IMAGE, ["y"])
    model.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    with pytest.raises(UnsupportedError, match="the graph is broken: Conv 'y'"):
        slim(model, 0.5)
    path = tmp_path / "x.onnx"
    path.write_bytes(b"not a graph at all")
    with pytest.raises(FileFormatError, match="cannot be read as an ONNX file"):
        read_graph(path)


def test_rounding_keeps_multiples() -> None:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a", 20, 3, 1, 1)))
    graph.add("Conv", x, graph.weight("b", 2, 20, 1, 1), name="y")
    model = graph.model(IMAGE, ["y"])
    assert widths(slim(copy(model), 0.5, round_to=8).model)["a"][0] == 16
    assert widths(slim(copy(model), 0.5).model)["a"][0] == 10


def test_the_lowest_l1_norms_go_and_ties_go_to_the_lower_index() -> None:
    graph = Graph()
    graph.constant("a", np.array([3, 1, 2, 1], np.float32).reshape(4, 1) * np.ones((4, 3), np.float32))
    graph.add("Gemm", graph.add("Gemm", "x", "a", transB=1), graph.weight("b", 4, 2), name="y")
    slimmed = slim(graph.model({"x": ("batch", 3)}, ["y"]), 0.25)
    kept = onnx.numpy_helper.to_array(slimmed.model.graph.initializer[0])
    assert kept[:, 0].tolist() == [3, 2, 1]


def test_the_account_reads_layer_by_layer() -> None:
    lines = slim(masked_channel(1)).account.lines()
    assert lines[0] == "Conv first: 4 -> 2"
    # By hand: 4 x 3 + 4 weights of the first layer and 5 x 4 of its reader, read at 8 x 8 places.
    costs = "parameters 36 -> 18, MACs 2,048 -> 1,024, bytes 144 -> 72"
    assert lines[1] == f"width first: 4 -> 2, {costs}, in first[0], bias[0], second[1]"
    assert lines[2].startswith("parameters: 46 -> 28 (")


# One small network an operator family; every width between the first and the last layer is coupled through it.
def _split(g: Graph, x: str) -> str:
    first, second = g.add("Split", x, g.constant("sizes", np.array([5, 7])), axis=1, outputs=2)
    return str(g.add("Concat", second, g.add("Relu", first), axis=1))


def _slice(g: Graph, x: str) -> str:
    bounds = [g.constant(name, np.array([value])) for name, value in (("from", 2), ("to", -1), ("along", 1))]
    return str(g.add("Slice", x, *bounds))


def _pad(g: Graph, x: str) -> str:
    return str(g.add("Pad", x, g.constant("pads", np.array([0, 2, 1, 1, 0, 3, 1, 1]))))


def _shuffle(g: Graph, x: str) -> str:
    x = g.add("Reshape", x, g.constant("apart", np.array([0, 3, 4, 8, 8])))
    x = g.add("Transpose", x, perm=[0, 2, 1, 3, 4])
    return str(g.add("Reshape", x, g.constant("together", np.array([0, 12, 8, 8]))))


def _grouped(g: Graph, x: str) -> str:
    return str(g.add("Conv", x, g.weight("grouped", 6, 6, 3, 3), group=2, pads=[1, 1, 1, 1]))


def _depthwise(g: Graph, x: str) -> str:
    return str(g.add("Conv", x, g.weight("depthwise", 24, 1, 3, 3), group=12))


def _transposed(g: Graph, x: str) -> str:
    x = g.add("ConvTranspose", x, g.weight("up", 12, 10, 2, 2), g.weight("up.bias", 10), strides=[2, 2])
    return str(g.add("ConvTranspose", x, g.weight("up2", 10, 3, 2, 2), group=2))


def _groups(g: Graph, x: str) -> str:
    return str(g.add("GroupNormalization", x, g.weight("scale", 12), g.weight("shift", 12), num_groups=4))


def _instance(g: Graph, x: str) -> str:
    return str(g.add("InstanceNormalization", x, g.weight("scale", 12), g.weight("shift", 12)))


def _prelu(g: Graph, x: str) -> str:
    return str(g.add("PRelu", x, g.weight("slope", 12, 1, 1)))


def _resize(g: Graph, x: str) -> str:
    return str(g.add("Resize", x, "", "", g.constant("sizes", np.array([6, 12, 16, 16])), mode="nearest"))


def _gather(g: Graph, x: str) -> str:
    return str(g.add("Gather", x, g.constant("picked", np.array([0, 3, 3, -1, 7])), axis=1))


def _excite(g: Graph, x: str) -> str:
    y = g.add("Relu", g.add("Conv", g.add("GlobalAveragePool", x), g.weight("squeeze", 4, 12, 1, 1)))
    return str(g.add("Mul", x, g.add("Sigmoid", g.add("Conv", y, g.weight("excite", 12, 4, 1, 1)))))


def _shared(g: Graph, x: str) -> str:
    g.weight("shared", 12, 12, 1, 1, scale=0.3)
    return str(g.add("Conv", g.add("Tanh", g.add("Conv", x, "shared")), "shared"))


def _residual(g: Graph, x: str) -> str:
    return str(g.add("Add", x, g.add("Conv", g.add("Relu", x), g.weight("branch", 12, 12, 1, 1))))


def _einsum(g: Graph, x: str) -> str:
    return str(g.add("Einsum", x, g.weight("mixer", 12, 9), equation="bchw,cd->bdhw"))


def _cast_like(g: Graph, x: str) -> str:
    # The tensor that lends its type is read by nothing else and may lose channels that ``x`` keeps.
    lender = g.add("Conv", x, g.weight("lender", 7, 12, 1, 1))
    return str(g.add("CastLike", x, lender))


def _look_up(g: Graph, x: str) -> str:
    places = np.random.default_rng(5).integers(-8, 8, (6, 12, 8, 8))
    return str(g.add("GatherElements", x, g.constant("places", places), axis=3))


FAMILIES = (
    *(_split, _slice, _pad, _shuffle, _grouped, _depthwise, _transposed, _groups, _instance, _prelu, _gather),
    *(_excite, _shared, _residual, _einsum, _resize, _cast_like, _look_up),
)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("family", FAMILIES, ids=lambda family: family.__name__.strip("_"))
def test_a_slimmed_graph_computes_what_the_masked_graph_computes(
    family: Callable[[Graph, str], str], seed: int
) -> None:
    graph = Graph(seed, opset=21)
    x = graph.add("Conv", "x", graph.weight("first", 12, 3, 1, 1), graph.weight("first.bias", 12))
    x = family(graph, graph.add("LeakyRelu", x))
    _, channels, side, _ = read_shapes(graph.model({"x": (6, 3, 8, 8)}, [x])).extents[x]
    # Conv -> fully connected: the reader owns a block of columns for each channel.
    x = graph.add("Flatten", graph.add("AveragePool", x, kernel_shape=[side // 2] * 2, strides=[side // 2] * 2))
    places = (side // (side // 2)) ** 2
    graph.add("Gemm", x, graph.weight("last", channels * places, 3), name="y")
    model = graph.model({"x": (6, 3, 8, 8)}, ["y"], (6, 3))
    masked = prepared(copy(model))
    dimensions = analyse(masked)
    assert not loose_cells(dimensions)
    mask(masked, choose(dimensions, find_groups(dimensions), 0.5, random_score(seed)))
    slimmed = slim(copy(model), 0.5, score=random_score(seed))
    assert slimmed.account.parameters[1] < slimmed.account.parameters[0]
    assert widths(slimmed.model)["first"][0] < 12
    assert difference(masked, slimmed.model, images(seed)) < 1e-4
    for group in slimmed.account.groups:
        # Fewer where a slice or a pick leaves channels without a reader, or a pad adds channels of zeros.
        assert group.pinned or group.units[1] <= max(1, group.units[0] // 2)


def test_a_rule_that_forgets_an_operand_is_caught_before_anything_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    def forgetful(trace: Trace, node: Node) -> None:
        trace.layout(node.inputs[1])
        trace.through(node, trace.layout(node.inputs[0]), node.outputs[0], unknown)

    monkeypatch.setitem(RULES, "Add", forgetful)
    graph = Graph()
    left, right = (graph.add("Conv", "x", graph.weight(name, 4, 3, 1, 1)) for name in ("a", "b"))
    graph.add("Conv", graph.add("Add", left, right, name="sum"), graph.weight("c", 2, 4, 1, 1), name="y")
    model = graph.model(IMAGE, ["y"])
    assert loose_cells(analyse(prepared(copy(model)))) == [("Add 'sum'", right)]
    with pytest.raises(UnsupportedError, match=r"Add 'sum' would lose indices of .* that nothing follows"):
        slim(copy(model), 0.5)
