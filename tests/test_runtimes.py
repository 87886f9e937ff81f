"""Every runtime against every other and a few lines of float64 numpy; and what each refuses, with its reason."""

from __future__ import annotations

import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
import torch
from checkpoints import assembled
from torch import nn

from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    SparseTensor,
    make_tensor,
)
from sparsepack.errors import (
    FileFormatError,
    ModelError,
    RuntimeUnavailableError,
    UnknownNameError,
    UnsupportedError,
    UsageError,
)
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.artifact import Artifact
from sparsepack.files import Array
from sparsepack.models.chain import chain_of
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import SeedRecord
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes import RUNTIMES, find_runtime, require_available
from sparsepack.runtimes.csr_matrices import csr_matrices
from sparsepack.runtimes.layers import swap_linear_layers
from sparsepack.runtimes.measure.parity import BOUND, compare
from sparsepack.runtimes.torch_dense import dense_session, first_output, module_with


def checkpoint_of(source: TorchSource, *, density: float = 0.2, parametrisation: str = "identity") -> SparseCheckpoint:
    """Return the source's network, drawn from seed 0 and masked at random."""
    module = source.build()
    seeds: dict[str, SeedRecord] = initialise(module, "uniform", 0, "philox4x32-10")
    prunable = {tensor.name for tensor in prunable_tensors(module)}
    generator = np.random.default_rng(0)
    tensors: dict[str, SparseTensor] = {}
    for name, value in module.state_dict().items():
        dense = to_numpy(value).copy()
        if name in prunable:
            mask = generator.random(dense.shape) < density
            record: dict[str, Any] = {"role": "prunable", "parametrisation": parametrisation}
            if parametrisation != "identity":
                record["seed"] = seeds[name]
            tensors[name] = make_tensor(name, dense, mask=mask, record=record)
        else:
            tensors[name] = make_tensor(name, dense)
    return assembled(*tensors.values(), model=source.record, chain=chain_of(module, source.example_inputs(2)))


def zoo(name: str, **options: Any) -> TorchSource:
    source = load_source(name, options=options)
    assert isinstance(source, TorchSource)
    return source


@pytest.fixture(scope="module")
def lenet() -> TorchSource:
    return zoo("lenet-300-100", input_shape=[1, 8, 8], classes=10)


@pytest.fixture(scope="module")
def checkpoints(lenet: TorchSource) -> dict[str, SparseCheckpoint]:
    return {kind: checkpoint_of(lenet, parametrisation=kind) for kind in ("identity", "frozen", "selected")}


Exported = Callable[[str, str], Artifact]


@pytest.fixture(scope="module")
def exported(
    lenet: TorchSource, checkpoints: dict[str, SparseCheckpoint], tmp_path_factory: pytest.TempPathFactory
) -> Exported:
    """Return what exports the LeNet of a parametrisation in a format, once."""
    folder = tmp_path_factory.mktemp("exported")

    @functools.cache
    def write(parametrisation: str, format_name: str) -> Artifact:
        path = folder / f"{parametrisation}-{format_name}"
        return export(checkpoints[parametrisation], format_name, path, source=lenet)

    return write


def inputs_of(source: TorchSource, count: int = 32) -> tuple[Array, ...]:
    return tuple(tensor.numpy() for tensor in source.example_inputs(count))


def by_hand(state: dict[str, Array], x: Array) -> Array:
    """LeNet-300-100 in float64, written out."""
    weights = [value.astype(np.float64) for name, value in state.items() if name.endswith("weight")]
    biases = [value.astype(np.float64) for name, value in state.items() if name.endswith("bias")]
    x = x.reshape(len(x), -1).astype(np.float64)
    for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
        x = np.maximum(x @ weight.T + bias, 0.0)
    result: Array = x @ weights[-1].T + biases[-1]
    return result


