"""Measured costs of layers: the table, the one-node models, and the exporter that chooses by them."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsepack.cli import run
from sparsepack.errors import FileFormatError, SparsepackError, UsageError
from sparsepack.exporters import open_artifact
from sparsepack.exporters.onnx_sparse import sparse_file
from sparsepack.exporters.onnx_sparse_artifact import OnnxSparseArtifact
from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE, FORMS, CostModel, form_of, quantities
from sparsepack.exporters.sparse_graph.gaps import nonzero_bits
from sparsepack.models.layer_costs import CostTable, LayerCost, LayerShape, rounded_density
from sparsepack.runtimes import RUNTIMES, tune
from sparsepack.runtimes.onnx_profile import read_profile
from sparsepack.runtimes.onnx_session import session_options
from sparsepack.runtimes.tune import MOST_WEIGHTS, cost_source, measure_layers, one_node_model, undisturbed

CONV = LayerShape("Conv", (1, 4, 9, 7), (6, 4, 3, 3), strides=(2, 1), pads=(1, 0, 1, 2))
LINEAR = LayerShape("MatMul", (1, 5, 16), (8, 16), transposed=True)
GEMM = LayerShape("Gemm", (3, 16), (16, 8))
LEFT = LayerShape("MatMul", (2, 5, 16, 20), (8, 16), transposed=True, left=True)


def cost(layer: LayerShape, ms: float) -> LayerCost:
    return LayerCost(layer, ms, ms, ms, 8)


@settings(deadline=None, max_examples=40)
@given(
    size=st.tuples(st.integers(1, 12), st.integers(1, 12)),
    kernel=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    strides=st.tuples(st.integers(1, 3), st.integers(1, 3)),
    pads=st.tuples(*[st.integers(0, 2)] * 4),
    dilations=st.tuples(st.integers(1, 2), st.integers(1, 2)),
    batch=st.integers(1, 3),
)
def test_positions_are_those_of_onnx(
    size: Any, kernel: Any, strides: Any, pads: Any, dilations: Any, batch: int
) -> None:
    layer = LayerShape("Conv", (batch, 2, *size), (3, 2, *kernel), strides, pads, dilations)
    reach = [d * (k - 1) + 1 for d, k in zip(dilations, kernel, strict=True)]
    if any(size[a] + pads[a] + pads[2 + a] < reach[a] for a in (0, 1)):
        return
    inferred = onnx.shape_inference.infer_shapes(one_node_model(layer)).graph.output[0].type.tensor_type.shape.dim
    count, _, height, width = (extent.dim_value for extent in inferred)
    assert layer.positions == count * height * width
    assert layer.macs == layer.positions * 3 * 2 * kernel[0] * kernel[1]


@pytest.mark.parametrize("layer", [CONV, LINEAR, GEMM, LEFT])
def test_a_sparse_layer_keeps_exactly_its_share(layer: LayerShape) -> None:
    dense = one_node_model(layer.dense())
    (weight,) = (numpy_helper.to_array(t) for t in dense.graph.initializer if t.name == "w")
    assert np.count_nonzero(weight) == weight.size
    sparse = one_node_model(layer.sparse(0.25))
    (values,) = (t for t in sparse.graph.initializer if t.name == "w:values")
    assert list(values.dims) == [round(0.25 * weight.size)]
    assert sparse.graph.node[-1].domain == "sparsepack"


def test_the_model_counts_what_a_layer_does() -> None:
    # 5 x 7 outputs of 6 channels from 4 channels of 9 x 7; 216 weights, of which a quarter is kept; 35 positions fill
    # three vectors of 16.
    assert form_of(CONV) == "dense KxK"
    assert quantities(CONV) == (1, 216 * 35, 216, 4 * 63, 6 * 35)
    assert quantities(CONV.sparse(0.25)) == (1, 54 * 48, 54, 4 * 63, 6 * 48)
    assert form_of(LINEAR.sparse(0.1)) == "sparse linear"
    assert quantities(LINEAR) == (1, 128 * 5, 128, 80, 8 * 5)
    # 10 matrices of 20 columns, two vectors each; a single column is a token.
    assert (LEFT.macs, LEFT.examples, form_of(LEFT)) == (10 * 20 * 128, 2, "dense left")
    assert quantities(LEFT.sparse(0.25)) == (1, 32 * 320, 32, 3200, 8 * 320)
    column = LayerShape("MatMul", (16, 1), (8, 16), transposed=True, left=True)
    assert (column.examples, form_of(column)) == (1, "dense vector")
    rates = dict.fromkeys(FORMS, (1000000.0, 0.0, 0.0, 0.0, 0.0)) | {"sparse KxK": (0.0, 1.0, 0.0, 0.0, 0.0)}
    model = CostModel(rates=rates, margin=0.5)
    assert (model.ms(CONV), model.ms(CONV.sparse(0.25))) == pytest.approx((1.0, 54 * 48 / 1e6))
    assert model.prefers_sparse(1.0, 0.49)
    assert not model.prefers_sparse(1.0, 0.51)


def test_the_model_knows_the_plain_cases() -> None:
    model = CostModel()
    wide = LayerShape("Conv", (1, 256, 14, 14), (256, 256, 3, 3), pads=(1, 1, 1, 1))
    assert model.prefers_sparse(model.ms(wide), model.ms(wide.sparse(0.1)))
    assert not model.prefers_sparse(model.ms(wide), model.ms(wide.sparse(0.9)))
    # One number in, one out: whatever it is, calling it decides.
    tiny = LayerShape("MatMul", (1, 1), (1, 1))
    assert 0 < model.ms(tiny) < 0.01


@pytest.mark.parametrize(("density", "listed"), [(0.1003, 0.1), (0.04567, 0.046), (0.996, 1.0), (0.0, 0.0)])
def test_densities_are_listed_with_two_digits(density: float, listed: float) -> None:
    assert rounded_density(density) == listed
    assert CONV.sparse(density).density == listed


def test_a_table_comes_back_from_its_file(tmp_path: Path) -> None:
    table = CostTable({"cpu": "one", "threads": 2}, [cost(CONV, 1.5), cost(LINEAR.sparse(0.1), 0.25)])
    table.save(tmp_path / "costs.json")
    back = CostTable.load(tmp_path / "costs.json")
    assert (back.conditions, back.costs) == (table.conditions, table.costs)
    assert back.find(CONV) == cost(CONV, 1.5)
    assert back.find(CONV.sparse(0.1)) is None
    assert json.loads((tmp_path / "costs.json").read_text())["schema"] == "sparsepack.costs/1"


@pytest.mark.parametrize(
    ("content", "text"),
    [
        (b"{", "is no cost table: it is not JSON"),
        (b"[1]", "no cost table of schema"),
        (b'{"schema": "sparsepack.costs/2"}', "its schema: sparsepack.costs/2"),
        (b'{"schema": "sparsepack.costs/1", "conditions": {}, "costs": [{"ms": 1}]}', "damaged cost table"),
        (b'{"schema": "sparsepack.costs/1", "costs": []}', "damaged cost table"),
    ],
)
def test_a_damaged_table_is_refused(content: bytes, text: str, tmp_path: Path) -> None:
    (tmp_path / "bad.json").write_bytes(content)
    with pytest.raises(FileFormatError, match=text):
        CostTable.load(tmp_path / "bad.json")


def test_measurements_of_two_machines_are_not_mixed(tmp_path: Path) -> None:
    CostTable({"cpu": "another", "threads": 1}).save(tmp_path / "costs.json")
    with pytest.raises(UsageError, match="was measured with cpu another"):
        cost_source(tmp_path / "costs.json", tune=True, threads=1)
    there = cost_source(tmp_path / "costs.json", tune=False, threads=1)
    assert there is not None
    assert there([CONV]).conditions["cpu"] == "another"


def test_the_fastest_quarter_counts() -> None:
    assert undisturbed([9.0, 1.0, 100.0, 3.0, 50.0, 7.0, 8.0, 6.0]) == 2.0
    assert undisturbed([4.0]) == 4.0


def test_a_profile_is_read_node_by_node(tmp_path: Path) -> None:
    def event(name: str, operator: str, index: str, microseconds: int) -> dict[str, Any]:
        return {"cat": "Node", "name": name, "dur": microseconds, "args": {"op_name": operator, "node_index": index}}

    events = [
        {"cat": "Session", "name": "model_run", "dur": 900, "args": {}},
        *(event("in_kernel_time", "ReorderInput", "3", 20 + turn) for turn in (0, 1)),
        *(event("c_kernel_time", "Conv", "4", 500 - turn) for turn in (0, 1)),
        event("c_fence_before", "Conv", "4", 7),
    ]
    (tmp_path / "profile.json").write_text(json.dumps(events))
    first, second = read_profile(tmp_path / "profile.json")
    assert (first.name, first.reorders, first.milliseconds) == ("in", True, (0.02, 0.021))
    assert (second.name, second.operator, second.reorders, second.milliseconds) == ("c", "Conv", False, (0.5, 0.499))
    with pytest.raises(FileFormatError, match="profile cannot be read"):
        read_profile(tmp_path / "none.json")


@pytest.mark.native
@pytest.mark.parametrize("layer", [CONV, LINEAR, GEMM])
def test_both_forms_compute_the_same(layer: LayerShape, operators: Path) -> None:
    import onnxruntime

    options = session_options(1)
    options.register_custom_ops_library(str(operators))
    sparse = one_node_model(layer.sparse(0.3))
    dense = one_node_model(layer.dense())
    weight = next(t for t in dense.graph.initializer if t.name == "w")
    # The same draws in the same order: the weight, then the places that stay.
    rng = np.random.default_rng(0)
    values = rng.standard_normal(layer.weight, np.float32)
    values.reshape(-1)[rng.permutation(values.size)[round(0.3 * values.size) :]] = 0
    weight.CopyFrom(numpy_helper.from_array(values, "w"))
    x = np.random.default_rng(1).standard_normal(layer.input, np.float32)
    found, expected = (
        onnxruntime.InferenceSession(model.SerializeToString(), options).run(None, {"x": x})[0]
        for model in (sparse, dense)
    )
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4)


@pytest.mark.native
def test_only_what_is_missing_is_measured(operators: Path) -> None:
    huge = LayerShape("Gemm", (1, MOST_WEIGHTS), (MOST_WEIGHTS, 2))
    first = measure_layers([CONV, CONV, huge], threads=1, rounds=2, seconds=0.0)
    assert list(first.costs) == [CONV]
    assert first.costs[CONV].runs == 8
    assert 0 < first.costs[CONV].inner_ms <= first.costs[CONV].ms <= first.costs[CONV].median_ms
    both = measure_layers([CONV, CONV.sparse(0.1)], threads=1, known=first, rounds=1, seconds=0.0)
    assert list(both.costs) == [CONV, CONV.sparse(0.1)]
    assert both.costs[CONV] is first.costs[CONV]


@pytest.fixture
def zeros(tmp_path: Path) -> Path:
    """A third party's file: two matrices, one of them nine tenths zero, one without a zero."""
    rng = np.random.default_rng(0)
    pruned = rng.standard_normal((64, 48), np.float32) * (rng.random((64, 48)) < 0.1)
    constants = {"w1": pruned.astype(np.float32), "w2": rng.standard_normal((48, 8), np.float32)}
    nodes = [helper.make_node("MatMul", ["x", "w1"], ["h"]), helper.make_node("MatMul", ["h", "w2"], ["y"])]
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    helper.set_model_props(model, {"labels": "a,b"})
    onnx.save(model, tmp_path / "zeros.onnx")
    return tmp_path / "zeros.onnx"


