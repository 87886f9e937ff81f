"""ONNX artifacts: the checker takes them, ONNX Runtime computes what torch computes, the manifest guards them."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import pytest
import torch
from onnx import TensorProto, helper, numpy_helper

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import (
    FileFormatError,
    ModelError,
    OutputExistsError,
    UnknownNameError,
    UnsupportedError,
)
from sparsepack.exporters import export, needs_source, open_artifact
from sparsepack.exporters.onnx_artifact import OnnxArtifact
from sparsepack.files import Array
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import OnnxSource, TorchSource, load_source
from sparsepack.models.tensors import to_numpy, to_torch

Build = Callable[..., SparseCheckpoint]


CONVOLUTIONS = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.conv1 = nn.Conv2d(3, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.conv2 = nn.Conv2d(16, 16, 3, stride=2, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(16)
        self.fc = nn.Linear(16 * 16, 10)

    def forward(self, x):
        x = self.bn1(self.conv1(x)).relu()
        x = self.bn2(self.conv2(x)).relu()
        return self.fc(x.flatten(1))


def build():
    torch.manual_seed(0)
    return Net(), torch.zeros(1, 3, 8, 8)
"""


_FILES: dict[str, Path] = {}


@pytest.fixture(scope="module", autouse=True)
def _factory_file(tmp_path_factory: pytest.TempPathFactory) -> None:
    _FILES["convolutions"] = tmp_path_factory.mktemp("factory") / "convolutions.py"
    _FILES["convolutions"].write_text(CONVOLUTIONS)


def torch_source(name: str, shape: list[int]) -> TorchSource:
    if name == "convolutions":
        source = load_source(f"{_FILES['convolutions']}:build", allow_import=True)
    else:
        source = load_source(name, options={"input_shape": shape, "classes": 10})
    assert isinstance(source, TorchSource)
    return source


def pruned(
    build: Build, source: TorchSource, parametrisation: str = "identity", sparsity: float = 0.8
) -> SparseCheckpoint:
    """A magnitude mask over every prunable tensor; the normalisation statistics are the pruned network's own."""
    module = source.build()
    tensors = {}
    for name in (tensor.name for tensor in prunable_tensors(module)):
        parameter = module.get_parameter(name)
        array = to_numpy(parameter).copy()
        record: dict[str, Any] = {"role": "prunable", "parametrisation": parametrisation}
        if parametrisation != "identity":
            record["seed"] = SeedRecord("keyed-product", 0, name, "uniform", 0.1)
        mask = np.abs(array) >= np.quantile(np.abs(array), sparsity)
        tensors[name] = make_tensor(name, array, mask=mask, record=record)
        parameter.data = to_torch(tensors[name].dense())
    for layer in module.modules():
        if isinstance(layer, torch.nn.BatchNorm2d):
            layer.momentum = 1.0
    with torch.no_grad():
        module.train()(*source.example_inputs(64, seed=2))
    parameters = {name for name, _ in module.named_parameters()}
    for name, value in module.state_dict().items():
        if name not in tensors:
            role = "parameter" if name in parameters else "buffer"
            tensors[name] = make_tensor(name, to_numpy(value).copy(), record={"role": role})
    return build(*(tensors[name] for name in module.state_dict()), model=source.record)


def run(path: Path, inputs: Array) -> Array:
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    (output,) = session.run(None, {session.get_inputs()[0].name: inputs})
    return np.asarray(output)


def parity(reference: Array, output: Array) -> float:
    return float(np.abs(reference - output).max() / reference.std(axis=0).mean())


def torch_output(source: TorchSource, state: dict[str, Array], inputs: torch.Tensor) -> Array:
    module = source.build()
    module.load_state_dict({name: to_torch(array) for name, array in state.items()})
    with torch.no_grad():
        return to_numpy(module.eval()(inputs))


