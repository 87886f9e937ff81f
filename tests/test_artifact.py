"""Opening artifacts: recognised by content, refused with one clear sentence when they are something else."""

import hashlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from onnx import TensorProto, helper
from safetensors.numpy import save_file

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters import EXPORTERS, export, open_artifact
from sparsepack.files import TensorFile, canonical_json

Build = Callable[..., SparseCheckpoint]


def two_of_four(build: Build) -> SparseCheckpoint:
    dense = np.arange(1, 17, dtype=np.float32).reshape(2, 8)
    mask = np.tile([True, False, False, True], 4).reshape(2, 8)
    return build(make_tensor("w", dense, mask=mask, record={"structure": "2:4", "role": "prunable"}))


CONTAINERS = [name for name, exporter in EXPORTERS.items() if not exporter.needs_source]


@pytest.mark.parametrize("format", CONTAINERS)
def test_the_content_decides_not_the_name(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "file.onnx"
    written = export(two_of_four(checkpoint_of), format, path)
    artifact = open_artifact(path)
    assert artifact.format == written.format == format
    assert type(artifact) is type(written)
    assert artifact.names() == ["w"]
    assert artifact.files() == [path]
    assert artifact.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    assert artifact.size == len(path.read_bytes())
    assert artifact.metadata is not None
    recipe = canonical_json({"method": "magnitude", "sparsity": 0.9})
    assert artifact.metadata.recipe == hashlib.sha256(recipe).hexdigest()[:16]
    with pytest.raises(FileFormatError, match="holds no tensor 'x'"):
        artifact.tensor("x")


def reason(path: Path) -> str:
    with pytest.raises(FileFormatError) as caught:
        open_artifact(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    return text


def test_what_is_no_artifact_is_refused_by_name(checkpoint_of: Build, tmp_path: Path) -> None:
    assert "cannot read" in reason(tmp_path / "missing.spk")
    assert "cannot read" in reason(tmp_path)
    for name, content in {
        "empty": b"",
        "text": b"hello, this is text\n",
        "zeros": bytes(100),
    }.items():
        (tmp_path / name).write_bytes(content)
        assert "is no artifact: neither a sparsepack file (" in reason(tmp_path / name)
    save_file({"a": np.ones(2)}, tmp_path / "foreign.safetensors")
    assert "none of ours: its metadata names the format None" in reason(tmp_path / "foreign.safetensors")
    two_of_four(checkpoint_of).save(tmp_path / "checkpoint.safetensors")
    assert "is a checkpoint, no artifact; 'compress export'" in reason(tmp_path / "checkpoint.safetensors")
    # PyTorch's programs are zip archives, so that one which cannot be opened is a damaged one.
    (tmp_path / "zip").write_bytes(b"PK\x03\x04" * 9)
    assert "its zip archive is damaged" in reason(tmp_path / "zip")


@pytest.mark.parametrize("format", CONTAINERS)
def test_a_version_of_the_future_is_refused(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    path = tmp_path / "x"
    export(two_of_four(checkpoint_of), format, path)
    content = path.read_bytes()
    for old, new in [(b'\\"version\\":1', b'\\"version\\":2'), (b'\\"version\\":1', b'\\"version\\":"')]:
        assert old in content
        path.write_bytes(content.replace(old, new))
        if new.endswith(b"2"):
            assert f"is a '{format}' file of version 2; this release reads version 1" in reason(path)
        else:
            reason(path)
    path.write_bytes(
        content.replace(
            f"sparsepack.{format}".encode(), b"sparsepack.newer".ljust(11 + len(format))[: 11 + len(format)]
        )
    )
    assert "none of ours" in reason(path)


def test_the_metadata_key_is_plain_json(checkpoint_of: Build, tmp_path: Path) -> None:
    export(two_of_four(checkpoint_of), "csr", tmp_path / "x")
    metadata = TensorFile(tmp_path / "x").metadata
    assert metadata["format"] == "sparsepack.csr"
    assert metadata["manifest"]["tensors"][0]["structure"] == "2:4"


def test_a_foreign_onnx_file_opens(tmp_path: Path) -> None:
    weight = helper.make_tensor("w", TensorProto.FLOAT, [4, 2], [0.0, 1.0, -0.0, 2.0, 0.0, 0.0, 3.0, 4.0])
    graph = helper.make_graph(
        [helper.make_node("MatMul", ["x", "w"], ["y"])],
        "g",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 4])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 2])],
        [weight],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8)
    (tmp_path / "x.bin").write_bytes(model.SerializeToString())
    artifact = open_artifact(tmp_path / "x.bin")
    assert (artifact.format, artifact.model, artifact.chain, artifact.training) == ("onnx", None, None, None)
    (row,) = artifact.rows()
    # -0.0 is a stored value; the three zeros are what pruning leaves.
    assert (row.nnz, row.bytes, row.codec) == (5, 32, "dense float32")
    assert artifact.overhead()["graph"] == artifact.size - 32
    record = artifact.records()["w"]
    assert (record.role, record.output_axis, record.sha256) == ("prunable", 1, "")
    artifact.verify()
    with pytest.raises(UnsupportedError, match="stores dense values, no masks"):
        list(artifact.sparse_tensors())


def test_every_format_describes_itself() -> None:
    assert list(EXPORTERS) == [
        "packed",
        "csr",
        "nm",
        "onnx",
        "onnx-unpack",
        "onnx-sparse",
        "onnx-slim",
        "onnx-int8",
        "torchscript",
        "torch-export",
    ]
    for name, exporter in EXPORTERS.items():
        assert exporter.name == name
        assert exporter.summary
        lossless = ("onnx-slim", "onnx-int8", "torchscript", "torch-export")
        assert exporter.values[:2] == (("fp32",) if name in lossless else ("fp32", "fp16"))
        suffixes = {"packed": ".spk", "csr": ".safetensors", "nm": ".safetensors"}
        suffixes |= {"torchscript": ".pt", "torch-export": ".pt2"}
        assert exporter.suffix == suffixes.get(name, ".onnx")
