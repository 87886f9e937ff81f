"""``onnx-sparse``: equal to the ``onnx`` export of the same checkpoint, every byte and every tensor accounted for."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from zoo_parity import parity_of, pruned

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.errors import FileFormatError, HashMismatchError, OutputExistsError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_seal import KEY, seal
from sparsepack.exporters.onnx_sparse import write_onnx_sparse
from sparsepack.exporters.onnx_sparse_artifact import OnnxSparseArtifact
from sparsepack.exporters.sparse_graph import gaps
from sparsepack.exporters.sparse_graph.cost_model import ALWAYS_SPARSE, FORMS, CostModel
from sparsepack.exporters.sparse_graph.rewrite import rewrite
from sparsepack.files import Array
from sparsepack.models.source import TorchSource
from sparsepack.models.zoo import ZOO
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.parity import BOUND, compare

Build = Callable[..., SparseCheckpoint]
Change = Callable[[onnx.ModelProto, dict[str, Any]], None]


def written(checkpoint: SparseCheckpoint, path: Path, costs: CostModel, **options: Any) -> OnnxSparseArtifact:
    write_onnx_sparse(checkpoint, path, costs=costs, **options)
    artifact = open_artifact(path)
    assert isinstance(artifact, OnnxSparseArtifact)
    return artifact


@pytest.fixture(scope="module", params=["lenet-5-caffe", "resnet-20", "vgg-16", "text-encoder"])
def case(request: pytest.FixtureRequest, checkpoint_of: Build) -> tuple[TorchSource, SparseCheckpoint]:
    source, tensors = pruned(request.param)
    return source, checkpoint_of(*tensors, model=source.record)


@pytest.mark.native
@pytest.mark.slow
def test_zoo_networks_equal_their_dense_export(
    case: tuple[TorchSource, SparseCheckpoint], operators: Path, tmp_path: Path
) -> None:
    source, checkpoint = case
    inputs = [tensor.numpy() for tensor in source.example_inputs(16)]
    for values in ("fp32", "fp16"):
        path = tmp_path / f"sparse-{values}.onnx"
        sparse = written(checkpoint, path, ALWAYS_SPARSE, values=values, source=source)
        assert all(layer.sparse for layer in sparse.layers)
        assert sum(row.bytes for row in sparse.rows()) + sum(sparse.overhead().values()) == sparse.size
        decoded = sparse.tensors()
        expected = checkpoint.dense_state()
        assert {name for name in expected if not name.endswith("num_batches_tracked")} == set(decoded)
        session = RUNTIMES["onnxruntime-sparse-cpu"].load(sparse, threads=1)
        if values == "fp32":
            assert all(array.tobytes() == expected[name].tobytes() for name, array in decoded.items())
            dense = export(checkpoint, "onnx", tmp_path / "dense.onnx", source=source)
            reference = RUNTIMES["onnxruntime-cpu"].load(dense, threads=1).run(*inputs)
            assert 4 * sparse.size < 3 * dense.size
            error = compare(reference, session.run(*inputs)).error
            assert error is not None
            assert error < BOUND
            np.testing.assert_allclose(session.run(*[x[:1] for x in inputs]), reference[:1], rtol=1e-3, atol=1e-3)
        else:
            assert all(np.allclose(array, expected[name], rtol=1e-3, atol=1e-6) for name, array in decoded.items())
            rounded = compare(reference, session.run(*inputs)).error
            assert rounded is not None
            # Rounding of 2**-11 a weight, through up to twenty layers.
            assert rounded < 0.05
        assert "layers run sparse" in session.notes[0]


# Tested above, or so large that a test of theirs takes gigabytes; benchmarks/zoo_parity.py runs all of them.
ELSEWHERE = {"lenet-5-caffe", "resnet-20", "vgg-16", "text-encoder", "alexnet", "vgg-11", "vgg-19", "wrn-28-10"}


@pytest.mark.native
@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(set(ZOO) - ELSEWHERE))
def test_every_other_zoo_network_keeps_its_outputs(name: str, operators: Path, tmp_path: Path) -> None:
    found = parity_of(name, tmp_path)
    assert found["error"] is not None
    assert found["error"] < BOUND
    # An unrolled recurrent cell shares its weights among the steps, and shared weights stay dense.
    assert found["sparse_bytes"] < found["dense_bytes"] / (1 if name == "lstm" else 2)


@pytest.fixture(scope="module")
def lenet(checkpoint_of: Build) -> tuple[TorchSource, SparseCheckpoint]:
    source, tensors = pruned("lenet-5-caffe")
    return source, checkpoint_of(*tensors, model=source.record)


# A dense multiply-add takes a nanosecond, a sparse one a tenth of that; calling the sparse operator 0.1 ms.
CALLS_COST = CostModel(
    rates={form: (0.0, 1.0, 0.0, 0.0, 0.0) if "dense" in form else (1e5, 0.1, 0.0, 0.0, 0.0) for form in FORMS}
)


@pytest.fixture
def small(lenet: tuple[TorchSource, SparseCheckpoint], tmp_path: Path) -> OnnxSparseArtifact:
    return written(lenet[1], tmp_path / "small.onnx", CALLS_COST, source=lenet[0])


def test_every_layer_says_what_became_of_it(small: OnnxSparseArtifact) -> None:
    choices = {layer.weight: layer for layer in small.layers}
    assert list(choices) == ["conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight"]
    # 24 x 24 pixels, 20 channels, 5 x 5 taps.
    assert choices["conv1.weight"].macs == 24 * 24 * 20 * 25
    assert choices["fc1.weight"].macs == 800 * 500
    assert choices["fc1.weight"].sparse
    assert choices["fc1.weight"].sparsity == pytest.approx(0.9, abs=1e-3)
    codecs = {row.name: row.codec for row in small.rows()}
    assert codecs["fc1.weight"] == "gaps float32, runs sparse"
    assert codecs["fc2.weight"] == "dense float32, predicted slower"


def test_equal_checkpoints_give_equal_bytes(
    lenet: tuple[TorchSource, SparseCheckpoint], small: OnnxSparseArtifact, tmp_path: Path
) -> None:
    again = written(lenet[1], tmp_path / "again.onnx", CALLS_COST, source=lenet[0])
    assert again.path.read_bytes() == small.path.read_bytes()
    with pytest.raises(OutputExistsError):
        export(lenet[1], "onnx-sparse", again.path, source=lenet[0])


def test_kept_zeros_negative_zeros_and_nan_come_back(checkpoint_of: Build, tmp_path: Path) -> None:
    source, tensors = pruned("lenet-300-100")
    name = "fc1.weight"
    dense = next(t for t in tensors if t.record.name == name).dense()
    mask = dense != 0
    places = np.flatnonzero(mask)[:3]
    dense.reshape(-1)[places] = [0.0, -0.0, np.nan]
    changed = [
        make_tensor(name, dense, mask=mask, record={"role": "prunable"}) if t.record.name == name else t
        for t in tensors
    ]
    checkpoint = checkpoint_of(*changed, model=source.record)
    artifact = written(checkpoint, tmp_path / "a.onnx", ALWAYS_SPARSE, source=source)
    assert artifact.tensor(name).tobytes() == dense.tobytes()
    assert {row.name: row.nnz for row in artifact.rows()}[name] == int(mask.sum())


def test_a_value_too_large_for_half_precision_is_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    source, tensors = pruned("lenet-300-100")
    dense = tensors[0].dense()
    dense.reshape(-1)[0] = 1e6
    checkpoint = checkpoint_of(
        make_tensor("fc1.weight", dense, mask=dense != 0, record={"role": "prunable"}),
        *tensors[1:],
        model=source.record,
    )
    with pytest.raises(UnsupportedError, match="65504"):
        write_onnx_sparse(checkpoint, tmp_path / "a.onnx", values="fp16", source=source, costs=ALWAYS_SPARSE)


def test_any_damaged_byte_is_noticed(small: OnnxSparseArtifact, tmp_path: Path) -> None:
    content = bytearray(small.path.read_bytes())
    damaged = tmp_path / "damaged.onnx"
    for place in (*range(0, 400, 7), *range(400, len(content), len(content) // 40)):
        content[place] ^= 0x40
        damaged.write_bytes(content)
        content[place] ^= 0x40
        with pytest.raises(FileFormatError):
            open_artifact(damaged)
    damaged.write_bytes(content[:-1])
    with pytest.raises(HashMismatchError):
        open_artifact(damaged)


def resealed(
    artifact: OnnxSparseArtifact, path: Path, change: Callable[[onnx.ModelProto, dict[str, Any]], None]
) -> Path:
    """The file as a writer of bad files would write it: changed, and sealed again."""
    model = onnx.load(artifact.path)
    entry = next(e for e in model.metadata_props if e.key == KEY.decode())
    content = json.loads(entry.value[64:])
    del model.metadata_props[:]
    change(model, content)
    body = model.SerializeToString()
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(seal(text, [body]) + body)
    return path


def initializer(model: onnx.ModelProto, name: str) -> TensorProto:
    found: TensorProto = next(tensor for tensor in model.graph.initializer if tensor.name == name)
    return found


def _longer_gaps(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    tensor = initializer(model, "fc1.weight:gaps")
    tensor.raw_data = b"\xfe" * len(tensor.raw_data)


def _loose_escape(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    tensor = initializer(model, "fc1.weight:gaps")
    tensor.raw_data = tensor.raw_data[:-1] + b"\xff"


def _other_type(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    initializer(model, "fc1.weight:gaps").data_type = TensorProto.INT8


def _changed_value(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    tensor = initializer(model, "fc1.weight:values")
    tensor.raw_data = b"\0\0\x80\x3f" + tensor.raw_data[4:]


def _other_shape(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    tensor = initializer(model, "fc1.weight:values")
    tensor.dims[:] = [1, tensor.dims[0]]


def _missing(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    initializer(model, "fc1.weight:values").name = "elsewhere"


def _bad_layers(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    content["layers"] = [{"weight": 3}]


def _later_version(model: onnx.ModelProto, content: dict[str, Any]) -> None:
    content["version"] = 2


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_longer_gaps, "run to position"),
        (_loose_escape, "gaps list"),
        (_other_type, "no list of bytes"),
        (_changed_value, "SHA-256"),
        (_other_shape, "does not fit"),
        (_missing, "is missing"),
        (_bad_layers, "list of layers is malformed"),
        (_later_version, "version 2"),
    ],
)
def test_hostile_files_are_refused(change: Any, text: str, small: OnnxSparseArtifact, tmp_path: Path) -> None:
    path = resealed(small, tmp_path / "hostile.onnx", change)
    with pytest.raises(FileFormatError, match=text):
        open_artifact(path).verify()


def test_an_unchanged_file_survives_sealing_again(small: OnnxSparseArtifact, tmp_path: Path) -> None:
    path = resealed(small, tmp_path / "same.onnx", lambda model, content: None)
    open_artifact(path).verify()


def graph_model(nodes: list[onnx.NodeProto], constants: dict[str, Array], shape: list[Any]) -> onnx.ModelProto:
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, shape)],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
        [numpy_helper.from_array(array, name) for name, array in constants.items()],
    )
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def sparse_matrix(rows: int, columns: int, density: float = 0.1) -> Array:
    rng = np.random.default_rng(0)
    return (rng.standard_normal((rows, columns)) * (rng.random((rows, columns)) < density)).astype(np.float32)


def operators_of(model: onnx.ModelProto, **options: Any) -> list[str]:
    return [node.op_type for node in rewrite(model, **options).model.graph.node]


def test_a_weight_that_something_else_reads_stays_dense() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("MatMul", ["a", "w"], ["y"]),
    ]
    assert (
        operators_of(graph_model(nodes, {"w": sparse_matrix(64, 64)}, ["n", 64]), costs=ALWAYS_SPARSE) == ["MatMul"] * 2
    )


def test_a_value_that_something_else_reads_is_not_fused_away() -> None:
    nodes = [
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Relu", ["a"], ["b"]),
        helper.make_node("Add", ["a", "b"], ["y"]),
    ]
    found = operators_of(graph_model(nodes, {"w": sparse_matrix(64, 64)}, ["n", 64]), costs=ALWAYS_SPARSE)
    assert found == ["SparseMatMul", "Relu", "Add"]


def test_a_broadcast_residual_is_not_fused() -> None:
    nodes = [
        helper.make_node("ReduceMean", ["x"], ["mean"], keepdims=1),
        helper.make_node("MatMul", ["x", "w"], ["a"]),
        helper.make_node("Add", ["a", "mean"], ["y"]),
    ]
    found = operators_of(graph_model(nodes, {"w": sparse_matrix(64, 64)}, ["n", 64]), costs=ALWAYS_SPARSE)
    assert found == ["ReduceMean", "SparseMatMul", "Add"]


def test_a_weight_that_the_caller_may_override_stays_dense() -> None:
    model = graph_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse_matrix(64, 64)}, ["n", 64])
    model.graph.input.append(helper.make_tensor_value_info("w", TensorProto.FLOAT, [64, 64]))
    assert operators_of(model, costs=ALWAYS_SPARSE) == ["MatMul"]


@pytest.mark.parametrize("options", [{"alpha": 2.0}, {"beta": 0.5}, {"transA": 1}])
def test_a_gemm_that_the_operators_do_not_compute_stays_dense(options: dict[str, Any]) -> None:
    node = helper.make_node("Gemm", ["x", "w", "b"], ["y"], **options)
    constants = {"w": sparse_matrix(64, 64), "b": np.zeros(64, np.float32)}
    assert operators_of(graph_model([node], constants, [64, 64]), costs=ALWAYS_SPARSE) == ["Gemm"]


@pytest.mark.parametrize(("taps", "expected"), [(2**16 - 1, "SparseConv"), (2**16, "Conv")])
def test_a_kernel_of_more_taps_than_the_operator_takes_stays_dense(taps: int, expected: str) -> None:
    weight = sparse_matrix(2, taps).reshape(2, 1, taps)
    model = graph_model([helper.make_node("Conv", ["x", "w"], ["y"])], {"w": weight}, ["n", 1, taps])
    assert operators_of(model, costs=ALWAYS_SPARSE) == [expected]


def test_dense_weights_stay_dense_with_the_reason() -> None:
    model = graph_model([helper.make_node("MatMul", ["x", "w"], ["y"])], {"w": sparse_matrix(64, 64, 0.9)}, ["n", 64])
    (choice,) = rewrite(model).choices
    assert (choice.sparse, choice.reason) == (False, "keeps more than 50 % of its weights")


@pytest.mark.native
def test_an_onnx_source_is_pruned_and_runs_sparse(operators: Path, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    nodes = [
        helper.make_node("Gemm", ["x", "w1", "b1"], ["h"], transB=1),
        helper.make_node("Relu", ["h"], ["a"]),
        helper.make_node("MatMul", ["a", "w2"], ["y"]),
    ]
    constants = {
        "w1": rng.standard_normal((256, 128)).astype(np.float32),
        "b1": rng.standard_normal(256).astype(np.float32),
        "w2": rng.standard_normal((256, 128)).astype(np.float32),
    }
    onnx.save(graph_model(nodes, constants, ["n", 128]), tmp_path / "model.onnx")
    recipe = single_run(None, str(tmp_path / "model.onnx"), data="none", method="magnitude", sparsity=0.9)
    checkpoint = prune(recipe, tmp_path / "run")
    sparse = export(checkpoint, "onnx-sparse", tmp_path / "sparse.onnx")
    dense = export(checkpoint, "onnx", tmp_path / "dense.onnx")
    x = rng.standard_normal((5, 128)).astype(np.float32)
    found = RUNTIMES["onnxruntime-sparse-cpu"].load(sparse, threads=1).run(x)
    np.testing.assert_allclose(found, RUNTIMES["onnxruntime-cpu"].load(dense, threads=1).run(x), rtol=1e-4, atol=1e-4)
    assert {row.name for row in sparse.rows()} == {"w1", "b1", "w2"}


def test_other_runtimes_say_why_they_do_not_take_it(small: OnnxSparseArtifact) -> None:
    assert "onnxruntime-sparse-cpu" in str(RUNTIMES["onnxruntime-cpu"].accepts(small))
    assert RUNTIMES["torch-cpu"].accepts(small) is None
    assert RUNTIMES["onnxruntime-sparse-cpu"].accepts(small) is None


@pytest.mark.native
def test_it_is_verified_and_measured(
    operators: Path, lenet: tuple[TorchSource, SparseCheckpoint], small: OnnxSparseArtifact, tmp_path: Path
) -> None:
    from sparsepack.runtimes.measure import measure
    from sparsepack.runtimes.report.listing import artifact_summary
    from sparsepack.runtimes.verify import verify

    findings = verify(small.path)
    assert all(finding.ok for finding in findings)
    assert {"hash", "graph", "parity", "structure"} <= {finding.check for finding in findings}
    dense = export(lenet[1], "onnx", tmp_path / "dense.onnx", source=lenet[0])
    record = measure([small.path], baseline=dense.path, threads=1, time_budget=0.1)
    (artifact,) = record["artifacts"]
    timed = artifact["latency"]["onnxruntime-sparse-cpu"]
    assert timed["speedup"] is not None
    assert any("3 of 4 layers run sparse" in note for note in timed["notes"])
    assert artifact["parity"]["error"] < BOUND
    assert artifact["parity"]["runtime"] == "onnxruntime-sparse-cpu"
    assert "3 of 4 layers run sparse" in artifact_summary(small)


@pytest.mark.parametrize("density", [0.0, 1e-4, 0.01, 0.5, 1.0])
def test_gaps_come_back(density: float) -> None:
    mask = np.random.default_rng(0).random((40, 500)) < density
    packed = gaps.pack(mask)
    assert packed.size == np.count_nonzero(mask) + np.count_nonzero(packed == gaps.ESCAPE)
    np.testing.assert_array_equal(gaps.unpack(packed, mask.shape, int(mask.sum())), mask)


def test_costs_can_be_given(lenet: tuple[TorchSource, SparseCheckpoint], tmp_path: Path) -> None:
    never = CostModel(margin=0.0)
    write_onnx_sparse(lenet[1], tmp_path / "dense.onnx", source=lenet[0], costs=never)
    artifact = open_artifact(tmp_path / "dense.onnx")
    assert isinstance(artifact, OnnxSparseArtifact)
    assert not any(layer.sparse for layer in artifact.layers)
    artifact.verify()
