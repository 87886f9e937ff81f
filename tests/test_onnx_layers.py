"""Times of single nodes: all of the graph's, in its order, adding up; in the record only where they were asked for."""

from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.exporters import open_artifact
from sparsepack.exporters.onnx_sparse import sparse_file
from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure import measure
from sparsepack.runtimes.onnx_layers import layer_times
from sparsepack.runtimes.report.table import render


@pytest.fixture
def model(tmp_path: Path) -> Path:
    rng = np.random.default_rng(0)
    weight = rng.standard_normal((48, 32), np.float32) * (rng.random((48, 32)) < 0.2)
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["h"], name="product"),
        helper.make_node("Softmax", ["h"], ["y"], name="shares"),
    ]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 48])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(weight.astype(np.float32), "w")],
    )
    made = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(made, tmp_path / "model.onnx")
    return tmp_path / "model.onnx"


def test_every_node_is_timed_in_order(model: Path) -> None:
    x = np.ones((3, 48), np.float32)
    nodes = layer_times(open_artifact(model), RUNTIMES["onnxruntime-cpu"], (x,), threads=1, budget=0.0)
    assert [(node["name"], node["operator"]) for node in nodes] == [("product", "MatMul"), ("shares", "Softmax")]
    assert all(node["ms"] >= 0 for node in nodes)
    assert sum(node["share"] for node in nodes) in (0.0, pytest.approx(1.0, abs=1e-3))
    assert layer_times(open_artifact(model), RUNTIMES["torch-cpu"], (x,), threads=1, budget=0.0) == []


@pytest.mark.native
def test_the_record_holds_them_when_asked(model: Path, operators: Path, tmp_path: Path) -> None:
    sparse_file(model, tmp_path / "sparse.onnx", costs=ALWAYS_SPARSE)
    options = {"baseline": model, "threads": 1, "time_budget": 0.05}
    record = measure([tmp_path / "sparse.onnx"], per_layer=True, **options)  # type: ignore[arg-type]  # options by name
    timed = record["artifacts"][0]["latency"]["onnxruntime-sparse-cpu"]
    assert [node["operator"] for node in timed["layers"]] == ["SparseMatMul", "Softmax"]
    # The only layer with constant weights runs sparse.
    assert timed["sparse_macs"] == 1.0
    text = render(record)
    assert "the slowest 2 of 2 nodes" in text
    assert "SparseMatMul" in text
    assert "verdict on sparse.onnx: " in text
    plain = measure([tmp_path / "sparse.onnx"], **options)["artifacts"][0]  # type: ignore[arg-type]  # options by name
    assert plain["latency"]["onnxruntime-sparse-cpu"]["layers"] == []
