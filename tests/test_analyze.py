"""``compress analyze`` on small runs: the record against the files it is of, the figures, every mistake in a line."""

import json
import re
import shutil
import xml.etree.ElementTree as ElementTree
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack import cli
from sparsepack.compressor.analysis.runs import short_names
from sparsepack.compressor.training.tape import Tape
from sparsepack.errors import UsageError
from sparsepack.runtimes.report.analysis_figures import by_file

TRAIN = "{epochs: 1, batch_size: 16, learning_rate: 0.05, momentum: 0.0, weight_decay: 0.0, rate_schedule: constant}"
RECIPE = """version: 1
model: MODEL
data: npz:DATA
threads: 1
train: TRAIN
runs:
  - {name: run, method: METHOD, sparsity: 0.36, structure: STRUCTURE, options: {OPTIONS}}
"""
# Folder -> model, method, structure, options.
RUNS = {
    "weights": ("lenet-s4", "local-ticket", "element", "keep_rounds: true"),
    "inputs": ("lenet-s4", "local-ticket", "input-channel", "keep_rounds: true, kept: finetune"),
    "signs": ("lenet-s4", "local-ticket", "hybrid", "keep_rounds: true, kept: sign-sigma"),
    "plain": ("lenet-s4", "lottery-ticket", "element", ""),
    "other": ("lenet-300-100", "lottery-ticket", "element", "keep_rounds: true"),
    "own": ("net.py:build", "lottery-ticket", "element", "keep_rounds: true"),
    "frozen": ("lenet-s4", "freezenet", "element", ""),
}
NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(100, 8), nn.ReLU(), nn.Linear(8, 4))\n"
)

