"""Verifying files: everything that is right is said, and everything that was changed is found."""

from __future__ import annotations

import re
from pathlib import Path

import msgspec
import numpy as np
import onnx
import pytest
from checkpoints import assembled

from sparsepack.compressor.checkpoint import (
    SparseCheckpoint,
    make_tensor,
)
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.errors import FileFormatError
from sparsepack.exporters import export
from sparsepack.files import Array
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.source import TorchSource, load_source
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes.verify import Finding, verify


def checkpoint_of(source: TorchSource, sign: float = 1.0) -> SparseCheckpoint:
    """Return the network with a tenth of its weights; ``sign`` multiplies the second layer's."""
    module = source.build()
    initialise(module, "uniform", 0, "philox4x32-10")
    generator = np.random.default_rng(0)
    tensors = {}
    for name, value in module.state_dict().items():
        dense: Array = to_numpy(value).copy()
        if name.startswith("fc2"):
            dense = dense * np.float32(sign)
        if name.endswith("weight"):
            mask = generator.random(dense.shape) < 0.1
            tensors[name] = make_tensor(name, dense, mask=mask, record={"role": "prunable"})
        else:
            tensors[name] = make_tensor(name, dense)
    return assembled(*tensors.values(), model=source.record)


def factory(folder: Path, code: str) -> tuple[str, TorchSource]:
    """Write a file whose ``build`` makes a network; return what a user would type for it, and the network."""
    (folder / "net.py").write_text(code)
    text = f"{folder / 'net.py'}:build"
    source = load_source(text, allow_import=True)
    assert isinstance(source, TorchSource)
    return text, source


@pytest.fixture(scope="module")
def source() -> TorchSource:
    found = load_source("lenet-300-100", options={"input_shape": [1, 8, 8], "classes": 10})
    assert isinstance(found, TorchSource)
    return found


