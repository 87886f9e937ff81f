"""The format onnx-slim from the command line: the same function in fewer bytes, an account, and clear refusals."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from graphs import Graph, run, widths
from onnx import numpy_helper

from sparsepack import cli
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.errors import ModelError
from sparsepack.exporters import export, open_artifact
from sparsepack.exporters.onnx_slim import SlimSettings, slim_checkpoint, slim_file
from sparsepack.models.source import load_source
from sparsepack.runtimes.measure import measure
from sparsepack.runtimes.verify import verify

Run = Callable[..., tuple[int, str, str]]
PRUNE = ["prune", "lenet-300-100", "--data", "digits", "--method", "magnitude", "--sparsity", "0.5", "--epochs", "1"]


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with half of every layer's neurons masked, one without, and their artifacts."""
    folder = tmp_path_factory.mktemp("finished")
    channels = ["--structure", "channel", "--allocation", "uniform"]
    assert cli.run([*PRUNE, *channels, "-o", str(folder / "run")]) == 0
    assert cli.run(["export", str(folder / "run"), "--to", "onnx", "-o", str(folder / "dense.onnx")]) == 0
    assert cli.run(["export", str(folder / "run"), "--to", "onnx-slim", "-o", str(folder / "slim.onnx")]) == 0
    return folder


