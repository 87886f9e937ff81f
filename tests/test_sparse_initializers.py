"""ONNX's own sparse tensors: smaller or refused, bit for bit the dense tensor, and read back from any file."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
from click.testing import CliRunner
from hypothesis import given
from hypothesis import strategies as st
from onnx import TensorProto, helper, numpy_helper

from sparsepack.cli import commands
from sparsepack.compressor.checkpoint import SparseCheckpoint, SparseTensor, make_tensor
from sparsepack.errors import FileFormatError, UsageError
from sparsepack.exporters import open_artifact
from sparsepack.exporters.onnx_dense import write_onnx_dense
from sparsepack.exporters.sparse_initializers import densify, sparsify, summary
from sparsepack.files import Array
from sparsepack.models.source import ModelSource, load_source

Build = Callable[..., SparseCheckpoint]

FACTORY = """
from torch import nn


def build():
    import torch
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(90, 100), nn.ReLU(), nn.Linear(100, 30)), torch.zeros(1, 90)
"""


def weight(name: str, shape: tuple[int, ...], density: float) -> SparseTensor:
    random = np.random.default_rng(len(name))
    dense = random.standard_normal(shape).astype(np.float32)
    return make_tensor(name, dense, mask=random.random(shape) < density, record={"role": "prunable"})


def model_of(arrays: dict[str, Array]) -> onnx.ModelProto:
    nodes = [helper.make_node("Identity", [name], [f"out:{name}"]) for name in arrays]
    outputs = [helper.make_tensor_value_info(f"out:{name}", TensorProto.FLOAT, a.shape) for name, a in arrays.items()]
    tensors = [numpy_helper.from_array(array, name) for name, array in arrays.items()]
    graph = helper.make_graph(nodes, "weights", [], outputs, tensors)
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)


def run(content: bytes | str, *inputs: Array) -> list[Array]:
    session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
    names = [value.name for value in session.get_inputs()]
    found: list[Array] = session.run(None, dict(zip(names, inputs, strict=True)))
    return found


def test_thin_weights_come_back_and_thick_ones_are_refused() -> None:
    # 34 % kept is above the third from which 12 bytes a value are more than 4 bytes a weight.
    tensors = [weight("thin", (90, 100), 0.1), weight("thick", (90, 100), 0.34), weight("conv", (16, 8, 3, 3), 0.05)]
    assert tensors[0].values is not None
    tensors[0].values[:2] = -0.0, np.nan
    dense = {tensor.record.name: tensor.dense() for tensor in tensors}
    model = model_of(dense)
    report = {entry.name: entry for entry in sparsify(model)}
    assert {name: entry.sparse for name, entry in report.items()} == {"thin": True, "thick": False, "conv": True}
    assert summary(list(report.values()))[1].startswith("'thick' stays dense (36")
    onnx.checker.check_model(model)
    found = {sparse.values.name: densify(sparse, 2**20) for sparse in model.graph.sparse_initializer}
    assert found["thin"].tobytes() == dense["thin"].tobytes()
    assert report["thin"].sparse_bytes <= 12 * np.count_nonzero(dense["thin"].view(np.uint32)) + 40
    for name, array in zip(dense, run(model.SerializeToString()), strict=True):
        assert array.tobytes() == dense[name].tobytes()


@pytest.fixture
def network(tmp_path: Path, checkpoint_of: Build) -> tuple[ModelSource, SparseCheckpoint]:
    (tmp_path / "network.py").write_text(FACTORY)
    source = load_source(f"{tmp_path / 'network.py'}:build", allow_import=True)
    tensors = [
        weight("0.weight", (100, 90), 0.1),
        make_tensor("0.bias", np.arange(100, dtype=np.float32)),
        weight("2.weight", (30, 100), 0.5),
        make_tensor("2.bias", np.zeros(30, np.float32)),
    ]
    return source, checkpoint_of(*tensors, model=source.record)


@pytest.mark.parametrize("values", ["fp32", "fp16"])
def test_the_file_opens_again_and_computes_the_same(
    values: str, network: tuple[ModelSource, SparseCheckpoint], tmp_path: Path
) -> None:
    source, checkpoint = network
    report = write_onnx_dense(
        checkpoint, tmp_path / "sparse.onnx", source=source, values=values, sparse_initializers=True
    )
    write_onnx_dense(checkpoint, tmp_path / "dense.onnx", source=source, values=values)
    assert [(entry.name, entry.sparse) for entry in report] == [("0.weight", True), ("2.weight", False)]
    sparse, dense = open_artifact(tmp_path / "sparse.onnx"), open_artifact(tmp_path / "dense.onnx")
    sparse.verify()
    assert sparse.records() == dense.records()
    assert {name: a.tobytes() for name, a in sparse.tensors().items()} == {
        name: a.tobytes() for name, a in dense.tensors().items()
    }
    rows = {row.name: row for row in sparse.rows()}
    assert sum(row.bytes for row in rows.values()) + sum(sparse.overhead().values()) == sparse.size < dense.size
    assert rows["0.weight"].codec == (
        "sparse initializer float32" if values == "fp32" else "sparse initializer float16"
    )
    assert rows["0.weight"].nnz == checkpoint.tensors["0.weight"].kept
    inputs = np.random.default_rng(0).standard_normal((3, 90), np.float32)
    [a], [b] = (run(str(tmp_path / name), inputs) for name in ("sparse.onnx", "dense.onnx"))
    assert a.tobytes() == b.tobytes()


def test_an_onnx_source_becomes_a_sparse_copy_and_foreign_sparse_files_are_read(
    checkpoint_of: Build, tmp_path: Path
) -> None:
    tensor = weight("w", (90, 100), 0.1)
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 90])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 100])],
        [numpy_helper.from_array(np.ones((90, 100), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    onnx.save(model, tmp_path / "model.onnx")
    source = load_source(str(tmp_path / "model.onnx"))
    checkpoint = checkpoint_of(tensor, model=source.record)
    write_onnx_dense(checkpoint, tmp_path / "ours.onnx", source=source, sparse_initializers=True)
    # Written again by another tool, which moves our entry: nobody's file any more.
    onnx.save(onnx.load(tmp_path / "ours.onnx"), tmp_path / "foreign.onnx")
    for name in ("ours.onnx", "foreign.onnx"):
        artifact = open_artifact(tmp_path / name)
        assert artifact.tensor("w").tobytes() == tensor.dense().tobytes()
        [row] = artifact.rows()
        assert (row.nnz, row.codec) == (tensor.kept, "sparse initializer float32")


def test_the_command_says_what_was_refused(network: tuple[ModelSource, SparseCheckpoint], tmp_path: Path) -> None:
    _, checkpoint = network
    checkpoint.save(tmp_path / "checkpoint.safetensors")
    model = f"{tmp_path / 'network.py'}:build"
    line = ["export", str(tmp_path / "checkpoint.safetensors"), "--model", model, "--sparse-initializers"]
    done = CliRunner().invoke(commands, [*line, "--to", "onnx", "-o", str(tmp_path / "a.onnx")])
    assert done.exit_code == 0, done.output
    assert "1 of 2 weights are sparse initializers" in done.output
    assert "'2.weight' stays dense" in done.output
    refused = CliRunner().invoke(commands, [*line, "--to", "packed", "-o", str(tmp_path / "a.spk")])
    assert isinstance(refused.exception, UsageError)
    assert "goes with --to onnx" in str(refused.exception)


@given(st.lists(st.integers(-3, 40), max_size=5), st.integers(0, 5), st.lists(st.integers(-1, 6), max_size=3))
def test_hostile_sparse_tensors_are_refused(indices: list[int], count: int, shape: list[int]) -> None:
    sparse = onnx.SparseTensorProto(dims=shape)
    sparse.values.CopyFrom(numpy_helper.from_array(np.ones(count, np.float32), "w"))
    sparse.indices.CopyFrom(numpy_helper.from_array(np.array(indices, np.int64)))
    try:
        dense = densify(sparse, 400)
    except FileFormatError:
        return
    assert dense.shape == tuple(shape) and dense.sum() == count == len(set(indices))