@pytest.mark.parametrize("parametrisation", ["identity", "frozen", "selected"])
@pytest.mark.parametrize(
    ("format_name", "runtime"),
    [
        ("packed", "torch-cpu"),
        ("csr", "torch-cpu"),
        ("csr", "torch-sparse-csr-cpu"),
        ("csr", "scipy-csr-cpu"),
        ("onnx", "onnxruntime-cpu"),
        ("onnx", "torch-cpu"),
    ],
)
def test_every_runtime_computes_the_network(
    lenet: TorchSource,
    checkpoints: dict[str, SparseCheckpoint],
    exported: Exported,
    parametrisation: str,
    format_name: str,
    runtime: str,
) -> None:
    checkpoint = checkpoints[parametrisation]
    artifact = exported(parametrisation, format_name)
    assert RUNTIMES[runtime].accepts(artifact) is None
    session = RUNTIMES[runtime].load(artifact, threads=1)
    (x,) = inputs_of(lenet)
    output = session.run(x)
    error = compare(by_hand(checkpoint.dense_state(), x), output).error
    assert error is not None
    assert error < BOUND
    # One example takes another path through the sparse kernels than many do.
    np.testing.assert_allclose(session.run(x[:1]), output[:1], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("layer", ["fc1.weight", "fc2.weight", "fc3.weight"])
def test_a_graph_with_one_layer_zeroed_fails_parity(
    lenet: TorchSource, checkpoints: dict[str, SparseCheckpoint], exported: Exported, tmp_path: Path, layer: str
) -> None:
    model = onnx.load(exported("identity", "onnx").path)
    (weight,) = (tensor for tensor in model.graph.initializer if tensor.name == layer)
    weight.CopyFrom(onnx.numpy_helper.from_array(np.zeros(tuple(weight.dims), np.float32), layer))
    # Our own entry holds the hash of the file, which is another one now.
    del model.metadata_props[:]
    path = tmp_path / "broken.onnx"
    path.write_bytes(model.SerializeToString())
    inputs = inputs_of(lenet)
    reference = dense_session(lenet, checkpoints["identity"].dense_state(), threads=1).run(*inputs)
    error = compare(reference, RUNTIMES["onnxruntime-cpu"].load(open_artifact(path), threads=1).run(*inputs)).error
    assert error is not None
    assert error > 1000 * BOUND


def test_only_linear_layers_run_sparse_and_the_note_says_so(tmp_path: Path) -> None:
    source = zoo("lenet-5-caffe", input_shape=[1, 28, 28], classes=10)
    checkpoint = checkpoint_of(source)
    artifact = export(checkpoint, "csr", tmp_path / "a", source=source)
    session = RUNTIMES["torch-sparse-csr-cpu"].load(artifact, threads=1)
    assert list(session.notes) == ["linear layers only: 2 of 4 pruned tensors run sparse, 2 dense."]
    inputs = inputs_of(source)
    reference = dense_session(source, checkpoint.dense_state(), threads=1).run(*inputs)
    error = compare(reference, session.run(*inputs)).error
    assert error is not None
    assert error < BOUND
    assert RUNTIMES["scipy-csr-cpu"].accepts(artifact) == "the network is no plain chain of linear layers"


def test_sparse_layers_take_sequences(tmp_path: Path) -> None:
    source = zoo("text-encoder", input_shape=[12], classes=4)
    checkpoint = checkpoint_of(source)
    artifact = export(checkpoint, "csr", tmp_path / "a", source=source)
    session = RUNTIMES["torch-sparse-csr-cpu"].load(artifact, threads=1)
    pruned = len(csr_matrices(artifact))
    assert list(session.notes) == [f"linear layers only: {pruned} of {pruned} pruned tensors run sparse."]
    inputs = inputs_of(source)
    reference = dense_session(source, checkpoint.dense_state(), threads=1).run(*inputs)
    error = compare(reference, session.run(*inputs)).error
    assert error is not None
    assert error < BOUND


def test_frozen_tensors_are_not_run_sparse(exported: Exported) -> None:
    frozen = exported("frozen", "csr")
    assert csr_matrices(frozen) == {}
    notes = RUNTIMES["torch-sparse-csr-cpu"].load(frozen, threads=1).notes
    assert list(notes) == ["no tensor is pruned (frozen weights are not zero), so nothing runs sparse."]


def test_the_csr_arrays_are_those_of_the_dense_tensor(
    exported: Exported, checkpoints: dict[str, SparseCheckpoint]
) -> None:
    matrices = csr_matrices(exported("identity", "csr"))
    assert len(matrices) == 3
    for name, matrix in matrices.items():
        dense = np.zeros(matrix.shape, np.float32)
        for row in range(matrix.shape[0]):
            begin, end = matrix.crow_indices[row], matrix.crow_indices[row + 1]
            dense[row, matrix.col_indices[begin:end]] = matrix.values[begin:end]
        np.testing.assert_array_equal(dense, checkpoints["identity"].dense_state()[name])


@pytest.mark.parametrize(
    ("format_name", "runtime", "reason"),
    [
        ("packed", "onnxruntime-cpu", "it runs ONNX files, not the format 'packed'"),
        ("packed", "torch-sparse-csr-cpu", "it runs the format 'csr', not 'packed'"),
        ("packed", "scipy-csr-cpu", "it runs the format 'csr', not 'packed'"),
        ("csr", "torch-semi-structured-cuda", "it runs the format 'nm', not 'csr'"),
    ],
)
def test_what_a_runtime_refuses(exported: Exported, format_name: str, runtime: str, reason: str) -> None:
    assert RUNTIMES[runtime].accepts(exported("identity", format_name)) == reason


def foreign_onnx(path: Path, batch: int | str = "N") -> Path:
    weight = onnx.numpy_helper.from_array(np.eye(3, dtype=np.float32), "w")
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, [batch, 3])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, [batch, 3])],
        [weight],
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    path.write_bytes(model.SerializeToString())
    return path


