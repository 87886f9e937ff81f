"""Dry runs: what is predicted before training is held against what the same run comes to."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import pytest

from sparsepack.cli import run as command
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe, single_run
from sparsepack.errors import UnsupportedError
from sparsepack.exporters import export
from sparsepack.models.flops import layer_macs
from sparsepack.models.source import TorchSource, load_source
from sparsepack.runtimes import job, rehearsal
from sparsepack.runtimes.job_prediction import PREDICTION, predict
from sparsepack.runtimes.rehearsal import by_artifact, held_against, rehearse

LENET = "lenet-300-100"


@pytest.mark.parametrize("sparsity", [0.5, 0.9])
def test_bytes_are_predicted_within_two_percent_of_a_trained_network(sparsity: float, tmp_path: Path) -> None:
    recipe = single_run(
        None,
        LENET,
        data="digits",
        method="magnitude",
        sparsity=sparsity,
        epochs=10,
        fine_tune_epochs=1,
        batch_size=64,
        threads=1,
    )
    found = rehearse(recipe, [("packed", "fp32"), ("onnx", "fp32")], threads=1, seconds=0)
    assert found.sparsity == pytest.approx(sparsity, abs=1e-4)
    checkpoint = prune(recipe, tmp_path / "run")
    for artifact in found.artifacts:
        assert artifact.bytes is not None
        size = export(checkpoint, artifact.format, tmp_path / artifact.format).size
        assert size == pytest.approx(artifact.bytes, rel=0.02), artifact.format


def test_a_short_training_is_predicted_to_stay_near_its_seed(tmp_path: Path) -> None:
    options: dict[str, Any] = {"data": "digits", "learning_rate": 0.01, "batch_size": 64, "threads": 1}
    recipe = single_run(None, LENET, method="magnitude", sparsity=0.5, epochs=3, **options)
    found = rehearse(recipe, [("packed", "fp32")], threads=1, seconds=0)
    size = export(prune(recipe, tmp_path / "run"), "packed", tmp_path / "a.spk").size
    assert found.artifacts[0].bytes == pytest.approx(size, rel=0.02)
    # Told from their seed, the same weights take far fewer bytes than any that moved as far as they are large.
    far = rehearse(single_run(None, LENET, method="magnitude", sparsity=0.5, epochs=100, **options), seconds=0)
    assert far.artifacts[0].bytes is not None
    assert far.artifacts[0].bytes > 1.05 * size


def test_a_rate_at_which_the_training_diverges_is_said_and_the_rest_predicted() -> None:
    recipe = single_run(
        None, LENET, data="digits", method="magnitude", sparsity=0.9, epochs=10, learning_rate=1e9, threads=1
    )
    found = rehearse(recipe, [("packed", "fp32")], threads=1, seconds=0)
    assert found.artifacts[0].bytes
    assert any("diverges at the rate 1e+09" in text for text in found.assumptions)


def test_multiply_adds_are_those_of_the_network_and_nothing_takes_long() -> None:
    recipe = single_run(None, LENET, data="digits", method="rigl", sparsity=0.8, epochs=5000, threads=1)
    found = rehearse(recipe, [("onnx", "fp32")], threads=1, seconds=0.05)
    source = load_source(LENET, options={"input_shape": [1, 8, 8], "classes": 10})
    assert isinstance(source, TorchSource)
    counts = layer_macs(source.build(), source.example_inputs(2))
    assert found.macs is not None
    assert found.macs["dense"] == sum(counts.values())
    # In a fully connected network every weight is used once.
    assert found.macs["kept"] == pytest.approx(0.2 * sum(counts.values()), rel=1e-3)
    assert found.artifacts[0].latency["onnxruntime-cpu"] > 0
    assert any("magnitude stands in for rigl" in text for text in found.assumptions)


def test_weights_that_a_model_brings_stand_for_themselves(tmp_path: Path) -> None:
    trained = single_run(None, LENET, data="digits", method="dense", epochs=1, batch_size=256, threads=1)
    prune(trained, tmp_path / "dense")
    path = tmp_path / "dense" / "checkpoint.safetensors"
    recipe = single_run(None, str(path), data="none", method="magnitude", sparsity=0.9, threads=1)
    found = rehearse(recipe, [("packed", "fp32")], threads=1, seconds=0)
    checkpoint = prune(recipe, tmp_path / "run")
    size = export(checkpoint, "packed", tmp_path / "a.spk").size
    # Nothing was assumed, so only what the recipe says about itself may differ.
    assert found.artifacts[0].bytes == pytest.approx(size, abs=64)
    assert not any("trained weights" in text for text in found.assumptions)


@pytest.mark.parametrize("init", ["kaiming-normal", "xavier-normal", None])
def test_a_run_that_trains_nothing_is_predicted_from_its_own_weights(init: str | None, tmp_path: Path) -> None:
    recipe = single_run(None, LENET, data="none", method="magnitude", sparsity=0.9, seed=3, threads=1)
    recipe = msgspec.structs.replace(recipe, init=init)
    found = rehearse(recipe, [("packed", "fp32"), ("onnx", "fp32")], threads=1, seconds=0)
    checkpoint = prune(recipe, tmp_path / "run")
    for artifact in found.artifacts:
        size = export(checkpoint, artifact.format, tmp_path / artifact.format).size
        assert artifact.bytes == pytest.approx(size, abs=160), artifact.format
    assert any("nothing is trained" in text for text in found.assumptions)


def test_what_only_its_training_shows_is_not_predicted() -> None:
    recipe = single_run(None, LENET, data="digits", method="freezenet", sparsity=0.9, epochs=1, threads=1)
    with pytest.raises(UnsupportedError, match="only shows in its training"):
        rehearse(recipe)


def test_a_format_that_cannot_hold_it_is_said_and_the_rest_predicted() -> None:
    recipe = single_run(None, LENET, data="digits", method="magnitude", sparsity=0.9, epochs=1, threads=1)
    found = rehearse(recipe, [("nm", "fp32"), ("packed", "fp32")], threads=1, seconds=0)
    assert found.artifacts[0].bytes is None
    assert "N:M" in found.artifacts[0].unavailable["export"]
    assert found.artifacts[1].bytes


def recipe_file(folder: Path) -> Path:
    content: dict[str, Any] = {
        "version": 1,
        "model": LENET,
        "data": "digits",
        "threads": 1,
        "train": {"epochs": 1, "batch_size": 256},
        "runs": [{"name": "sparse", "method": "magnitude", "sparsity": 0.9, "export": [{"format": "packed"}]}],
        "measure": {"time_budget": 0.05},
    }
    path = folder / "recipe.yaml"
    path.write_text(json.dumps(content))
    return path


def test_a_job_reports_what_became_of_its_prediction(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "_SECONDS", 0.05)
    recipe = load_recipe(recipe_file(tmp_path))
    out = tmp_path / "out"
    assert list(predict(recipe, out)) == ["sparse"]
    assert [path.name for path in out.iterdir()] == [PREDICTION]
    assert list(by_artifact(out / PREDICTION)) == ["sparse/packed"]
    record = job.run(recipe, out)
    notes = " ".join(record["artifacts"][0]["notes"])
    assert "predicted before the training: " in notes
    assert " bytes (it came to " in notes


def test_held_against_by_hand(tmp_path: Path) -> None:
    predictions = {"a/onnx": {"bytes": 1000, "latency": {"onnxruntime-cpu": 2.0, "torch-cpu": 1.0}}}
    artifact = {
        "artifact": "a/onnx",
        "storage": {"bytes": 1010},
        "latency": {"onnxruntime-cpu": {"median_ms": 1.9}, "torch-cpu": {"unavailable": "no"}},
    }
    expected = (
        "predicted before the training: 1,000 bytes (it came to +1.0 %); 2 ms on onnxruntime-cpu (it came to -5.0 %)."
    )
    assert held_against(predictions, artifact) == [expected]
    assert held_against({}, artifact) == []
    assert by_artifact(tmp_path / "none.json") == {}
    (tmp_path / "other.json").write_text("[1]")
    assert by_artifact(tmp_path / "other.json") == {}


def test_the_commands(tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rehearsal, "FORMATS", (("packed", "fp32"),))
    arguments = ["prune", LENET, "--data", "digits", "--method", "magnitude", "--sparsity", "0.9", "--threads", "1"]
    assert command([*arguments, "--dry-run"]) == 0
    shown = capsys.readouterr().out
    assert "multiply-adds of an example dense" in shown
    assert "90.0 %" in shown
    assert command(arguments) == 2
    assert "Missing option '-o'" in capsys.readouterr().err
    assert command(["run", str(recipe_file(tmp_path)), "-o", str(tmp_path / "out"), "--dry-run"]) == 0
    assert "sparse/packed" in capsys.readouterr().out
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [PREDICTION]