@pytest.mark.parametrize(
    ("sparse_ms", "runs", "reason"), [(0.5, True, "measured faster"), (2.0, False, "measured slower")]
)
def test_measured_costs_decide(sparse_ms: float, runs: bool, reason: str, zeros: Path, tmp_path: Path) -> None:
    asked: list[LayerShape] = []

    def measure(layers: Any) -> CostTable:
        asked.extend(layers)
        return CostTable({}, [cost(layer, 1.0 if layer.density is None else sparse_ms) for layer in layers])

    sparse_file(zeros, tmp_path / "out.onnx", measure=measure, batch=4)
    artifact = open_artifact(tmp_path / "out.onnx")
    assert isinstance(artifact, OnnxSparseArtifact)
    first, second = artifact.layers
    assert (first.sparse, first.reason, first.dense_ms, first.sparse_ms) == (runs, reason, 1.0, sparse_ms)
    assert second.reason == "keeps more than 50 % of its weights"
    # The matrix without zeros is not worth a question.
    dense = LayerShape("MatMul", (4, 64), (64, 48))
    assert asked == [dense, dense.sparse(1 - first.sparsity)]


@pytest.mark.native
def test_a_third_partys_file_runs_sparse(zeros: Path, operators: Path, tmp_path: Path) -> None:
    faster = CostModel(margin=math.inf)
    sparse_file(zeros, tmp_path / "out.onnx", costs=faster)
    artifact = open_artifact(tmp_path / "out.onnx")
    original = {t.name: numpy_helper.to_array(t) for t in onnx.load(zeros).graph.initializer}
    assert [layer.sparse for layer in artifact.layers] == [True, False]  # type: ignore[attr-defined]  # of onnx-sparse
    assert {name: array.tobytes() for name, array in artifact.tensors().items()} == {
        name: array.tobytes() for name, array in original.items()
    }
    rows = {row.name: row for row in artifact.rows()}
    assert rows["w1"].nnz == int(nonzero_bits(original["w1"]).sum())
    assert sum(row.bytes for row in rows.values()) + sum(artifact.overhead().values()) == artifact.size
    assert {e.key: e.value for e in onnx.load(tmp_path / "out.onnx").metadata_props}["labels"] == "a,b"
    x = np.random.default_rng(1).standard_normal((3, 64), np.float32)
    found = RUNTIMES["onnxruntime-sparse-cpu"].load(artifact, threads=1).run(x)
    np.testing.assert_allclose(found, x @ original["w1"] @ original["w2"], rtol=1e-4, atol=1e-4)
    sparse_file(zeros, tmp_path / "again.onnx", costs=faster)
    assert (tmp_path / "again.onnx").read_bytes() == (tmp_path / "out.onnx").read_bytes()