@pytest.fixture(scope="module")
def files(source: TorchSource, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("files")
    found = {"checkpoint": folder / "checkpoint.safetensors", "other": folder / "other.safetensors"}
    checkpoint = checkpoint_of(source)
    checkpoint.save(found["checkpoint"])
    checkpoint_of(source, -1.0).save(found["other"])
    for name, format_name, values in (
        ("a.spk", "packed", "fp32"),
        ("half.spk", "packed", "fp16"),
        ("a.safetensors", "csr", "fp32"),
        ("a.onnx", "onnx", "fp32"),
    ):
        found[name] = folder / name
        export(checkpoint, format_name, found[name], values=values, source=source)
    return found


def bad(findings: list[Finding]) -> list[tuple[str, str]]:
    return [(finding.check, finding.subject) for finding in findings if not finding.ok]


@pytest.mark.parametrize("name", ["checkpoint", "a.spk", "half.spk", "a.safetensors", "a.onnx"])
def test_what_is_intact_is_found_intact(files: dict[str, Path], name: str) -> None:
    findings = verify(files[name], against=files["checkpoint"])
    assert bad(findings) == []
    checks = [finding.check for finding in findings]
    assert checks.count("hash") == 6
    if name != "checkpoint":
        assert checks.count("checkpoint") == 6
    if name == "a.onnx":
        assert {"graph", "parity"} <= set(checks)
    assert all(finding.detail.endswith(".") for finding in findings)


def test_rounded_values_are_compared_with_the_rounded_checkpoint(files: dict[str, Path]) -> None:
    details = {
        f.subject: f.detail for f in verify(files["half.spk"], against=files["checkpoint"]) if f.check == "checkpoint"
    }
    assert details["fc1.weight"] == "equals the checkpoint rounded to float16."


@pytest.mark.parametrize("name", ["a.spk", "half.spk", "a.safetensors", "a.onnx"])
def test_another_checkpoint_differs_where_it_differs(files: dict[str, Path], name: str) -> None:
    findings = verify(files[name], against=files["other"])
    expected = [("checkpoint", "fc2.weight"), ("checkpoint", "fc2.bias")]
    if name == "a.onnx":
        expected.append(("parity", str(files[name])))
    assert bad(findings) == expected


def test_a_flipped_bit_is_found_wherever_it_is(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("checkpoint", "a.spk", "a.safetensors", "a.onnx"):
        content = files[name].read_bytes()
        for place in np.linspace(0, len(content) - 1, 12).astype(int):
            damaged = bytearray(content)
            damaged[place] ^= 4
            path = tmp_path / files[name].name
            path.write_bytes(damaged)
            try:
                assert bad(verify(path)), (name, place)
            except FileFormatError:
                # So damaged that it is no file of ours any more.
                continue


def test_a_truncated_file_is_one_finding(files: dict[str, Path], tmp_path: Path) -> None:
    for name in ("a.spk", "a.safetensors", "a.onnx"):
        path = tmp_path / files[name].name
        path.write_bytes(files[name].read_bytes()[:-10])
        (finding,) = verify(path)
        assert (finding.check, finding.ok) == ("structure", False)
        # The line that shows a finding begins with its subject.
        assert not finding.detail.startswith(f"{finding.subject}: ")


def test_a_tensor_that_is_missing_or_surplus_is_named(
    files: dict[str, Path], source: TorchSource, tmp_path: Path
) -> None:
    whole = checkpoint_of(source)
    tensors = {name: tensor for name, tensor in whole.tensors.items() if name != "fc1.bias"}
    tensors["extra"] = make_tensor("extra", np.ones(3, np.float32))
    metadata = msgspec.structs.replace(whole.metadata, tensors=[tensor.record for tensor in tensors.values()])
    export(SparseCheckpoint(metadata, tensors), "csr", tmp_path / "a.safetensors")
    findings = verify(tmp_path / "a.safetensors", against=files["checkpoint"])
    assert bad(findings) == [("checkpoint", "fc1.bias"), ("checkpoint", "extra")]


def test_a_graph_that_was_changed_behind_its_hash_fails_parity(
    files: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # What an exporter's mistake would look like: tensors as promised, but another network around them.
    from sparsepack.exporters.onnx_artifact import OnnxArtifact

    model = onnx.load(files["a.onnx"])
    relu = next(node for node in model.graph.node if node.op_type == "Relu")
    relu.op_type = "Tanh"
    path = tmp_path / "changed.onnx"
    path.write_bytes(model.SerializeToString())
    intact = OnnxArtifact(files["a.onnx"])
    monkeypatch.setattr("sparsepack.exporters.onnx_artifact._manifest", lambda path, total: ("onnx", intact.metadata))
    findings = verify(path, against=files["checkpoint"])
    assert bad(findings) == [("parity", str(path))]


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    (finding,) = verify(tmp_path / "nothing.spk")
    assert not finding.ok
    assert "nothing.spk" in finding.detail


def test_not_a_number_stays_one_when_values_are_rounded(source: TorchSource, tmp_path: Path) -> None:
    whole = checkpoint_of(source)
    odd = np.array([np.nan, -np.inf, 1.0 + 2.0**-20, -0.0], np.float32)
    odd.view(np.uint32)[0] = 0xFFA00001
    tensors = {"odd": make_tensor("odd", odd, record={"role": "prunable"})}
    metadata = msgspec.structs.replace(whole.metadata, tensors=[tensor.record for tensor in tensors.values()])
    checkpoint = SparseCheckpoint(metadata, tensors)
    checkpoint.save(tmp_path / "c.safetensors")
    for kind, stored in (("bf16", "bfloat16"), ("fp16", "float16")):
        path = tmp_path / f"{kind}.spk"
        export(checkpoint, "packed", path, values=kind)
        findings = verify(path, against=tmp_path / "c.safetensors")
        assert bad(findings) == []
        assert findings[-1].detail == f"equals the checkpoint rounded to {stored}."


def test_a_graph_needs_no_tensor_that_its_outputs_do_not_depend_on(tmp_path: Path) -> None:
    text, source = factory(
        tmp_path,
        "import torch\n"
        "from torch import nn\n"
        "class Net(nn.Module):\n"
        "    def __init__(self):\n"
        "        super().__init__()\n"
        "        self.fc = nn.Linear(6, 5)\n"
        "        self.only_for_training = nn.Linear(5, 3)\n"
        "        self.register_buffer('table', torch.arange(5.0))\n"
        "        self.register_buffer('places', torch.arange(4))\n"
        "    def forward(self, x):\n"
        "        return self.fc(x) + self.table.exp()\n"
        "def build():\n"
        "    return Net(), (torch.zeros(1, 6),)\n",
    )
    checkpoint = checkpoint_of(source)
    checkpoint.save(tmp_path / "c.safetensors")
    for name in ("onnx", "onnx-unpack"):
        path = tmp_path / f"{name}.onnx"
        export(checkpoint, name, path, source=source)
        findings = verify(path, against=tmp_path / "c.safetensors", model=text)
        assert bad(findings) == []
        assert [finding.check for finding in findings].count("parity") == 1


def test_a_factory_needs_its_model_for_parity(tmp_path: Path) -> None:
    text, source = factory(
        tmp_path,
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Linear(6, 5), nn.ReLU(), nn.Linear(5, 3)), (torch.zeros(1, 6),)\n",
    )
    path = tmp_path / "a.onnx"
    export(checkpoint_of(source), "onnx", path, source=source)
    (finding,) = [finding for finding in verify(path) if not finding.ok]
    assert finding.check == "parity"
    assert "--model" in finding.detail
    assert bad(verify(path, model=text)) == []


@pytest.mark.parametrize(
    ("dtype", "expected"),
    [
        ("float16", r"largest difference \d\.\de-0[1-4] .*; it computes in float16, so no bound holds\."),
        # ONNX Runtime multiplies no bfloat16 matrices on a CPU; that says nothing against the file.
        ("bfloat16", r"not run: onnxruntime-cpu lacks a kernel .* \(.*\); run it on another runtime, or .* float32\."),
    ],
)
def test_a_network_that_computes_in_short_floats_is_held_to_no_bound(tmp_path: Path, dtype: str, expected: str) -> None:
    text, source = factory(
        tmp_path,
        "import torch\n"
        "from torch import nn\n"
        "def build():\n"
        "    net = nn.Sequential(nn.Linear(6, 50), nn.ReLU(), nn.Linear(50, 50), nn.ReLU(), nn.Linear(50, 3))\n"
        f"    return net.to(torch.{dtype}), (torch.zeros(1, 6, dtype=torch.{dtype}),)\n",
    )
    path = tmp_path / "a.onnx"
    export(checkpoint_of(source), "onnx", path, source=source)
    findings = verify(path, model=text)
    assert bad(findings) == []
    assert findings[-1].check == "parity"
    assert re.fullmatch(expected, findings[-1].detail)


def test_a_pruned_onnx_file_is_compared_tensor_by_tensor(tmp_path: Path) -> None:
    weight = np.random.default_rng(0).standard_normal((6, 4)).astype(np.float32)
    initializers = [
        onnx.numpy_helper.from_array(weight, "w"),
        onnx.numpy_helper.from_array(np.array(2.0, np.float32), "scale"),
    ]
    graph = onnx.helper.make_graph(
        [onnx.helper.make_node("MatMul", ["x", "w"], ["h"]), onnx.helper.make_node("Mul", ["h", "scale"], ["y"])],
        "g",
        [onnx.helper.make_tensor_value_info("x", onnx.TensorProto.FLOAT, ["N", 6])],
        [onnx.helper.make_tensor_value_info("y", onnx.TensorProto.FLOAT, ["N", 4])],
        initializers,
    )
    model = onnx.helper.make_model(graph, opset_imports=[onnx.helper.make_opsetid("", 17)], ir_version=8)
    original = tmp_path / "model.onnx"
    original.write_bytes(model.SerializeToString())
    checkpoint = prune(single_run(None, str(original), method="magnitude", sparsity=0.5, data="none"), tmp_path / "run")
    export(checkpoint, "onnx", tmp_path / "pruned.onnx")
    file = tmp_path / "run" / "checkpoint.safetensors"
    findings = verify(tmp_path / "pruned.onnx", against=file)
    assert [(finding.check, finding.ok) for finding in findings] == [
        ("structure", True),
        ("checkpoint", True),
        ("graph", True),
    ]
    assert bad(verify(original, against=file)) == [("checkpoint", "w")]
