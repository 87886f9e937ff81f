"""``torchscript`` and ``torch-export``: written, opened without PyTorch, loaded back, run, and refused when damaged."""

from __future__ import annotations

import io
import json
import os
import zipfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hostile.forge import join_torch, split_torch

from sparsepack.compressor.checkpoint import SparseCheckpoint, make_tensor
from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.module_slim import slim_module_of
from sparsepack.exporters.torch_archive import ENTRY, FORMATS
from sparsepack.exporters.torchscript import quiet_torchscript
from sparsepack.models.source import TorchSource, load_source, source_from_record
from sparsepack.models.tensors import to_numpy
from sparsepack.runtimes import RUNTIMES
from sparsepack.runtimes.measure.parity import BOUND, compare
from sparsepack.runtimes.torch_dense import dense_session
from sparsepack.runtimes.verify import verify

Build = Callable[..., SparseCheckpoint]

NETWORK = """
import torch
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.first = nn.Conv2d(3, 8, 3, padding=1)
        self.norm = nn.BatchNorm2d(8)
        self.second = nn.Conv2d(8, 8, 3, padding=1)
        self.drop = nn.Dropout(0.5)
        self.out = nn.Linear(8, 5)
        self.again = nn.Linear(8, 5)
        self.again.weight = self.out.weight

    def forward(self, x):
        x = self.norm(self.first(x)).relu()
        x = (x + self.second(x)).relu()
        x = self.drop(x.amax((2, 3)))
        return self.out(x) + self.again(x)


def build():
    torch.manual_seed(0)
    net = Net()
    net.norm.running_mean.uniform_(-1, 1)
    net.norm.running_var.uniform_(0.5, 2)
    return net, torch.zeros(2, 3, 8, 8)
"""


def network(folder: Path) -> TorchSource:
    (folder / "network.py").write_text(NETWORK)
    source = load_source(f"{folder / 'network.py'}:build", allow_import=True)
    assert isinstance(source, TorchSource)
    return source


