"""The optional runtimes: OpenVINO, and ONNX Runtime Web under Node; ``onnx-unpack`` unpacks the same bits on all.

Skipped, with the reason, where a runtime is not installed; ``make runtimes`` installs both and runs this file.
"""

import os
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper
from unpack_kinds import KINDS, checkpoint_of, evaluated, graph_of

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_unpack import unpack_in_graph
from sparsepack.files import numpy_dtype, sha256_array
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.base import Runtime, Session
from sparsepack.runtimes.measure.parity import BOUND, compare

NAMES = [
    pytest.param("openvino-cpu", marks=pytest.mark.openvino),
    pytest.param("onnxruntime-web-node", marks=pytest.mark.web),
]


@pytest.fixture(params=NAMES)
def runtime(request: pytest.FixtureRequest) -> Runtime:
    found = RUNTIMES[request.param]
    reason = found.available()
    if reason is not None:
        if request.param in os.environ.get("SPARSEPACK_REQUIRE_RUNTIMES", "").split(","):
            pytest.fail(reason)
        pytest.skip(reason)
    return found


def load(runtime: Runtime, model: onnx.ModelProto, path: Path) -> Session:
    onnx.save(model, path)
    return runtime.load(open_artifact(path), threads=1)


@pytest.mark.parametrize("stored", ["fp32", "fp16", "int8", "codebook:5"])
def test_every_kind_unpacks_to_the_same_bits(stored: str, runtime: Runtime, tmp_path: Path) -> None:
    openvino = runtime.name == "openvino-cpu"
    for kind, tensor in KINDS.items():
        # OpenVINO computes 64-bit integers and numbers in 32 bits; WebAssembly's Cast knows no half precision here.
        if openvino and ("philox" in kind or kind == "double precision"):
            continue
        checkpoint = checkpoint_of([tensor])
        model = graph_of(checkpoint)
        [(entry, _)], _ = unpack_in_graph(model, checkpoint, stored)
        found = load(runtime, model, tmp_path / "model.onnx").run()
        assert found.dtype == numpy_dtype(entry.dtype)
        assert sha256_array(found) == entry.sha256 == sha256_array(evaluated(model)[tensor.record.name]), kind


@pytest.fixture(scope="module")
def lenet() -> TorchSource:
    source = load_source("lenet-5-caffe")
    assert isinstance(source, TorchSource)
    return source


def frozen(source: TorchSource, generator: str) -> SparseCheckpoint:
    module = source.build()
    seeds = initialise(module, "uniform", 0, generator)
    prunable = {tensor.name for tensor in prunable_tensors(module)}
    random = np.random.default_rng(0)
    tensors = []
    for name, value in module.state_dict().items():
        dense = to_numpy(value).copy()
        if name not in prunable:
            tensors.append(make_tensor(name, dense))
            continue
        mask = random.random(dense.shape) < 0.1
        record = {"role": "prunable", "parametrisation": "frozen", "seed": seeds[name]}
        tensors.append(make_tensor(name, dense + np.float32(0.01), mask=mask, record=record))
    return checkpoint_of(tensors, source.record)


@pytest.mark.parametrize("format", ["onnx", "onnx-unpack"])
def test_a_whole_network_agrees_with_torch(format: str, runtime: Runtime, lenet: TorchSource, tmp_path: Path) -> None:
    artifact = export(frozen(lenet, KEYED_PRODUCT), format, tmp_path / "net.onnx", source=lenet)
    images = np.random.default_rng(1).standard_normal((16, 1, 28, 28), np.float32)
    session = runtime.load(artifact, threads=1)
    reference = RUNTIMES["torch-cpu"].load(artifact, threads=1)
    assert session.fixed_batch is None
    error = compare(reference.run(images), session.run(images)).error
    assert error is not None and error <= BOUND
    # A second run of another batch must not disturb what the first one returned.
    first = session.run(images)
    kept = first.copy()
    session.run(images[:3] + 1)
    assert np.array_equal(first, kept)


def test_what_it_cannot_run_is_said(runtime: Runtime, lenet: TorchSource, tmp_path: Path) -> None:
    checkpoint = frozen(lenet, PHILOX)
    packed = export(checkpoint, "packed", tmp_path / "net.spk")
    assert runtime.accepts(packed) == "it runs ONNX files, not the format 'packed'"
    unpack = export(checkpoint, "onnx-unpack", tmp_path / "net.onnx", source=lenet)
    refusal = runtime.accepts(unpack)
    assert (refusal is None) == (runtime.name != "openvino-cpu")
    assert refusal is None or "64-bit integers in 32 bits" in refusal
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, [2, 3])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, [2, 4])],
        [numpy_helper.from_array(np.ones((3, 4), np.float32), "w")],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    session = load(runtime, model, tmp_path / "fixed.onnx")
    assert session.fixed_batch == 2
    assert session.run(np.ones((2, 3), np.float32)).tolist() == [[3.0] * 4] * 2
    with pytest.raises(UnsupportedError, match="cannot run it") as caught:
        session.run(np.ones((2, 5), np.float32))
    assert "\n" not in str(caught.value)
    model.graph.node[0].op_type = "NoSuchOperator"
    with pytest.raises(FileFormatError, match="cannot load it") as refused:
        load(runtime, model, tmp_path / "bad.onnx")
    assert "\n" not in str(refused.value)


def test_a_missing_runtime_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr("sparsepack.runtimes.openvino_cpu.find_spec", lambda name: None)
    assert "pip install 'sparsepack[openvino]'" in (RUNTIMES["openvino-cpu"].available() or "")
    monkeypatch.setenv("SPARSEPACK_NODE_MODULES", str(tmp_path))
    monkeypatch.setattr("shutil.which", lambda name: "/usr/bin/node")
    assert "npm install onnxruntime-web" in (RUNTIMES["onnxruntime-web-node"].available() or "")
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert RUNTIMES["onnxruntime-web-node"].available() == "Node is not installed"