def test_a_table_that_cannot_be_written_is_refused_before_anything_is_measured(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("no folder")
    monkeypatch.setattr(tune, "measure_layers", lambda *given, **named: pytest.fail("it measured"))
    measure = cost_source(tmp_path / "file" / "costs.json", tune=True, threads=1)
    assert measure is not None
    with pytest.raises(SparsepackError, match=r"cannot write .*costs\.json"):
        measure([LINEAR])


def test_a_table_that_lacks_nothing_is_not_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "costs.json"
    known = CostTable(tune.conditions(1)).with_costs([LayerCost(LINEAR, 1.0, 1.0, 1.0, 3)])
    known.save(path)
    measure = cost_source(path, tune=True, threads=1)
    assert measure is not None
    monkeypatch.setattr(CostTable, "save", lambda *given: pytest.fail("it wrote"))
    assert measure([LINEAR]).find(LINEAR) == known.find(LINEAR)


@pytest.mark.native
def test_the_command_measures_once_and_keeps_the_table(
    zeros: Path, operators: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    export = ["export", str(zeros), "--to", "onnx-sparse", "-o", str(tmp_path / "out.onnx"), "--force"]
    table = ["--cost-table", str(tmp_path / "costs.json")]
    assert run([*export, *table, "--tune", "--threads", "1"]) == 0
    said = capsys.readouterr().out
    assert "measured" in said
    assert "w1" in said
    kept = (tmp_path / "costs.json").read_bytes()
    first = (tmp_path / "out.onnx").read_bytes()
    assert len(CostTable.load(tmp_path / "costs.json").costs) == 2
    assert run([*export, *table, "--tune", "--threads", "1"]) == 0
    assert run([*export, *table]) == 0
    assert (tmp_path / "costs.json").read_bytes() == kept
    assert (tmp_path / "out.onnx").read_bytes() == first


@pytest.mark.parametrize(
    ("words", "text"),
    [
        (["--to", "onnx-slim", "--tune"], "--tune goes with --to onnx-sparse"),
        (["--to", "onnx-slim", "--batch", "2"], "--batch goes with --to onnx-sparse"),
        (["--to", "onnx-sparse", "--threads", "1"], "give --tune as well"),
        (["--to", "onnx-sparse", "--model", "lenet-5-caffe"], "is the model itself"),
        (["--to", "onnx-sparse", "--values", "int3"], "unknown value type"),
    ],
)
def test_options_that_do_not_go_together(
    words: list[str], text: str, zeros: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["export", str(zeros), *words, "-o", str(tmp_path / "out.onnx")]) == 2
    assert text in capsys.readouterr().err
    assert not (tmp_path / "out.onnx").exists()


def test_a_file_with_sparse_layers_is_not_rewritten_again(
    zeros: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sparse_file(zeros, tmp_path / "out.onnx", costs=ALWAYS_SPARSE)
    assert run(["export", str(tmp_path / "out.onnx"), "--to", "onnx-sparse", "-o", str(tmp_path / "two.onnx")]) == 1
    assert "has sparse layers already" in capsys.readouterr().err