@pytest.mark.parametrize(("batch", "fixed"), [("N", None), (4, 4)])
def test_a_foreign_onnx_file_runs_and_tells_its_batch_size(tmp_path: Path, batch: int | str, fixed: int | None) -> None:
    artifact = open_artifact(foreign_onnx(tmp_path / "f.onnx", batch))
    session = RUNTIMES["onnxruntime-cpu"].load(artifact, threads=1)
    assert session.fixed_batch == fixed
    x = np.arange(12, dtype=np.float32).reshape(4, 3)
    np.testing.assert_array_equal(session.run(x), x)
    assert RUNTIMES["torch-cpu"].accepts(artifact) == "the file does not say which model it is"


def test_a_graph_that_onnx_runtime_refuses_is_one_clear_line(tmp_path: Path) -> None:
    path = foreign_onnx(tmp_path / "f.onnx")
    model = onnx.load(path)
    model.graph.node[0].op_type = "NoSuchOperator"
    path.write_bytes(model.SerializeToString())
    with pytest.raises(FileFormatError, match="ONNX Runtime cannot load it") as caught:
        RUNTIMES["onnxruntime-cpu"].load(open_artifact(path), threads=1)
    assert "\n" not in str(caught.value)


def test_the_table() -> None:
    assert all(name == runtime.name and runtime.summary for name, runtime in RUNTIMES.items())
    for name in ("onnxruntime-cpu", "torch-cpu", "torch-sparse-csr-cpu", "scipy-csr-cpu"):
        assert RUNTIMES[name].available() is None
        require_available(RUNTIMES[name])
    with pytest.raises(UnknownNameError, match="Did you mean 'torch-cpu'"):
        find_runtime("torch-cp")


@pytest.mark.skipif(torch.cuda.is_available(), reason="this machine has the device whose absence is tested")
@pytest.mark.parametrize(
    "name", ["torch-cuda", "torch-semi-structured-cuda", "onnxruntime-cuda", "onnxruntime-tensorrt"]
)
def test_what_needs_a_gpu_says_why_it_cannot_run(name: str) -> None:
    reason = RUNTIMES[name].available()
    assert reason is not None
    assert "CUDA" in reason
    with pytest.raises(RuntimeUnavailableError, match=f"the runtime {name} cannot run here: .*CUDA"):
        require_available(RUNTIMES[name])


def test_a_provider_that_falls_back_is_not_measured_as_itself(
    exported: Exported, monkeypatch: pytest.MonkeyPatch
) -> None:
    import onnxruntime

    artifact = exported("identity", "onnx")
    monkeypatch.setattr(onnxruntime.InferenceSession, "get_providers", lambda self: ["SomeOtherProvider"])
    with pytest.raises(RuntimeUnavailableError, match="fell back to SomeOtherProvider"):
        RUNTIMES["onnxruntime-cpu"].load(artifact, threads=1)