def checkpoint_from(source: TorchSource, checkpoint_of: Build, structure: str = "element") -> SparseCheckpoint:
    """Return the network with half of its weights pruned: any half, or two of every four inputs."""
    tensors = []
    for name, value in source.build().state_dict().items():
        if name == "again.weight":
            tensors.append(make_tensor(name, to_numpy(value), record={"alias_of": "out.weight"}))
            continue
        mask = None
        if name in ("first.weight", "second.weight", "out.weight") and (structure == "element" or value.shape[1] == 8):
            rows = np.random.default_rng(0).random((value[:, :4].numel() // 4 * (value.shape[1] // 4 or 1), 4))
            ranked = rows.argsort(axis=1) < 2
            flat = np.resize(ranked.reshape(-1), value.numel())
            mask = np.moveaxis(flat.reshape(*value.shape[:1], *value.shape[2:], value.shape[1]), -1, 1)
        record = {
            "role": "parameter" if mask is None else "prunable",
            "structure": structure if mask is not None else "element",
        }
        tensors.append(make_tensor(name, to_numpy(value), mask=mask, record=record))
    return checkpoint_of(*tensors, model=source.record)


@pytest.mark.parametrize("structure", ["element", "2:4"])
@pytest.mark.parametrize("format", FORMATS)
def test_what_is_written_computes_what_the_checkpoint_computes(
    format: str, structure: str, checkpoint_of: Build, tmp_path: Path
) -> None:
    source = network(tmp_path)
    checkpoint = checkpoint_from(source, checkpoint_of, structure)
    artifact = export(checkpoint, format, tmp_path / "net", source=source)
    assert artifact.format == format
    inputs = source.example_inputs(16)[0].numpy()
    expected = dense_session(source, checkpoint.dense_state(), threads=1).run(inputs)
    ran = {}
    for name, runtime in RUNTIMES.items():
        if runtime.available() is None and runtime.accepts(artifact) is None and name != "torch-compiled-cpu":
            found = compare(expected, runtime.load(artifact, threads=1, source=source).run(inputs))
            assert found.error is not None
            assert found.error <= BOUND
            ran[name] = found
    assert set(ran) == {"torch-cpu", f"{format}-cpu"}
    # The exported program has no batch size of its own.
    assert RUNTIMES[f"{format}-cpu"].load(artifact, threads=1).run(inputs[:3]).shape == (3, 5)
    findings = verify(tmp_path / "net", model=f"{tmp_path / 'network.py'}:build")
    assert all(finding.ok for finding in findings)
    assert findings[-1].check == "parity"
    assert "the bound is 1e-04" in findings[-1].detail


@pytest.mark.parametrize("format", FORMATS)
def test_a_slimmed_network_is_written_as_the_smaller_program(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    dense = checkpoint_from(source, checkpoint_of)
    keep = np.arange(8) % 4 != 1
    tensors = []
    for name, tensor in dense.tensors.items():
        # Channels of the first width, whose residual sum ties both convolutions together.
        values, cut = tensor.dense().copy(), {"first": 0, "norm": 0, "second": 0}.get(name.partition(".")[0])
        if cut is not None and values.ndim and "running" not in name:
            values[~keep] = 0
        record = {"role": tensor.record.role, "alias_of": tensor.record.alias_of}
        tensors.append(make_tensor(name, values, record=record))
    checkpoint = checkpoint_of(*tensors, model=source.record)
    small = slim_module_of(checkpoint, source).checkpoint
    assert small.tensors["second.weight"].record.shape == (6, 6, 3, 3)
    path = tmp_path / "small"
    small.save(tmp_path / "small.safetensors")
    model = f"{tmp_path / 'network.py'}:build"
    built = source_from_record(small.metadata.model, model)
    artifact = export(small, format, path, source=built)
    inputs = source.example_inputs(16)[0].numpy()
    expected = dense_session(source, checkpoint.dense_state(), threads=1).run(inputs)
    found = compare(expected, RUNTIMES[f"{format}-cpu"].load(artifact, threads=1).run(inputs))
    assert found.error is not None
    assert found.error <= BOUND
    assert all(finding.ok for finding in verify(path, against=tmp_path / "small.safetensors", model=model))


@pytest.mark.parametrize("format", FORMATS)
def test_bytes_are_the_same_from_any_folder_and_hold_no_path(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    written = []
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        source = network(tmp_path / name)
        checkpoint = checkpoint_from(network(tmp_path / "a"), checkpoint_of)
        export(checkpoint, format, tmp_path / name / "net", source=source)
        written.append((tmp_path / name / "net").read_bytes())
    assert written[0] == written[1]
    with zipfile.ZipFile(tmp_path / "a" / "net") as archive:
        for name in archive.namelist():
            if name != ENTRY:
                assert str(tmp_path).encode() not in archive.read(name), name


def test_pytorch_itself_loads_them(checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    checkpoint = checkpoint_from(source, checkpoint_of)
    export(checkpoint, "torchscript", tmp_path / "net.pt", source=source)
    with quiet_torchscript():
        program = torch.jit.load(tmp_path / "net.pt")  # type: ignore[no-untyped-call]  # untyped in torch
    kept = dict(program.named_parameters())["second.weight"]
    np.testing.assert_array_equal(kept.detach().numpy(), checkpoint.dense_state()["second.weight"])


@pytest.mark.parametrize("format", FORMATS)
def test_a_changed_byte_is_found_wherever_it_is(format: str, checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    path = tmp_path / "net"
    export(checkpoint_from(source, checkpoint_of), format, path, source=source)
    whole = path.read_bytes()
    open_artifact(path).verify()
    undetected = []
    for place in range(0, len(whole), 97):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 1]) + whole[place + 1 :])
        try:
            artifact = open_artifact(path)
            artifact.verify()
            artifact.rows()
        except FileFormatError:
            continue
        undetected.append(place)
    # Only what nobody reads: padding between entries, and what a zip archive says twice.
    assert len(undetected) * 97 < 0.45 * len(whole)
    for size in (9, 100, len(whole) // 2, len(whole) - 1):
        path.write_bytes(whole[:size])
        with pytest.raises(FileFormatError):
            open_artifact(path)


def rewritten(path: Path, change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> None:
    stream = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(stream, "w", compression) as new:
        for name in old.namelist():
            content = change(name, old.read(name))
            if content is not None:
                new.writestr(name, content)
    path.write_bytes(stream.getvalue())


def test_forged_archives_are_refused_in_one_line(checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    path = tmp_path / "net"
    export(checkpoint_from(source, checkpoint_of), "torchscript", path, source=source)
    whole = path.read_bytes()

    def forged(change: Callable[[str, bytes], bytes | None], compression: int = zipfile.ZIP_STORED) -> str:
        path.write_bytes(whole)
        rewritten(path, change, compression)
        with pytest.raises(FileFormatError) as caught:
            open_artifact(path).verify()
        assert "\n" not in str(caught.value)
        return str(caught.value)

    assert "without a sparsepack entry" in forged(lambda name, old: None if name == ENTRY else old)
    assert "is no JSON" in forged(lambda name, old: b"{" if name == ENTRY else old)
    assert "not a sparsepack file" in forged(lambda name, old: b"{}" if name == ENTRY else old)
    assert "does not hold what" in forged(lambda name, old: None if name.endswith("version") else old)
    assert "is compressed" in forged(lambda name, old: old, zipfile.ZIP_DEFLATED)
    assert "places" in forged(
        lambda name, old: old.replace(b'"places":{', b'"places":{"a":1,') if name == ENTRY else old
    )
    assert "SHA-256 differs" in forged(lambda name, old: old + b" " if name.endswith(".py") else old)
    assert "does not fit" in forged(lambda name, old: old[:-4] if name.endswith("data/0") else old)
    assert "SHA-256 differs" in forged(lambda name, old: bytes(len(old)) if name.endswith("data/0") else old)


class Evil:
    """What leaves a file behind when it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        return Path.touch, (self.place,)


def _pickled(entries: dict[str, bytes], place: Path) -> None:
    name = "archive/data/weights/model_weights_config.json"
    config = json.loads(entries[name])
    first = next(iter(config["config"].values()))
    first["use_pickle"] = True
    entries[name] = json.dumps(config).encode()
    # Of the length that the manifest has for the tensor: a pickle may be followed by anything.
    stored = f"archive/data/weights/{first['path_name']}"
    entries[stored] = (_saved(Evil(place)) + bytes(len(entries[stored])))[: len(entries[stored])]


def _saved(value: object) -> bytes:
    stream = io.BytesIO()
    torch.save(value, stream)
    return stream.getvalue()


def _samples(entries: dict[str, bytes], place: Path) -> None:
    entries["archive/data/sample_inputs/model.pt"] = _saved(Evil(place))


def _library(entries: dict[str, bytes], place: Path) -> None:
    entries["archive/data/aotinductor/model/model.so"] = b"\x7fELF"


def _program(old: str, new: str) -> Callable[[dict[str, bytes], Path], None]:
    def change(entries: dict[str, bytes], place: Path) -> None:
        name = "archive/models/model.json"
        text = entries[name].decode()
        assert old in text
        entries[name] = text.replace(old, new.replace("PLACE", str(place))).encode()

    return change


FORGERIES = [
    (_pickled, "stored as a pickle"),
    (_samples, "a pickle of more than tensors"),
    (_library, "holds 'archive/data/aotinductor/model/model.so'"),
    (_program("torch.ops.aten.relu.default", "torch.os.system"), "'torch.os.system' in its program"),
    (_program("torch.ops.aten.relu.default", "torch.ops.aten.save.default"), "'torch.ops.aten.save.default'"),
    (_program("torch.ops.aten.relu.default", "_operator.attrgetter"), "'_operator.attrgetter'"),
    (_program("Symbol(", "open('PLACE','w')or Symbol("), "in its program is nothing of a network"),
    (_program('"forward_arg_names":["x"]', '"forward_arg_names":["x=print()"]'), "'x=print()'"),
    (_program("builtins.tuple", "__enum__"), "in its program is nothing of a network"),
    (_program('{"graph_module"', '[{"graph_module"'), "PyTorch cannot load it"),
]


def test_a_forged_program_is_refused_before_pytorch_reads_it(checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    path, place = tmp_path / "net", tmp_path / "evil"
    export(checkpoint_from(source, checkpoint_of), "torch-export", path, source=source)
    value, body = split_torch(path.read_bytes())
    honest = {}
    for name, length in value["members"]:
        honest[name], body = body[:length], body[length:]
    for change, message in FORGERIES:
        entries = dict(honest)
        change(entries, place)
        listed = {name: "" for name in entries if name not in value["head"]["places"].values()}
        members = [[name, len(content)] for name, content in entries.items()]
        forged = {"head": {**value["head"], "sha256": listed}, "members": members}
        path.write_bytes(join_torch(forged, b"".join(entries.values())))
        with pytest.raises(FileFormatError) as caught:
            RUNTIMES["torch-export-cpu"].load(open_artifact(path), threads=1)
        assert message in str(caught.value)
        assert "\n" not in str(caught.value)
        assert not place.exists()


def test_a_torchscript_file_of_others_is_no_artifact(tmp_path: Path) -> None:
    with quiet_torchscript():
        # Untyped in torch.
        program = torch.jit.trace(torch.nn.Linear(2, 2), torch.zeros(1, 2))  # type: ignore[no-untyped-call]
        torch.jit.save(program, tmp_path / "other.pt")
    with pytest.raises(FileFormatError, match="TorchScript file without a sparsepack entry"):
        open_artifact(tmp_path / "other.pt")


def test_an_onnx_network_cannot_be_written(checkpoint_of: Build, tmp_path: Path) -> None:
    source = network(tmp_path)
    checkpoint = checkpoint_from(source, checkpoint_of)
    export(checkpoint, "onnx", tmp_path / "net.onnx", source=source)
    for format in FORMATS:
        with pytest.raises(UnsupportedError, match="cannot build a model from an ONNX file"):
            export(checkpoint, format, tmp_path / "net", source=load_source(str(tmp_path / "net.onnx")))


@pytest.mark.skipif("SPARSEPACK_COMPILE" not in os.environ, reason="compiles C++; set SPARSEPACK_COMPILE=1")
def test_a_compiled_module_computes_the_same(checkpoint_of: Build, tmp_path: Path) -> None:
    runtime = RUNTIMES["torch-compiled-cpu"]
    reason = runtime.available()
    if reason is not None:
        pytest.skip(reason)
    source = network(tmp_path)
    checkpoint = checkpoint_from(source, checkpoint_of)
    artifact = export(checkpoint, "packed", tmp_path / "net.spk")
    inputs = source.example_inputs(16)[0].numpy()
    expected = dense_session(source, checkpoint.dense_state(), threads=1).run(inputs)
    found = compare(expected, runtime.load(artifact, threads=1, source=source).run(inputs))
    assert found.error is not None
    assert found.error <= BOUND


def test_what_torch_compile_lacks_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    runtime = RUNTIMES["torch-compiled-cpu"]
    monkeypatch.setattr("shutil.which", lambda name: None)
    assert runtime.available() == "torch.compile needs a C++ compiler, and none of c++, g++ and clang++ is on the path"
    monkeypatch.setattr("shutil.which", lambda name: name)
    monkeypatch.setattr("sysconfig.get_path", lambda name: "/nowhere")
    assert "the headers of Python" in (runtime.available() or "")
