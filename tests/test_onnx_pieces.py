"""Models in pieces: the bytes of protobuf's own serialiser, whatever the model holds."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from graphs import Graph
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters.onnx_pieces import pieces


def joined(model: onnx.ModelProto) -> bytes:
    return b"".join(pieces(model))


def rich() -> onnx.ModelProto:
    graph = Graph()
    x = graph.add("Conv", "x", graph.weight("a", 4, 3, 3, 3), name="conv")
    graph.add("Gemm", graph.add("Flatten", graph.add("GlobalAveragePool", x)), graph.weight("b", 4, 2), name="y")
    model = graph.model({"x": ("batch", 3, 8, 8)}, ["y"])
    # Fields on both sides of the graph and of the initializers, and tensors that hold their values otherwise.
    model.producer_name, model.doc_string, model.graph.doc_string = "maker", "about", "inside"
    model.metadata_props.add(key="k", value="v" * 300)
    model.graph.initializer.append(helper.make_tensor("typed", TensorProto.FLOAT, [3], [1.0, -0.0, float("nan")]))
    model.graph.initializer.append(TensorProto(name="bare"))
    outside = model.graph.initializer.add(name="outside", data_type=TensorProto.FLOAT, dims=[2])
    outside.data_location = TensorProto.EXTERNAL
    outside.external_data.add(key="location", value="w.data")
    indices = helper.make_tensor("", TensorProto.INT64, [1], [2])
    values = numpy_helper.from_array(np.ones(1, np.float32), "sparse")
    model.graph.sparse_initializer.append(helper.make_sparse_tensor(values, indices, [5]))
    model.functions.append(helper.make_function("own", "F", ["p"], ["q"], [helper.make_node("Relu", ["p"], ["q"])], []))
    return model


def test_the_pieces_are_the_bytes_of_protobufs_own_serialiser() -> None:
    model = rich()
    assert joined(model) == model.SerializeToString(deterministic=True)
    assert joined(onnx.ModelProto(ir_version=9)) == onnx.ModelProto(ir_version=9).SerializeToString()


@given(sizes=st.lists(st.integers(0, 40_000), max_size=4), named=st.booleans())
@settings(max_examples=40, deadline=None)
def test_lengths_of_any_number_of_bytes_are_right(sizes: list[int], named: bool) -> None:
    model = onnx.ModelProto(ir_version=9)
    model.graph.name = "g" if named else ""
    for place, size in enumerate(sizes):
        model.graph.initializer.append(numpy_helper.from_array(np.arange(size, dtype=np.uint8), f"t{place}"))
    assert joined(model) == model.SerializeToString(deterministic=True)


def test_no_piece_is_larger_than_the_largest_tensor() -> None:
    model = onnx.ModelProto(ir_version=9)
    for place in range(8):
        model.graph.initializer.append(numpy_helper.from_array(np.zeros(1 << 16, np.uint8), f"t{place}"))
    assert max(map(len, pieces(model))) == 1 << 16
    assert sum(map(len, pieces(model))) == pytest.approx(8 << 16, rel=1e-3)