@pytest.fixture
def compress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)

    def command(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return command


def three_layers(path: Path) -> onnx.ModelProto:
    graph = Graph()
    x = graph.add("Relu", graph.add("Conv", "x", graph.weight("a.weight", 16, 3, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Relu", graph.add("Conv", x, graph.weight("b.weight", 24, 16, 3, 3), pads=[1, 1, 1, 1]))
    x = graph.add("Flatten", graph.add("GlobalAveragePool", x))
    graph.add("Gemm", x, graph.weight("c.weight", 5, 24), graph.weight("c.bias", 5), transB=1, name="y")
    model = graph.model({"x": ("batch", 3, 8, 8)}, ["y"])
    path.write_bytes(model.SerializeToString())
    return model


def test_a_channel_mask_becomes_a_smaller_graph(compress: Run, finished: Path) -> None:
    code, out, _ = compress("export", str(finished / "run"), "--to", "onnx-slim", "-o", "slim.onnx")
    assert code == 0
    assert "Gemm fc1: 300 -> 150\nGemm fc2: 100 -> 50\n" in out
    assert "parameters: 50,610 -> 17,810 (64.8% removed)" in out
    assert "stays (10 units): it is a dimension of the graph's output 'output'" in out
    assert Path("slim.onnx").read_bytes() == (finished / "slim.onnx").read_bytes()
    model = onnx.load("slim.onnx")
    onnx.checker.check_model(model, full_check=True)
    images = np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)
    (expected,) = run(onnx.load(finished / "dense.onnx"), {"input": images})
    (found,) = run(model, {"input": images})
    np.testing.assert_allclose(found, expected, atol=1e-5)
    # No operator was added: what the removed neurons' biases contributed is in the biases that were there.
    assert "Add" not in [node.op_type for node in model.graph.node]


def test_the_artifact_accounts_for_every_byte_and_says_what_it_is(finished: Path) -> None:
    artifact = open_artifact(finished / "slim.onnx")
    assert artifact.format == "onnx-slim"
    assert artifact.model is not None and artifact.model.text == "lenet-300-100"
    assert sum(row.bytes for row in artifact.rows()) + sum(artifact.overhead().values()) == artifact.size
    shapes = {row.name: row.shape for row in artifact.rows()}
    assert shapes["fc1.weight"] == (150, 64)
    assert artifact.records()["fc1.weight"].role == "prunable"
    artifact.verify()
    damaged = finished / "damaged.onnx"
    content = bytearray((finished / "slim.onnx").read_bytes())
    content[-100] ^= 1
    damaged.write_bytes(content)
    findings = verify(damaged)
    assert [finding.ok for finding in findings] == [False]


def test_measure_and_verify_compare_it_with_its_checkpoint(compress: Run, finished: Path) -> None:
    slim = str(finished / "slim.onnx")
    words = ["--data", "digits", "--time-budget", "0.05", "--runtime", "onnxruntime-cpu", "--json", "-"]
    code, out, _ = compress("measure", slim, "--against", str(finished / "run"), *words)
    assert code == 0
    (measured,) = json.loads(out)["artifacts"]
    assert measured["parity"]["error"] < 1e-4
    # Against the whole network's values, not its own.
    assert measured["storage"]["dense_bytes"] == 4 * 50_610
    assert list(measured["latency"]) == ["onnxruntime-cpu"]
    code, out, _ = compress("verify", slim, "--against", str(finished / "run"))
    assert code == 0
    assert "ok  parity: largest difference" in out


def test_without_its_checkpoint_it_has_no_reference_and_says_so(finished: Path) -> None:
    record = measure([finished / "slim.onnx"], runtimes=["onnxruntime-cpu"], time_budget=0.05)
    (measured,) = record["artifacts"]
    assert measured["parity"] is None
    assert any("no reference but its checkpoint; give it as --against RUN" in note for note in measured["notes"])
    refused = measure([finished / "slim.onnx"], runtimes=["torch-cpu"], time_budget=0.05)["artifacts"][0]
    assert "its layers are not those of the model that PyTorch builds" in json.dumps(refused)
    assert all(finding.ok for finding in verify(finished / "slim.onnx"))


def test_a_share_of_the_units_goes_and_widths_are_rounded(compress: Run) -> None:
    model = three_layers(Path("m.onnx"))
    before = Path("m.onnx").read_bytes()
    words = ["export", "m.onnx", "--to", "onnx-slim", "--slim", "0.5"]
    assert compress(*words, "-o", "half.onnx")[0] == 0
    assert compress(*words, "--round-to", "8", "-o", "eights.onnx")[0] == 0
    assert widths(onnx.load("half.onnx")) == {
        "a.weight": (8, 3, 3, 3),
        "b.weight": (12, 8, 3, 3),
        "c.weight": (5, 12),
        "c.bias": (5,),
    }
    assert widths(onnx.load("eights.onnx"))["b.weight"] == (16, 8, 3, 3)
    assert Path("m.onnx").read_bytes() == before
    masked = onnx.load("m.onnx")
    for name, axis, reader in (("a.weight", 0, "b.weight"), ("b.weight", 0, "c.weight")):
        tensors = {tensor.name: tensor for tensor in masked.graph.initializer}
        array = numpy_helper.to_array(tensors[name]).copy()
        norms = np.abs(numpy_helper.to_array({t.name: t for t in model.graph.initializer}[name])).sum(axis=(1, 2, 3))
        gone = np.argsort(norms, kind="stable")[: len(norms) // 2]
        array[gone] = 0
        tensors[name].CopyFrom(numpy_helper.from_array(array, name))
        assert axis == 0 and reader in tensors
    x = np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)
    np.testing.assert_allclose(run(onnx.load("half.onnx"), {"x": x})[0], run(masked, {"x": x})[0], atol=1e-4)


def test_the_account_is_json_on_request(compress: Run) -> None:
    three_layers(Path("m.onnx"))
    code, out, _ = compress("export", "m.onnx", "--to", "onnx-slim", "--slim", "0.5", "--json", "-o", "x.onnx")
    assert code == 0
    found = json.loads(out)
    assert found["bytes"] == Path("x.onnx").stat().st_size
    layers = {row["name"]: row["outputs"] for row in found["account"]["layers"]}
    assert layers == {"a.weight": [16, 8], "b.weight": [24, 12], "c.weight": [5, 5]}
    groups = {row["name"]: row for row in found["account"]["groups"]}
    assert groups["a.weight"]["members"] == ["a.weight[0]", "b.weight[1]"]
    assert groups["c.weight"]["pinned"] == ["it is a dimension of the graph's output 'y'"]


def test_equal_input_gives_equal_bytes_and_a_slimmed_file_slims_again(tmp_path: Path) -> None:
    three_layers(tmp_path / "m.onnx")
    half = SlimSettings(0.5)
    slim_file(tmp_path / "m.onnx", tmp_path / "a.onnx", settings=half)
    slim_file(tmp_path / "m.onnx", tmp_path / "b.onnx", settings=half)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()
    account = slim_file(tmp_path / "a.onnx", tmp_path / "c.onnx", settings=half)
    assert [row.outputs for row in account.layers] == [(8, 4), (12, 6), (5, 5)]
    assert open_artifact(tmp_path / "c.onnx").format == "onnx-slim"


def test_a_pruned_onnx_file_slims(compress: Run, tmp_path: Path) -> None:
    three_layers(Path("m.onnx"))
    pruned = ["prune", "m.onnx", "--method", "magnitude", "--structure", "channel", "--sparsity", "0.25"]
    assert compress(*pruned, "--allocation", "uniform", "-o", "run")[0] == 0
    code, out, _ = compress("export", "run", "--to", "onnx-slim", "-o", "slim.onnx")
    assert code == 0
    assert "Conv a: 16 -> 12" in out
    assert compress("export", "run", "--to", "onnx", "-o", "whole.onnx")[0] == 0
    x = np.random.default_rng(1).standard_normal((8, 3, 8, 8)).astype(np.float32)
    expected, found = (run(onnx.load(name), {"x": x})[0] for name in ("whole.onnx", "slim.onnx"))
    np.testing.assert_allclose(found, expected, atol=1e-4)


def test_units_that_are_dead_already_are_folded_not_masked(finished: Path, tmp_path: Path) -> None:
    # Half of the neurons are dead by the checkpoint's mask, and --slim 0.5 picks just these: the function stays.
    checkpoint = SparseCheckpoint.load(finished / "run" / "checkpoint.safetensors")
    source = load_source("lenet-300-100", options=checkpoint.metadata.model.options)
    path = tmp_path / "x.onnx"
    slim_checkpoint(checkpoint, path, source=source, settings=SlimSettings(0.5))
    images = np.random.default_rng(0).standard_normal((32, 1, 8, 8)).astype(np.float32)
    expected, found = (run(onnx.load(p), {"input": images})[0] for p in (finished / "dense.onnx", path))
    np.testing.assert_allclose(found, expected, atol=1e-5)


def test_a_checkpoint_of_another_file_is_refused(finished: Path, tmp_path: Path) -> None:
    three_layers(tmp_path / "m.onnx")
    checkpoint = SparseCheckpoint.load(finished / "run" / "checkpoint.safetensors")
    with pytest.raises(ModelError, match=r"fc1\.weight"):
        export(checkpoint, "onnx-slim", tmp_path / "x.onnx", source=load_source(str(tmp_path / "m.onnx")))


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["m.onnx", "--to", "packed"], 2, "m.onnx is an ONNX file, which exports to onnx-slim and onnx-sparse only"),
        (["m.onnx", "--to", "onnx-slim", "--values", "fp16"], 2, "leave --values fp16 out"),
        (["m.onnx", "--to", "onnx-slim", "--model", "m.onnx"], 2, "--model goes with a checkpoint"),
        (
            ["m.onnx", "--to", "onnx-slim", "--round-to", "8"],
            2,
            "give --slim SHARE, --target-macs or --target-latency as well",
        ),
        (["m.onnx", "--to", "onnx-slim", "--slim", "0.5", "--target-macs", "0.5"], 2, "give one of them"),
        (["m.onnx", "--to", "onnx-slim", "--target-macs", "10"], 1, "it still needs 2,309"),
        (["RUN", "--to", "packed", "--target-macs", "0.5"], 2, "--target-macs goes with --to onnx-slim"),
        (["m.onnx", "--to", "onnx-slum"], 2, "Did you mean 'onnx-slim'?"),
        (["RUN", "--to", "onnx", "--slim", "0.5"], 2, "--slim goes with --to onnx-slim"),
        (["RUN", "--to", "torchscript", "--slim", "0.5"], 2, "then 'compress slim', whose file every format takes"),
        (["RUN", "--to", "packed", "--allow-approximate"], 2, "--allow-approximate goes with --to onnx-slim"),
        (["RUN", "--to", "onnx-slim", "--values", "fp16"], 2, "Choose from: fp32"),
        (["missing.onnx", "--to", "onnx-slim"], 1, "missing.onnx"),
        (["garbage.onnx", "--to", "onnx-slim"], 1, "garbage.onnx is not a readable ONNX file"),
        (["only.onnx", "--to", "onnx-slim", "--slim", "0.5"], 1, "nothing in this graph can be removed"),
        (["broken.onnx", "--to", "onnx-slim", "--slim", "0.5"], 1, "the graph is broken"),
    ],
)
def test_what_cannot_be_is_one_line_and_writes_nothing(
    compress: Run, finished: Path, words: list[str], code: int, message: str
) -> None:
    three_layers(Path("m.onnx"))
    Path("garbage.onnx").write_bytes(b"not a graph at all")
    graph = Graph()
    graph.add("Conv", "x", graph.weight("only", 4, 3, 1, 1), name="y")
    whole = graph.model({"x": ("batch", 3, 8, 8)}, ["y"])
    Path("only.onnx").write_bytes(whole.SerializeToString())
    whole.graph.input[0].type.tensor_type.shape.dim[1].dim_value = 5
    Path("broken.onnx").write_bytes(whole.SerializeToString())
    words = [str(finished / "run") if word == "RUN" else word for word in words]
    got, out, err = compress("export", *words, "-o", "x.onnx")
    assert (got, out) == (code, "")
    assert message in err
    assert err.count("\n") == 1
    assert not Path("x.onnx").exists()


def test_a_share_outside_its_range_is_a_usage_error(compress: Run) -> None:
    three_layers(Path("m.onnx"))
    assert compress("export", "m.onnx", "--to", "onnx-slim", "--slim", "1", "-o", "x.onnx")[0] == 2


def test_nothing_dead_means_the_same_graph_and_a_hint(compress: Run) -> None:
    model = three_layers(Path("m.onnx"))
    code, out, _ = compress("export", "m.onnx", "--to", "onnx-slim", "-o", "x.onnx")
    assert code == 0
    assert "nothing could be removed: no unit is dead; 2 widths may shrink if --slim says so." in out
    assert widths(onnx.load("x.onnx")) == widths(model)


def test_an_existing_output_is_kept(compress: Run) -> None:
    three_layers(Path("m.onnx"))
    Path("x.onnx").write_text("mine")
    assert compress("export", "m.onnx", "--to", "onnx-slim", "-o", "x.onnx")[0] == 2
    assert Path("x.onnx").read_text() == "mine"
    assert compress("export", "m.onnx", "--to", "onnx-slim", "-o", "x.onnx", "--force")[0] == 0