Analyze = Callable[..., tuple[int, str, str]]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with every run of :data:`RUNS`."""
    folder = tmp_path_factory.mktemp("analyze")
    numbers = np.random.default_rng(0)
    labels = np.arange(32) % 4
    images = (numbers.standard_normal((32, 1, 10, 10)) + labels[:, None, None, None]).astype(np.float32)
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    np.savez(folder / "again.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    (folder / "net.py").write_text(NETWORK)
    for name, (model, method, structure, options) in RUNS.items():
        text = RECIPE.replace("OPTIONS", options).replace("METHOD", method).replace("STRUCTURE", structure)
        text = text.replace("MODEL", str(folder / model) if ".py" in model else model).replace("TRAIN", TRAIN)
        (folder / "recipe.yaml").write_text(text.replace("DATA", str(folder / "data.npz")))
        init = ["--init", "uniform"] if ".py" in model else []
        assert cli.run(["prune", "--recipe", str(folder / "recipe.yaml"), *init, "-o", str(folder / name)]) == 0
    return folder


@pytest.fixture
def analyze(place: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Analyze:
    monkeypatch.chdir(place)

    def run(*words: str) -> tuple[int, str, str]:
        capsys.readouterr()
        code = cli.run(["analyze", *words])
        out, err = capsys.readouterr()
        return code, out, err

    return run


def record_of(analyze: Analyze, *words: str) -> dict[str, Any]:
    code, out, err = analyze(*words, "--json")
    assert code == 0, err
    record: dict[str, Any] = json.loads(out)
    return record


def masks_of(folder: Path, number: int) -> dict[str, Any]:
    state = Tape(folder / "tape").read(f"round-{number}")
    return {name[5:]: array.astype(bool) for name, array in state.items() if name.startswith("mask:")}


def test_the_record_is_what_the_files_hold(analyze: Analyze, place: Path) -> None:
    record = record_of(analyze, "weights", "inputs", "signs", "--ensemble", "inputs,signs")
    assert record["schema"] == "sparsepack.analysis/1"
    assert record["rounds"] == [0, 1, 2] and record["iteration"] == 2 and record["reference"] == "weights"
    first, second = masks_of(place / "weights", 2), masks_of(place / "inputs", 2)
    for name, distances in record["distances"]["inputs"].items():
        union = (first[name] | second[name]).sum()
        assert distances[0] == 0
        assert distances[2] == pytest.approx(1 - (first[name] & second[name]).sum() / union)
    run = record["runs"][0]
    assert [row["kept"] for row in run["rounds"]] == [
        run["total"],
        *(kept(masks_of(place / "weights", n)) for n in (1, 2)),
    ]
    overlap = np.array(record["overlap"]["matrix"])
    np.testing.assert_array_equal(overlap, overlap.T)
    assert not overlap.diagonal().any() and (overlap[np.triu_indices(3, 1)] > 0).all()
    agreement = np.array(record["agreement"]["matrix"])
    assert (agreement.diagonal() == record["agreement"]["examples"]).all()
    assert [group["names"] for group in record["ensembles"]] == [["weights", "inputs", "signs"], ["inputs", "signs"]]
    # Every round that the log measured.
    logged = [json.loads(line) for line in (place / "inputs/log.jsonl").read_text().splitlines()]
    accuracies = [event["accuracy"] for event in logged if event["event"] == "stage"]
    assert [row["accuracy"] for row in record["runs"][1]["rounds"]] == accuracies
    assert all(row["live"] <= row["kept"] for run in record["runs"] for row in run["rounds"])
    assert all(0 <= row["unchanged"] < row["kept"] for run in record["runs"] for row in run["rounds"])


def kept(masks: dict[str, Any]) -> int:
    return sum(int(mask.sum()) for mask in masks.values())


def test_stability_is_that_of_the_tape(analyze: Analyze, place: Path) -> None:
    found = record_of(analyze, "inputs")["runs"][0]["stability"]["fc1.weight"]["mean_change"]
    states = [Tape(place / "inputs/tape").read(f"round-{n}")["fc1.weight"] for n in range(3)]
    masks = [masks_of(place / "inputs", n)["fc1.weight"] for n in (1, 2)]
    changes = [np.abs(states[n + 1][mask] - states[n][mask]).astype(np.float64).mean() for n, mask in enumerate(masks)]
    assert found == pytest.approx(np.mean(changes), rel=1e-5)


def test_unchanged_weights_know_what_a_round_began_with(analyze: Analyze, place: Path) -> None:
    """Nothing trained leaves everything as it was, whatever the weights are set back to."""
    for name, options in (("rewind", ""), ("signed", "kept: sign-sigma, "), ("tuned", "kept: finetune, ")):
        text = RECIPE.replace("OPTIONS", options + "keep_rounds: true").replace("METHOD", "local-ticket")
        text = text.replace("STRUCTURE", "element").replace("MODEL", "lenet-s4").replace("learning_rate: 0.05", "")
        text = text.replace("TRAIN", TRAIN.replace("0.05", "1.0e-30")).replace("DATA", str(place / "data.npz"))
        (place / "still.yaml").write_text(text)
        assert cli.run(["prune", "--recipe", str(place / "still.yaml"), "-o", str(place / "still" / name)]) == 0
        rounds = record_of(analyze, f"still/{name}")["runs"][0]["rounds"]
        assert [row["unchanged"] for row in rounds] == [row["kept"] for row in rounds]


def test_runs_without_rounds_are_looked_at_in_the_end(analyze: Analyze) -> None:
    record = record_of(analyze, "plain", "weights/checkpoint.safetensors", "--data", "npz:data.npz")
    assert [len(run["rounds"]) for run in record["runs"]] == [1, 1]
    assert record["iteration"] is None and record["agreement"] is not None
    assert any("plain holds no rounds" in note and "keep_rounds=true" in note for note in record["notes"])
    code, out, _ = analyze("plain", "weights/checkpoint.safetensors", "--data", "npz:data.npz")
    assert code == 0 and "note: plain holds no rounds" in out


def test_collapse_is_told_with_its_rounds(analyze: Analyze, place: Path, tmp_path: Path) -> None:
    shutil.copytree(place / "weights", tmp_path / "weights")
    tape = Tape(tmp_path / "weights/tape")
    for number in (1, 2):
        state = tape.read(f"round-{number}")
        tape.record(f"round-{number}", {n: np.zeros_like(a) if "fc2" in n else a for n, a in state.items()})
    _, out, _ = analyze(str(tmp_path / "weights"))
    assert "warning: weights: 'fc2.weight' keeps no weight from round 1 on." in out
    assert "no kept weight of 'fc1.weight' leads to an output from round 1 on." in out
    assert re.search(r"every prediction is class \d from round 1 on\.", out)


def test_a_network_of_the_users_is_run_only_when_named(analyze: Analyze) -> None:
    record = record_of(analyze, "own")
    assert record["runs"][0]["rounds"][0]["accuracy"] is None and "--model" in record["notes"][0]
    assert record_of(analyze, "own", "--model", "net.py:build")["runs"][0]["rounds"][0]["accuracy"] is not None


def test_a_frozen_part_is_not_dead(analyze: Analyze) -> None:
    record = record_of(analyze, "frozen")
    assert record["runs"][0]["rounds"][0]["live"] is None
    assert "the masks of frozen say what is trained; the rest is frozen, not removed." in record["notes"]


def test_an_onnx_file_is_compared_by_its_masks(analyze: Analyze, place: Path) -> None:
    onnx = str(place / "own.onnx")
    assert cli.run(["export", "own", "--to", "onnx", "--model", "net.py:build", "-o", onnx]) == 0
    for sparsity in ("0.5", "0.7"):
        words = ["prune", onnx, "--method", "magnitude", "--sparsity", sparsity, "-o", str(place / f"onnx-{sparsity}")]
        assert cli.run(words) == 0
    record = record_of(analyze, "onnx-0.5", "onnx-0.7")
    assert "the runs are of an ONNX file, so only their masks and weights are compared." in record["notes"]
    # One mask lies within the other.
    kept_weights = [run["rounds"][0]["kept"] for run in record["runs"]]
    assert record["overlap"]["matrix"][0][1] == pytest.approx(1 - kept_weights[1] / kept_weights[0])


def test_sensitivity_grows_from_nothing(analyze: Analyze) -> None:
    code, out, err = analyze("weights", "--sensitivity")
    assert code == 0, err
    assert "sensitivity of weights" in out
    found = record_of(analyze, "weights", "--sensitivity")["sensitivity"]["weights"]
    assert set(found) == {"", "conv1.weight", "conv2.weight", "fc1.weight", "fc2.weight", "fc3.weight"}
    assert [row["sparsity"] for row in found["fc1.weight"]] == [0.5, 0.8, 0.9, 0.95]
    changes = [abs(row["loss"] - found[""][0]["loss"]) for row in found["fc2.weight"]]
    assert 0 < changes[0] < changes[-1]


def test_figures_of_names_that_only_differ_in_other_letters_do_not_overwrite_each_other() -> None:
    figures = {"evolution-größe-fc": "1", "evolution-grüße-fc": "2", "evolution-gr-e-fc-2": "3", "masks": "4"}
    assert by_file(figures) == {
        "evolution-gr-e-fc.svg": "1",
        "evolution-gr-e-fc-2.svg": "2",
        "evolution-gr-e-fc-2-2.svg": "3",
        "masks.svg": "4",
    }


def test_tables_and_figures(analyze: Analyze, tmp_path: Path) -> None:
    words = ["weights", "inputs", "signs", "--figures", str(tmp_path / "figures")]
    code, out, err = analyze(*words)
    assert code == 0, err
    for title in (
        "runs at round 2",
        "test accuracy by round",
        "kept weights by layer at round 2",
        "Jaccard distance from the masks of weights at round 2",
        "equal predictions of 8 test examples at round 2",
        "ensembles at round 2",
        "stability from round to round",
        "Pareto front",
    ):
        assert title in out
    assert max(map(len, out.splitlines()[:-1])) <= 100
    written = {path.name for path in (tmp_path / "figures").iterdir()}
    assert {
        "accuracy.svg",
        "effective-sparsity.svg",
        "pareto.svg",
        "agreement.svg",
        "overlap.svg",
        "jaccard-conv2.svg",
        "masks-conv2.svg",
        "evolution-inputs-fc3.svg",
    } <= written
    for path in (tmp_path / "figures").iterdir():
        ElementTree.parse(path)
        assert not re.search(r"nan|inf\b", re.sub(r"base64,[^\"]*", "", path.read_text()))
    code, _, err = analyze(*words)
    assert code == 2 and "--force" in err
    before = {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}
    assert analyze(*words, "--force")[0] == 0
    assert before == {path.name: path.read_bytes() for path in (tmp_path / "figures").iterdir()}


@pytest.mark.parametrize(
    ("words", "code", "message"),
    [
        (["weights", "other"], 2, "weights and other are runs of different networks: 'conv1.weight' is 6x1x3x3 in the"),
        (["weights", "nothing"], 2, "no checkpoint at nothing"),
        (["weights", "weights"], 2, "weights is given twice"),
        (["weights", "--reference", "weihgts"], 2, "Did you mean 'weights'?"),
        (["weights", "--ensemble", "weights,input"], 2, "unknown run 'input'"),
        (["weights", "--iteration", "3"], 2, "iteration 3 is not there: the runs have rounds 0 to 2 in common"),
        (["plain", "--iteration", "1"], 2, "the runs have no round in common"),
        (["weights", "--data", "digits"], 1, "'lenet-s4' takes"),
        (["own", "--sensitivity"], 2, "--model"),
        (["weights", "moved"], 2, "different data"),
        (["gap"], 1, "lacks round 1, and has round 2"),
        (["weights/recipe.yaml"], 1, "recipe.yaml"),
    ],
)
def test_a_mistake_is_one_line(analyze: Analyze, place: Path, words: list[str], code: int, message: str) -> None:
    if "moved" in words:
        shutil.copytree(place / "signs", place / "moved", dirs_exist_ok=True)
        recipe = place / "moved/recipe.yaml"
        recipe.write_text(recipe.read_text().replace("data.npz", "again.npz"))
    if "gap" in words:
        shutil.copytree(place / "signs", place / "gap", dirs_exist_ok=True)
        (place / "gap/tape/round-1.safetensors").unlink(missing_ok=True)
    got, _, err = analyze(*words)
    assert got == code, err
    assert err.startswith("compress: error: ") and err.count("\n") == 1
    assert message in err


def test_names_are_as_short_as_they_can_be() -> None:
    assert short_names([Path("a/x/run"), Path("a/y/run")]) == ["x/run", "y/run"]
    assert short_names([Path("a/x"), Path("b/y")]) == ["x", "y"]
    with pytest.raises(UsageError, match="given twice"):
        short_names([Path("a"), Path("./a")])


def test_a_run_that_no_figure_can_be_drawn_of_says_so(analyze: Analyze, place: Path, tmp_path: Path) -> None:
    run = tmp_path / "flat"
    words = ["prune", "lenet-300-100", "--data", "none", "--method", "magnitude", "--sparsity", "0.9", "-o", str(run)]
    assert cli.run([*words, "--epochs", "0"]) == 0
    code, out, _ = analyze(str(run), "--figures", str(tmp_path / "figures"))
    assert code == 0
    assert "no figures" in out
    assert not (tmp_path / "figures").exists()
