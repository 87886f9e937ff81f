"""``onnx-int8``: ONNX Runtime's static quantisation as an artifact: accounted for, checked, close to the network."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack.cli import run
from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.compressor.recipe import load_recipe
from sparsepack.errors import DataError, FileFormatError, RecipeError, UsageError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_int8 import dequantised
from sparsepack.exporters.onnx_int8_artifact import OnnxInt8Artifact
from sparsepack.exporters.onnx_seal import KEY, seal
from sparsepack.files import Array
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.job import run as run_job
from sparsepack.runtimes.report.table import render

Build = Callable[..., SparseCheckpoint]
Shape = tuple[int, ...]
Network = tuple[TorchSource, SparseCheckpoint, list[Array]]
Change = Callable[[onnx.ModelProto, dict[str, object]], None]


@pytest.fixture(scope="module")
def network(checkpoint_of: Build) -> Network:
    """A network with normalisation, half of whose first weight is zero, and examples for it."""
    import torch

    torch.manual_seed(0)
    source = load_source("resnet-20")
    assert isinstance(source, TorchSource)
    module = source.build()
    tensors = []
    for name, value in module.state_dict().items():
        array = to_numpy(value)
        mask = None
        if name == "conv1.weight":
            mask = np.random.default_rng(0).random(array.shape) < 0.5
        tensors.append(make_tensor(name, array, mask=mask, record={"role": "prunable"} if mask is not None else None))
    return source, checkpoint_of(*tensors, model=source.record), [source.example_inputs(24)[0].numpy()]


@pytest.fixture(scope="module")
def artifact(network: Network, tmp_path_factory: pytest.TempPathFactory) -> OnnxInt8Artifact:
    source, checkpoint, examples = network
    path = tmp_path_factory.mktemp("int8") / "int8.onnx"
    opened = export(checkpoint, "onnx-int8", path, source=source, calibration=examples)
    assert isinstance(opened, OnnxInt8Artifact)
    return opened


def test_every_byte_is_accounted_for(artifact: OnnxInt8Artifact) -> None:
    rows = {row.name: row for row in artifact.rows()}
    assert sum(row.bytes for row in rows.values()) + sum(artifact.overhead().values()) == artifact.size
    first = rows["conv1.weight"]
    # One byte a weight, a float32 scale and an int8 zero point for each of 16 outputs.
    assert (first.shape, first.bytes, first.codec) == ((16, 3, 3, 3), 432 + 16 * 4 + 16, "quantised int8")
    assert first.nnz == np.count_nonzero(artifact.tensor("conv1.weight")) < 260
    assert rows["fc.weight"].bytes > 640


def test_decoded_tensors_are_near_the_networks(artifact: OnnxInt8Artifact, network: Network) -> None:
    weight = network[1].dense_state()["fc.weight"]
    decoded = artifact.tensor("fc.weight")
    decoded = decoded if decoded.shape == weight.shape else decoded.T
    # Half a step of 127 to the largest weight; the quantiser's float arithmetic may add a rounding.
    assert np.abs(decoded - weight).max() <= 0.51 * np.abs(weight).max() / 127
    artifact.verify()


def test_it_computes_nearly_the_same(artifact: OnnxInt8Artifact, network: Network, tmp_path: Path) -> None:
    source, checkpoint, (x,) = network
    dense = export(checkpoint, "onnx", tmp_path / "dense.onnx", source=source)
    runtime = RUNTIMES["onnxruntime-cpu"]
    expected, found = (runtime.load(opened, threads=1).run(x) for opened in (dense, artifact))
    assert np.abs(found - expected).max() < 0.5 * expected.std()
    assert np.abs(found - expected).max() > 0
    assert artifact.size < dense.size / 3
    assert "onnx-int8" in runtime.formats
    assert "not those of the model" in str(RUNTIMES["torch-cpu"].accepts(artifact))


def test_equal_examples_give_equal_bytes(artifact: OnnxInt8Artifact, network: Network, tmp_path: Path) -> None:
    source, checkpoint, examples = network
    again = export(checkpoint, "onnx-int8", tmp_path / "again.onnx", source=source, calibration=examples)
    assert again.path.read_bytes() == artifact.path.read_bytes()


def test_without_examples_it_is_refused(network: Network, tmp_path: Path) -> None:
    source, checkpoint, examples = network
    with pytest.raises(UsageError, match="--data D"):
        export(checkpoint, "onnx-int8", tmp_path / "x.onnx", source=source)
    with pytest.raises(DataError, match="1 inputs"):
        export(checkpoint, "onnx-int8", tmp_path / "x.onnx", source=source, calibration=[*examples, *examples])
    with pytest.raises(DataError, match="0 examples"):
        export(checkpoint, "onnx-int8", tmp_path / "x.onnx", source=source, calibration=[examples[0][:0]])


@pytest.mark.parametrize(
    ("values", "scale", "zero", "axis"),
    [((2, 3), (), (), 0), ((2, 3), (3,), (3,), 1), ((2, 3), (2,), (2,), 0), ((4,), (4,), (4,), 0)],
)
def test_decoding_is_that_of_onnx(
    values: tuple[int, ...], scale: tuple[int, ...], zero: tuple[int, ...], axis: int
) -> None:
    from onnx.reference import ReferenceEvaluator

    rng = np.random.default_rng(0)
    q = rng.integers(-128, 128, values).astype(np.int8)
    s = np.asarray(rng.random(scale), np.float32)
    z = np.asarray(rng.integers(-5, 5, zero), np.int8)
    node = helper.make_node("DequantizeLinear", ["q", "s", "z"], ["y"], axis=axis)
    kinds = {"q": TensorProto.INT8, "s": TensorProto.FLOAT, "z": TensorProto.INT8}
    graph = helper.make_graph(
        [node],
        "g",
        [helper.make_tensor_value_info(name, kind, None) for name, kind in kinds.items()],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, None)],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)])
    (expected,) = ReferenceEvaluator(model).run(None, {"q": q, "s": s, "z": z})
    np.testing.assert_array_equal(dequantised(q, s, z, axis), expected)


def test_one_scale_in_a_vector_serves_a_tensor_without_that_axis() -> None:
    """ONNX Runtime's quantiser writes axis 1 beside the scale of a normalisation's weight, which has only axis 0."""
    q = np.array([-3, 0, 5], np.int8)
    found = dequantised(q, np.array([0.5], np.float32), np.array([1], np.int8), 1)
    np.testing.assert_array_equal(found, np.array([-2.0, -0.5, 2.0], np.float32))


def damaged(artifact: OnnxInt8Artifact, path: Path, change: Change) -> Path:
    model = onnx.load(artifact.path)
    content = json.loads(next(e for e in model.metadata_props if e.key == KEY.decode()).value[64:])
    del model.metadata_props[:]
    change(model, content)
    body = model.SerializeToString()
    text = json.dumps(content, sort_keys=True, separators=(",", ":")).encode()
    path.write_bytes(seal(text, [body]) + body)
    return path


def _other_value(model: onnx.ModelProto, content: dict[str, object]) -> None:
    tensor = next(t for t in model.graph.initializer if t.name.endswith("conv1.weight_quantized"))
    tensor.raw_data = bytes([tensor.raw_data[0] ^ 1]) + tensor.raw_data[1:]


def _fewer_scales(model: onnx.ModelProto, content: dict[str, object]) -> None:
    for tensor in model.graph.initializer:
        if tensor.name.endswith("conv1.weight_scale"):
            tensor.CopyFrom(numpy_helper.from_array(np.ones(3, np.float32), tensor.name))


def _bad_places(model: onnx.ModelProto, content: dict[str, object]) -> None:
    content["quantised"] = {"conv1.weight": ["a"]}


def _gone(model: onnx.ModelProto, content: dict[str, object]) -> None:
    next(t for t in model.graph.initializer if t.name.endswith("conv1.weight_quantized")).name = "elsewhere"


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (_other_value, "SHA-256"),
        (_fewer_scales, "scales of tensor"),
        (_bad_places, "is malformed"),
        (_gone, "is missing"),
    ],
)
def test_hostile_files_are_refused(change: Change, text: str, artifact: OnnxInt8Artifact, tmp_path: Path) -> None:
    with pytest.raises(FileFormatError, match=text):
        open_artifact(damaged(artifact, tmp_path / "bad.onnx", change)).verify()


RECIPE = {
    "version": 1,
    "model": "lenet-300-100",
    "data": "digits",
    "threads": 1,
    "runs": [
        {
            "name": "small",
            "method": "magnitude",
            "sparsity": 0.9,
            "train": {"epochs": 1},
            "fine_tune": {"epochs": 0},
            "export": [{"format": "onnx"}, {"format": "onnx-sparse"}, {"format": "onnx-int8"}],
        }
    ],
    "measure": {"baseline": "small", "time_budget": 0.1},
}


@pytest.mark.native
@pytest.mark.slow
def test_a_recipe_calibrates_on_its_data_and_ends_in_a_verdict(
    tmp_path: Path, operators: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    record = run_job(load_recipe(RECIPE), tmp_path / "out")
    int8 = next(entry for entry in record["artifacts"] if entry["format"] == "onnx-int8")
    assert int8["accuracy"]["drop"] < 0.05
    assert int8["latency"]["onnxruntime-cpu"]["speedup"] is not None
    assert int8["parity"]["error"] > 0
    (line,) = (text for text in render(record, summary=True, width=400).splitlines() if text.startswith("verdict on"))
    assert line.startswith("verdict on small/onnx-sparse: ")
    for part in ("smaller than dense", "than dense", "than int8", "parity", "accuracy", "against the baseline"):
        assert part in line
    path = tmp_path / "again.onnx"
    words = ["export", str(tmp_path / "out" / "small"), "--to", "onnx-int8", "-o", str(path)]
    # The run's own data, unless another is named.
    assert run(words) == 0
    assert path.read_bytes() == Path(int8["path"]).read_bytes()
    assert run(["verify", str(path), "--against", str(tmp_path / "out" / "small")]) == 0
    assert run([*words, "--force", "--data", "none"]) == 2
    assert "--data D" in capsys.readouterr().err


def test_a_recipe_without_data_is_refused_at_once(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match="calibrated on examples"):
        run_job(load_recipe({**RECIPE, "data": "none"}), tmp_path / "out")
    assert not (tmp_path / "out").exists()