@pytest.mark.parametrize(
    ("name", "shape", "parametrisation"),
    [
        ("lenet-300-100", [1, 8, 8], "frozen"),
        ("convolutions", [3, 8, 8], "identity"),
        ("convolutions", [3, 8, 8], "frozen"),
        ("convolutions", [3, 8, 8], "selected"),
    ],
)
def test_onnx_runtime_computes_what_torch_computes(
    name: str, shape: list[int], parametrisation: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    source = torch_source(name, shape)
    checkpoint = pruned(checkpoint_of, source, parametrisation)
    path = tmp_path / "model.onnx"
    artifact = export(checkpoint, "onnx", path, source=source)
    onnx.checker.check_model(onnx.load(path), full_check=True)
    (inputs,) = source.example_inputs(5, seed=1)
    state = checkpoint.dense_state()
    assert parity(torch_output(source, state, inputs), run(path, inputs.numpy())) < 1e-4
    # Weights stand in the file bit for bit, under the state_dict's names.
    decoded = artifact.tensors()
    present = [name for name in state if name in decoded]
    assert {name for name, _ in source.build().named_parameters()} <= set(present)
    for tensor in present:
        assert decoded[tensor].tobytes() == state[tensor].tobytes()


def test_a_zeroed_layer_would_be_noticed(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("convolutions", [3, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    path = tmp_path / "model.onnx"
    export(checkpoint, "onnx", path, source=source)
    model = onnx.load(path)
    tensor = next(t for t in model.graph.initializer if t.name.endswith("weight") and len(t.dims) == 4)
    tensor.CopyFrom(numpy_helper.from_array(np.zeros(tuple(tensor.dims), np.float32), tensor.name))
    onnx.save(model, tmp_path / "zeroed.onnx")
    (inputs,) = source.example_inputs(5, seed=1)
    reference = torch_output(source, checkpoint.dense_state(), inputs)
    assert parity(reference, run(tmp_path / "zeroed.onnx", inputs.numpy())) > 1e-2


def test_rows_and_graph_add_up_to_the_file(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    artifact = export(checkpoint, "onnx", tmp_path / "x.onnx", source=source)
    rows = {row.name: row for row in artifact.rows()}
    for name, tensor in checkpoint.tensors.items():
        assert rows[name].bytes == 4 * tensor.dense().size
        assert rows[name].nnz == tensor.kept
        assert rows[name].shape == tensor.record.shape
    overhead = artifact.overhead()
    assert overhead["graph"] < 5000
    assert sum(row.bytes for row in rows.values()) + sum(overhead.values()) == artifact.size
    assert artifact.model == source.record
    assert {record.role for record in artifact.records().values()} == {"prunable", "parameter"}


def test_a_frozen_network_counts_its_trained_weights_as_kept(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    checkpoint = pruned(checkpoint_of, source, "frozen", 0.9)
    artifact = export(checkpoint, "onnx", tmp_path / "x.onnx", source=source)
    for row in artifact.rows():
        assert row.nnz == checkpoint.tensors[row.name].kept


def test_the_batch_axis_is_dynamic_and_bytes_repeat(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    (tmp_path / "other folder").mkdir()
    first = export(checkpoint, "onnx", tmp_path / "a.onnx", source=source)
    second = export(
        checkpoint, "onnx", tmp_path / "other folder" / "b.onnx", source=torch_source("lenet-300-100", [1, 8, 8])
    )
    assert first.sha256 == second.sha256
    for batch in (1, 7):
        assert run(first.path, np.zeros((batch, 1, 8, 8), np.float32)).shape == (batch, 10)


def test_half_precision_runs_on_float32_inputs_in_half_the_bytes(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("convolutions", [3, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    whole = export(checkpoint, "onnx", tmp_path / "fp32.onnx", source=source)
    half = export(checkpoint, "onnx", tmp_path / "fp16.onnx", source=source, values="fp16")
    model = onnx.load(half.path)
    onnx.checker.check_model(model, full_check=True)
    assert half.size < 0.66 * whole.size
    decoded = half.tensors()
    state = checkpoint.dense_state()
    for tensor, array in decoded.items():
        rounded = state[tensor].astype(np.float16).astype(np.float32)
        buffer = checkpoint.tensors[tensor].record.role == "buffer"
        np.testing.assert_array_equal(array, state[tensor] if buffer else rounded)
    (inputs,) = source.example_inputs(5, seed=1)
    expected = torch_output(source, {**state, **decoded}, inputs)
    assert parity(expected, run(half.path, inputs.numpy())) < 1e-4
    assert sum(row.bytes for row in half.rows()) + sum(half.overhead().values()) == half.size


def folded_operators(path: Path, folder: Path) -> list[str]:
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_BASIC
    options.optimized_model_filepath = str(folder / "optimised.onnx")
    onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    return sorted(node.op_type for node in onnx.load(folder / "optimised.onnx").graph.node)


def test_casts_are_folded_while_loading(checkpoint_of: Build, tmp_path: Path) -> None:
    """The half-precision file runs the very graph of the float32 one: no Cast is left, BatchNorm is folded as well."""
    source = torch_source("convolutions", [3, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    graphs = []
    for values in ("fp32", "fp16"):
        path = tmp_path / f"{values}.onnx"
        export(checkpoint, "onnx", path, source=source, values=values)
        graphs.append(folded_operators(path, tmp_path))
    assert graphs[0] == graphs[1]
    assert "Cast" not in graphs[1]


def test_a_value_too_large_for_half_precision_is_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    checkpoint = pruned(checkpoint_of, source)
    name = next(iter(checkpoint.tensors))
    tensors = dict(checkpoint.tensors)
    tensors[name] = make_tensor(name, np.full(tensors[name].record.shape, 1e6, np.float32), record={"role": "prunable"})
    with pytest.raises(UnsupportedError, match=f"'{name}' holds 1e\\+06"):
        export(
            SparseCheckpoint(checkpoint.metadata, tensors), "onnx", tmp_path / "x.onnx", source=source, values="fp16"
        )
    assert not (tmp_path / "x.onnx").exists()


def test_tensors_that_do_not_fit_the_model_are_refused(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    checkpoint = pruned(checkpoint_of, torch_source("lenet-300-100", [1, 9, 9]))
    with pytest.raises(ModelError, match="does not fit the model 'lenet-300-100'"):
        export(checkpoint, "onnx", tmp_path / "x.onnx", source=source)


def test_the_source_is_found_from_the_record(checkpoint_of: Build, tmp_path: Path) -> None:
    assert needs_source("onnx")
    assert not needs_source("packed")
    with pytest.raises(UnknownNameError, match="unknown format 'onxx'"):
        needs_source("onxx")
    checkpoint = pruned(checkpoint_of, torch_source("lenet-300-100", [1, 8, 8]))
    assert export(checkpoint, "onnx", tmp_path / "x.onnx").format == "onnx"
    with pytest.raises(OutputExistsError, match="--force"):
        export(checkpoint, "onnx", tmp_path / "x.onnx")


def test_a_flipped_bit_or_a_cut_file_is_noticed(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    path = tmp_path / "x.onnx"
    export(pruned(checkpoint_of, source), "onnx", path, source=source)
    for place in (0.0, 0.02, 0.3, 0.7, 0.98, 0.999):
        content = bytearray(path.read_bytes())
        content[int(place * len(content))] ^= 4
        (tmp_path / "flipped.onnx").write_bytes(content)
        with pytest.raises(FileFormatError):
            open_artifact(tmp_path / "flipped.onnx")
        (tmp_path / "cut.onnx").write_bytes(path.read_bytes()[: int(place * len(content))])
        with pytest.raises(FileFormatError):
            open_artifact(tmp_path / "cut.onnx")


def test_a_file_that_another_program_wrote_again_is_that_programs(checkpoint_of: Build, tmp_path: Path) -> None:
    source = torch_source("lenet-300-100", [1, 8, 8])
    path = tmp_path / "x.onnx"
    export(pruned(checkpoint_of, source), "onnx", path, source=source)
    model = onnx.load(path)
    model.producer_name = "another program"
    onnx.save(model, path)
    artifact = open_artifact(path)
    assert artifact.model is None
    assert artifact.rows()


def third_party(path: Path) -> Path:
    """A small model as another exporter writes it: MatMul [K, N], a Conv, float_data, metadata, external data."""
    rng = np.random.default_rng(0)
    conv = numpy_helper.from_array(rng.normal(size=(4, 2, 3, 3)).astype(np.float32), "kernel")
    dense = numpy_helper.from_array(rng.normal(size=(64, 5)).astype(np.float32), "projection")
    bias = helper.make_tensor("bias", TensorProto.FLOAT, [5], rng.normal(size=5).tolist())
    nodes = [
        helper.make_node("Conv", ["x", "kernel"], ["c"], pads=[1, 1, 1, 1], strides=[2, 2]),
        helper.make_node("Relu", ["c"], ["r"]),
        helper.make_node("Flatten", ["r"], ["f"]),
        helper.make_node("MatMul", ["f", "projection"], ["m"]),
        helper.make_node("Add", ["m", "bias"], ["y"]),
    ]
    graph = helper.make_graph(
        nodes,
        "net",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 2, 8, 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 5])],
        [conv, dense, bias],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    helper.set_model_props(model, {"author": "someone else"})
    onnx.save(model, path, save_as_external_data=True, location="weights.bin", size_threshold=1000)
    return path


def from_onnx(build: Build, source: OnnxSource) -> SparseCheckpoint:
    axes = {tensor.name: tensor.output_axis for tensor in source.prunable()}
    tensors = []
    for name, array in source.tensors().items():
        if name in axes:
            mask = np.abs(array) >= np.quantile(np.abs(array), 0.8)
            record = {"role": "prunable", "output_axis": axes[name]}
            tensors.append(make_tensor(name, array, mask=mask, record=record))
        else:
            tensors.append(make_tensor(name, array))
    return build(*tensors, model=source.record)


def test_a_foreign_onnx_file_keeps_every_byte_but_its_weights(checkpoint_of: Build, tmp_path: Path) -> None:
    original = third_party(tmp_path / "theirs.onnx")
    source = load_source(str(original))
    assert isinstance(source, OnnxSource)
    checkpoint = from_onnx(checkpoint_of, source)
    (tmp_path / "out").mkdir()
    artifact = export(checkpoint, "onnx", tmp_path / "out" / "x.onnx", source=source)
    assert artifact.model is None
    assert artifact.size == open_artifact(original).size
    decoded = artifact.tensors()
    for name, array in checkpoint.dense_state().items():
        assert decoded[name].tobytes() == array.tobytes()
    rows = {row.name: row for row in artifact.rows()}
    assert rows["projection"].nnz == checkpoint.tensors["projection"].kept
    assert rows["bias"].bytes == 20
    overhead = artifact.overhead()
    assert sum(row.bytes for row in rows.values()) + sum(overhead.values()) == artifact.size
    assert [file.name for file in artifact.files()] == ["x.onnx", "weights.bin"]
    assert artifact.records()["projection"].output_axis == 1
    inputs = np.random.default_rng(1).normal(size=(3, 2, 8, 8)).astype(np.float32)
    assert run(artifact.path, inputs).shape == (3, 5)
    # And as CSR and packed, which carry what the checkpoint recorded.
    for format in ("csr", "packed"):
        other = export(checkpoint, format, tmp_path / f"x.{format}")
        assert other.tensor("projection").tobytes() == decoded["projection"].tobytes()


def test_an_onnx_model_is_not_rounded(checkpoint_of: Build, tmp_path: Path) -> None:
    source = load_source(str(third_party(tmp_path / "theirs.onnx")))
    assert isinstance(source, OnnxSource)
    with pytest.raises(UnsupportedError, match="pruned in place"):
        export(from_onnx(checkpoint_of, source), "onnx", tmp_path / "out.onnx", source=source, values="fp16")


def test_tensors_that_share_their_bytes_are_counted_once(tmp_path: Path) -> None:
    weight = numpy_helper.from_array(np.ones((64, 64), np.float32), "a")
    nodes = [helper.make_node("MatMul", ["x", "a"], ["h"]), helper.make_node("MatMul", ["h", "b"], ["y"])]
    other = onnx.TensorProto(name="b", dims=[64, 64], data_type=TensorProto.FLOAT)
    graph = helper.make_graph(
        nodes,
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 64])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 64])],
        [weight, other],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "w.bin").write_bytes(np.ones((64, 64), np.float32).tobytes() + b"padding")
    for tensor in model.graph.initializer:
        tensor.ClearField("raw_data")
        tensor.data_location = TensorProto.EXTERNAL
        for key, value in {"location": "w.bin", "offset": "0", "length": str(4 * 64 * 64)}.items():
            tensor.external_data.add(key=key, value=value)
    (tmp_path / "x.onnx").write_bytes(model.SerializeToString())
    artifact = open_artifact(tmp_path / "x.onnx")
    assert isinstance(artifact, OnnxArtifact)
    assert [row.bytes for row in artifact.rows()] == [4 * 64 * 64, 0]
    assert artifact.overhead()["other"] == len(b"padding")
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