def test_nodes_that_tensorrt_leaves_stay_on_the_device(exported: Exported, monkeypatch: pytest.MonkeyPatch) -> None:
    import onnxruntime

    asked: list[list[str]] = []
    real = onnxruntime.InferenceSession

    def session(path: str, options: Any, providers: list[str]) -> Any:
        asked.append(providers)
        return real(path, options, providers=["CPUExecutionProvider"])

    monkeypatch.setattr(onnxruntime, "InferenceSession", session)
    with pytest.raises(RuntimeUnavailableError, match="onnxruntime-tensorrt: ONNX Runtime fell back to CPU"):
        RUNTIMES["onnxruntime-tensorrt"].load(exported("identity", "onnx"), threads=1)
    assert asked == [["TensorrtExecutionProvider", "CUDAExecutionProvider"]]


def write_factory(folder: Path) -> Path:
    file = folder / "net.py"
    file.write_text(
        "from torch import nn\n"
        "import torch\n"
        "def build():\n"
        "    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (torch.zeros(1, 6),)\n"
    )
    return file


def test_a_users_model_is_built_only_when_the_user_names_it(tmp_path: Path) -> None:
    text = f"{write_factory(tmp_path)}:build"
    source = load_source(text, allow_import=True)
    assert isinstance(source, TorchSource)
    artifact: Artifact = export(checkpoint_of(source), "csr", tmp_path / "a", source=source)
    for name in ("torch-cpu", "torch-sparse-csr-cpu"):
        assert RUNTIMES[name].accepts(artifact) is None
        with pytest.raises(UsageError, match="--model"):
            RUNTIMES[name].load(artifact, threads=1)
        assert RUNTIMES[name].load(artifact, threads=1, source=source).run(*inputs_of(source)).shape == (32, 3)
    # What needs no graph of torch's runs without.
    assert RUNTIMES["scipy-csr-cpu"].load(artifact, threads=1).run(*inputs_of(source)).shape == (32, 3)


def test_tensors_of_another_model_are_refused(lenet: TorchSource, checkpoints: dict[str, SparseCheckpoint]) -> None:
    state = checkpoints["identity"].dense_state()
    with pytest.raises(ModelError, match="has no tensor 'surplus'"):
        module_with(lenet, {**state, "surplus": np.zeros(1)})
    with pytest.raises(ModelError, match=r"holds no tensor 'fc1\.bias'"):
        module_with(lenet, {name: value for name, value in state.items() if name != "fc1.bias"})
    with pytest.raises(ModelError, match=r"'fc1.bias' has shape \(7,\) in the artifact and \(300,\)"):
        module_with(lenet, {**state, "fc1.bias": np.zeros(7, np.float32)})


def test_an_artifact_without_a_model_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="does not say which model it is"):
        RUNTIMES["torch-cpu"].load(open_artifact(foreign_onnx(tmp_path / "f.onnx")), threads=1)


def test_the_first_output_is_found_in_whatever_a_model_returns() -> None:
    tensor = torch.ones(2)
    for output in (tensor, (tensor, None), [tensor], {"logits": tensor, "loss": None}, ((tensor,), 1)):
        assert first_output(output) is tensor
    with pytest.raises(ModelError, match="returned a str"):
        first_output("logits")


class Tied(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(4, 4)
        self.again = self.first
        self.encoder = nn.TransformerEncoderLayer(4, 2, 8, batch_first=True)
        self.attention = nn.MultiheadAttention(4, 2)


def test_only_layers_that_are_called_are_swapped() -> None:
    module = Tied()
    offered: list[str] = []

    def swap(layer: nn.Linear, weight: str) -> nn.Module:
        offered.append(weight)
        return nn.Identity()

    # PyTorch's transformer and attention layers read their projections' weights and never call the layer.
    assert swap_linear_layers(module, swap) == ["first.weight", "again.weight"]
    assert offered == ["first.weight"]
    assert module.first is module.again
    assert type(module.encoder.linear1) is nn.Linear
