"""The command line: every mistake is one line on standard error and the right exit code; nothing is half written."""

import json
import os
import resource
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from sparsepack import cli

PRUNE = ["prune", "lenet-300-100", "--data", "digits", "--method", "magnitude", "--sparsity", "0.9", "--epochs", "1"]
COMMAND = [sys.executable, "-m", "sparsepack.cli"]

Run = Callable[..., tuple[int, str, str]]


@pytest.fixture
def compress(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Run:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path / "cache"))

    def run(*words: str) -> tuple[int, str, str]:
        code = cli.run(list(words))
        out, err = capsys.readouterr()
        return code, out, err

    return run


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a pruned run and its packed and ONNX artifacts."""
    folder = tmp_path_factory.mktemp("finished")
    assert cli.run([*PRUNE, "-o", str(folder / "run")]) == 0
    for name, file in (("packed", "small.spk"), ("onnx", "dense.onnx"), ("csr", "rows.safetensors")):
        assert cli.run(["export", str(folder / "run"), "--to", name, "-o", str(folder / file)]) == 0
    return folder


def one_line(err: str) -> str:
    assert err.startswith("compress: error: ") and err.count("\n") == 1 and "Traceback" not in err, err
    return err


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["lenet-300-10", "--method", "magnitude", "--sparsity", "0.9"], 2, "Did you mean 'lenet-300-100'?"),
        (["lenet-300-100", "--method", "magnitud", "--sparsity", "0.9"], 2, "Did you mean 'magnitude'?"),
        (["lenet-300-100", "--method", "magnitude", "--sparsity", "1.0"], 2, r"must lie in [0, 1)"),
        (["lenet-300-100", "--method", "magnitude", "--sparsity", "-0.1"], 2, r"must lie in [0, 1)"),
        (["lenet-300-100", "--method", "magnitude"], 2, "needs a sparsity"),
        (["lenet-300-100", "--method", "magnitude", "--structure", "2:4", "--sparsity", "0.9"], 2, "0.5"),
        (["lenet-300-100", "--method", "rigl", "--structure", "channel", "--sparsity", "0.5"], 1, "does not go with"),
        (["lenet-300-100", "--method", "snip", "--sparsity", "0.9", "--data", "none"], 2, "needs data"),
        (
            ["lenet-300-100", "--method", "magnitude", "--sparsity", "0.9", "--option", "rte=1"],
            2,
            "Did you mean 'rate'?",
        ),
        (["lenet-300-100", "--method", "magnitude", "--sparsity", "0.9", "--init", "unifrom"], 2, "'uniform'"),
        (["lenet-300-100", "--method", "magnitude", "--sparsity", "0.9", "--data", "digit"], 2, "digits"),
        (["missing.py:build", "--method", "magnitude", "--sparsity", "0.9"], 1, "missing.py"),
        (["missing.onnx", "--method", "magnitude", "--sparsity", "0.9"], 1, "missing.onnx"),
    ],
)
def test_a_wrong_request_is_one_line(compress: Run, words: list[str], code: int, message: str) -> None:
    data = [] if "--data" in words else ["--data", "digits"]
    got, out, err = compress("prune", *words, *data, "-o", "run")
    assert got == code
    assert message in one_line(err)
    assert out == ""
    assert not Path("run/checkpoint.safetensors").exists()


def test_unknown_format_suggests_the_near_miss(compress: Run, finished: Path) -> None:
    code, _, err = compress("export", str(finished / "run"), "--to", "packd", "-o", "x")
    assert code == 2
    assert "Did you mean 'packed'?" in one_line(err)
    assert not Path("x").exists()


@pytest.mark.parametrize("words", [["inspect"], ["export", "--to", "packed", "-o", "x"], ["report"]])
def test_a_name_too_long_for_any_file_is_one_line(compress: Run, words: list[str]) -> None:
    code, _, err = compress(*words, "x" * 300)
    assert code == 1
    assert "too long" in one_line(err)


@pytest.mark.parametrize(
    "words", [["measure", "x.onnx", "--time-budget"], ["export", "x.onnx", "--to", "onnx-slim", "-o", "y", "--slim"]]
)
@pytest.mark.parametrize("number", ["nan", "inf"])
def test_a_number_in_a_range_is_finite(compress: Run, words: list[str], number: str) -> None:
    code, _, err = compress(*words, number)
    assert code == 2
    assert f"'{number}' is no finite number" in err or "is not in the range" in err


def test_unknown_option_is_a_usage_error(compress: Run) -> None:
    code, _, err = compress("prune", "lenet-300-100", "--sparsty", "0.9", "-o", "run")
    assert code == 2
    assert "--sparsity" in err


def test_an_existing_output_is_kept_without_force(compress: Run, finished: Path) -> None:
    Path("taken.spk").write_text("mine")
    export = ["export", str(finished / "run"), "--to", "packed", "-o", "taken.spk"]
    code, _, err = compress(*export)
    assert code == 2
    assert "--force" in one_line(err)
    assert Path("taken.spk").read_text() == "mine"
    assert compress(*export, "--force")[0] == 0
    assert Path("taken.spk").read_bytes() == (finished / "small.spk").read_bytes()


@pytest.mark.parametrize("command", ["inspect", "measure", "verify", "export"])
@pytest.mark.parametrize("content", [b"", b"PK\x03\x04 not ours", b"\xff" * 4096])
def test_a_foreign_file_is_refused(compress: Run, command: str, content: bytes) -> None:
    for suffix in ("spk", "safetensors", "onnx"):
        path = Path(f"foreign.{suffix}")
        path.write_bytes(content)
        words = [command, str(path)] + (["--to", "packed", "-o", "x"] if command == "export" else [])
        code, out, err = compress(*words)
        assert code == 1
        assert str(path) in (out if command == "verify" else one_line(err))


def test_a_missing_file_is_one_line(compress: Run) -> None:
    for words in (["inspect", "no.spk"], ["measure", "no.spk"], ["export", "no", "--to", "csr", "-o", "x"]):
        code, _, err = compress(*words)
        assert code in (1, 2)
        assert "no" in one_line(err)


@pytest.mark.parametrize("name", ["x" * 300, "x/" * 3000])
def test_a_name_that_the_system_refuses_is_one_line(compress: Run, finished: Path, name: str) -> None:
    small = str(finished / "small.spk")
    for words in (
        ["inspect", name],
        ["verify", small, "--against", name],
        ["measure", small, "--baseline", name],
        ["export", name, "--to", "packed", "-o", "x.spk"],
        ["export", str(finished / "run"), "--to", "packed", "-o", name],
        ["prune", "lenet-300-100", "--data", f"npz:{name}", "--method", "snip", "--sparsity", "0.9", "-o", "run"],
        ["prune", name, "--method", "magnitude", "--sparsity", "0.9", "-o", "run"],
        ["prune", *PRUNE[1:], "-o", name],
        ["run", name, "-o", "out"],
        ["report", name],
        ["analyze", name],
    ):
        code, _, err = compress(*words)
        assert code in (1, 2), words
        one_line(err)


def test_a_name_that_is_no_text_is_measured_and_reported(compress: Run, finished: Path) -> None:
    small = os.fsdecode(b"small\xff.spk")
    Path(small).write_bytes((finished / "small.spk").read_bytes())
    strict = {**os.environ, "PYTHONIOENCODING": "utf-8:strict"}
    shown = subprocess.run([*COMMAND, "inspect", small], env=strict, capture_output=True, check=True, text=True)
    assert r"small\udcff.spk: packed" in shown.stdout
    reports = [f"--{kind}={kind}" for kind in ("json", "html", "markdown", "junit", "csv")]
    assert compress("measure", small, *reports, "--time-budget", "0.05")[0] == 0
    record = json.loads(Path("json").read_text())
    assert record["artifacts"][0]["artifact"] == record["artifacts"][0]["path"] == r"small\xff.spk"
    assert compress("report", "json")[0] == 0
    graph = os.fsdecode(b"graph\xff.onnx")
    Path(graph).write_bytes((finished / "dense.onnx").read_bytes())
    checked = subprocess.run([*COMMAND, "verify", graph], capture_output=True, text=True)
    assert checked.returncode == 1
    assert "a name that is no text" in checked.stdout and checked.stderr == ""


@pytest.mark.parametrize(
    "words",
    [
        ["net\udcff.onnx", "--data", "none"],
        ["lenet-300-100", "--data", "npz:\udcff.npz"],
        ["lenet-300-100", "--data", "none", "--weights", "\udcff"],
        ["lenet-300-100", "--data", "none", "--exclude", "\udcff"],
        ["lenet-300-100", "--data", "none", "--option", "norm=\udcff"],
    ],
)
def test_a_setting_that_is_no_text_is_refused(compress: Run, words: list[str]) -> None:
    code, _, err = compress("prune", *words, "--method", "magnitude", "--sparsity", "0.5", "-o", "run")
    assert code == 2
    assert "no UTF-8 text" in one_line(err)
    assert not Path("run").exists()


def test_a_circle_of_links_is_one_line(compress: Run, finished: Path) -> None:
    for name in ("loop", "loop.py"):
        Path(name).symlink_to(name)
    small = str(finished / "small.spk")
    for words in (
        ["analyze", "loop", str(finished / "run")],
        ["prune", "loop.py:build", "--method", "magnitude", "--sparsity", "0.5", "-o", "run"],
        ["inspect", "loop"],
        ["measure", small, "--baseline", "loop"],
    ):
        code, _, err = compress(*words)
        assert code in (1, 2), words
        one_line(err)
    assert compress("measure", small, "--html", "loop", "--csv", "csv", "--time-budget", "0.05")[0] == 0


def test_ctrl_c_that_comes_out_as_another_error_is_still_ctrl_c(compress: Run) -> None:
    Path("net.py").write_text(
        "def build():\n    try:\n        raise KeyboardInterrupt\n    except missing.Error:\n        pass\n"
    )
    code, _, err = compress("prune", "net.py:build", "--method", "magnitude", "--sparsity", "0.5", "-o", "run")
    assert code == 130
    assert err.startswith("compress: interrupted") and err.count("\n") == 1


def test_a_name_as_long_as_the_system_allows_is_written(compress: Run, finished: Path) -> None:
    name = "x" * 251 + ".spk"
    assert compress("export", str(finished / "run"), "--to", "packed", "-o", name)[0] == 0
    assert Path(name).read_bytes() == (finished / "small.spk").read_bytes()


def test_inspect_adds_up_to_the_byte(compress: Run, finished: Path) -> None:
    for name in ("small.spk", "dense.onnx", "rows.safetensors", "run/checkpoint.safetensors"):
        code, out, _ = compress("inspect", str(finished / name), "--json")
        found = json.loads(out)
        assert code == 0
        total = sum(row["bytes"] for row in found["tensors"]) + sum(found["overhead_bytes"].values())
        assert total == found["bytes"] == (finished / name).stat().st_size


def test_a_run_is_verified_by_its_checkpoint(compress: Run, finished: Path) -> None:
    file = finished / "run" / "checkpoint.safetensors"
    assert compress("verify", str(finished / "run")) == compress("verify", str(file))
    assert compress("verify", str(finished / "run"))[0] == 0
    assert "no checkpoint at" in one_line(compress("verify", str(finished))[2])


@pytest.mark.parametrize("command", ["inspect", "verify", "report"])
def test_what_may_not_be_read_is_one_line(compress: Run, finished: Path, command: str) -> None:
    Path("closed").write_bytes((finished / "small.spk").read_bytes())
    # Once before, so that nothing is left to import for a user who may not read the interpreter's folder.
    compress(command, "closed")
    Path("closed").chmod(0)
    Path().chmod(0o755)
    root = os.geteuid() == 0
    if root:
        os.seteuid(65534)
    try:
        code, out, err = compress(command, "closed")
    finally:
        if root:
            os.seteuid(0)
    assert code == 1
    assert "closed: Permission denied" in (out if command == "verify" else one_line(err))


def test_a_flipped_bit_fails_verification(compress: Run, finished: Path) -> None:
    assert compress("verify", str(finished / "small.spk"), "--against", str(finished / "run"))[0] == 0
    content = bytearray((finished / "small.spk").read_bytes())
    content[-2000] ^= 4
    Path("bad.spk").write_bytes(content)
    code, out, _ = compress("verify", "bad.spk")
    assert code == 1
    assert "WRONG" in out


def other_network(path: Path) -> Path:
    weight = numpy_helper.from_array(np.ones((4, 3), np.float32), "w")
    ends = [
        helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name, width in (("x", 4), ("y", 3))
    ]
    graph = helper.make_graph([helper.make_node("MatMul", ["x", "w"], ["y"])], "g", ends[:1], ends[1:], [weight])
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10), path)
    return path


def test_measure_gates_with_its_exit_code(compress: Run, finished: Path) -> None:
    small = str(finished / "small.spk")
    common = ["measure", small, "--data", "digits", "--time-budget", "0.1", "--threads", "1"]
    code, out, _ = compress(*common, "--require", "storage.size_ratio>=2", "--json", "record.json")
    assert code == 0
    assert "met" in out
    record = json.loads(Path("record.json").read_text())
    assert record["schema"] == "sparsepack.measurement/1"
    assert record["artifacts"][0]["storage"]["bytes"] == (finished / "small.spk").stat().st_size
    code, out, _ = compress(*common, "--require", "storage.size_ratio>=1000")
    assert code == 1
    assert "NOT MET" in out
    code, _, err = compress(*common, "--require", "storage.size_rato>=1")
    assert code == 2
    assert "size_ratio" in one_line(err)
    code, out, err = compress(*common, "--baseline", str(other_network(Path("other.onnx"))), "--json", "apart.json")
    assert code == 1
    assert "small.spk: no comparison: the baseline other.onnx takes inputs" in one_line(err)
    assert json.loads(Path("apart.json").read_text())["artifacts"][0]["accuracy"]["value"] > 0
    code, _, err = compress(*common, "--json", "record.json")
    assert code == 2
    assert "--force" in one_line(err)


def test_measure_writes_its_record_to_standard_output(compress: Run, finished: Path) -> None:
    code, out, _ = compress("measure", str(finished / "small.spk"), "--json", "-")
    assert code == 0
    assert json.loads(out)["artifacts"][0]["format"] == "packed"


@pytest.mark.parametrize("command", ["methods", "runtimes", "formats"])
def test_listings_are_tables_or_json(compress: Run, command: str) -> None:
    names = [entry["name"] for entry in json.loads(compress(command, "--json")[1])]
    table = compress(command)[1]
    assert names and all(name in table for name in names)


def test_every_method_can_be_described(compress: Run) -> None:
    for entry in json.loads(compress("methods", "--json")[1]):
        code, out, _ = compress("methods", entry["name"])
        assert code == 0
        assert entry["paper"] in out
    code, _, err = compress("methods", "rigel")
    assert code == 2
    assert "Did you mean 'rigl'?" in one_line(err)


def test_a_diverging_training_says_at_which_step(compress: Run) -> None:
    code, _, err = compress(*PRUNE[:-1], "4", "--learning-rate", "1e30", "-o", "run")
    assert code == 1
    assert "step" in one_line(err)
    assert not Path("run/checkpoint.safetensors").exists()


def test_a_model_that_fails_in_training_is_one_line(compress: Run) -> None:
    Path("fragile.py").write_text(
        "from torch import nn\n"
        "class Net(nn.Linear):\n"
        "    def forward(self, x):\n"
        "        if self.training:\n"
        "            raise ValueError('not today')\n"
        "        return super().forward(x.flatten(1))\n"
        "def build():\n"
        "    return Net(64, 10)\n"
    )
    code, _, err = compress("prune", "fragile.py:build", *PRUNE[2:], "-o", "run")
    assert code == 1
    assert "step 0" in err and "ValueError: not today" in one_line(err)


def test_a_full_disk_leaves_nothing_behind(finished: Path, tmp_path: Path) -> None:
    def small_files_only() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096))

    for name in ("packed", "csr", "onnx"):
        out = tmp_path / f"{name}.out"
        words = ["export", str(finished / "run"), "--to", name, "-o", str(out)]
        done = subprocess.run([*COMMAND, *words], preexec_fn=small_files_only, capture_output=True, text=True)
        assert done.returncode == 1
        assert str(out) in one_line(done.stderr)
        assert list(tmp_path.iterdir()) == []


def test_ctrl_c_keeps_what_is_done_and_the_command_goes_on(finished: Path, tmp_path: Path) -> None:
    words = [*COMMAND, *PRUNE[:-1], "60", "-o", str(tmp_path / "run")]
    process = subprocess.Popen(words, stderr=subprocess.PIPE, text=True, start_new_session=True)
    log = tmp_path / "run" / "log.jsonl"
    while process.poll() is None and not (log.exists() and log.stat().st_size > 200):
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGINT)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 130
    assert "interrupted" in err and "Traceback" not in err
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    subprocess.run(words, check=True, capture_output=True)
    fresh = [*COMMAND, *PRUNE[:-1], "60", "-o", str(tmp_path / "fresh")]
    subprocess.run(fresh, check=True, capture_output=True)
    name = "checkpoint.safetensors"
    assert (tmp_path / "run" / name).read_bytes() == (tmp_path / "fresh" / name).read_bytes()


def test_an_onnx_file_is_pruned_in_place(compress: Run) -> None:
    draw = np.random.default_rng(0)
    weights = {"w1": draw.normal(size=(8, 32)).astype(np.float32), "w2": draw.normal(size=(32, 4)).astype(np.float32)}
    graph = helper.make_graph(
        [
            helper.make_node("MatMul", ["x", "w1"], ["h"]),
            helper.make_node("Relu", ["h"], ["r"]),
            helper.make_node("MatMul", ["r", "w2"], ["y"]),
        ],
        "third-party",
        [helper.make_tensor_value_info("x", TensorProto.FLOAT, ["n", 8])],
        [helper.make_tensor_value_info("y", TensorProto.FLOAT, ["n", 4])],
        [numpy_helper.from_array(array, name) for name, array in weights.items()],
    )
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8, producer_name="other")
    onnx.save(model, "given.onnx")
    assert compress("prune", "given.onnx", "--method", "magnitude", "--sparsity", "0.8", "-o", "run")[0] == 0
    assert compress("export", "run", "--to", "onnx", "-o", "pruned.onnx")[0] == 0
    pruned = onnx.load("pruned.onnx")
    kept = 0
    for tensor in pruned.graph.initializer:
        array = numpy_helper.to_array(tensor)
        mask = array != 0
        np.testing.assert_array_equal(array[mask], weights[tensor.name][mask])
        kept += int(mask.sum())
        tensor.CopyFrom(numpy_helper.from_array(weights[tensor.name], tensor.name))
    assert kept == 384 - round(0.8 * 384)
    assert pruned.SerializeToString() == model.SerializeToString()
    assert compress("measure", "pruned.onnx", "--baseline", "given.onnx", "--time-budget", "0.1")[0] == 0
