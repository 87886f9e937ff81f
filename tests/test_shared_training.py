"""Dense trainings that runs share: the same bytes as without sharing, done once, and never taken for another's."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from sparsepack.compressor import engine
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.run_folder import read_log
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.runtimes import job
from sparsepack.runtimes.job_folder import resolved_text
from sparsepack.runtimes.job_runs import _spread  # how work is spread decides no result, so nothing public shows it


def recipes(*runs: dict[str, Any], **changes: Any) -> list[PruneRecipe]:
    named = [{"name": str(number), **run} for number, run in enumerate(runs)]
    whole = {"version": 1, "model": "lenet-300-100", "data": "digits", "threads": 1, "train": {"epochs": 1}}
    return load_recipe({**whole, "runs": named, **changes}).prune_recipes()


MAGNITUDE = {"method": "magnitude", "sparsity": 0.9, "fine_tune": {"epochs": 1}}
TICKET = {"method": "lottery-ticket", "sparsity": 0.5, "options": {"rewind_step": 3}}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Titles of the trainings that really ran."""
    titles: list[str] = []
    train = engine.Engine._train

    def counted(self: engine.Engine, number: int, stage: Any, *rest: Any) -> None:
        titles.append(stage.title)
        train(self, number, stage, *rest)

    monkeypatch.setattr(engine.Engine, "_train", counted)
    return titles


@pytest.mark.parametrize("run", [MAGNITUDE, TICKET], ids=["magnitude", "lottery-ticket"])
def test_a_shared_training_leads_to_the_same_bytes(run: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    (first, second) = recipes({**run, "sparsity": 0.8}, run)
    prune(second, tmp_path / "alone")
    prune(first, tmp_path / "first", shared=tmp_path / "shared")
    before = len(trained)
    prune(second, tmp_path / "second", shared=tmp_path / "shared")
    assert "training" not in trained[before:]
    alone, second_file = (tmp_path / name / "checkpoint.safetensors" for name in ("alone", "second"))
    assert alone.read_bytes() == second_file.read_bytes()
    tapes = {file.name: file.read_bytes() for file in (tmp_path / "alone").glob("tape/*")}
    assert tapes == {file.name: file.read_bytes() for file in (tmp_path / "second").glob("tape/*")}
    events = [event["event"] for event in read_log(tmp_path / "second" / "log.jsonl")]
    assert [event for event in events if event != "shared"] == [
        event["event"] for event in read_log(tmp_path / "alone" / "log.jsonl")
    ]


def test_buffers_travel_too(tmp_path: Path) -> None:
    (run,) = recipes({**MAGNITUDE, "train": {"epochs": 1, "batch_size": 512}}, model="resnet-20")
    prune(run, tmp_path / "alone")
    prune(run, tmp_path / "first", shared=tmp_path / "shared")
    prune(run, tmp_path / "second", shared=tmp_path / "shared")
    files = {(tmp_path / name / "checkpoint.safetensors").read_bytes() for name in ("alone", "first", "second")}
    assert len(files) == 1


@pytest.mark.parametrize(
    "other",
    [
        {**MAGNITUDE, "seed": 1},
        {**MAGNITUDE, "train": {"learning_rate": 0.05}},
        {**MAGNITUDE, "init": "kaiming-normal"},
        {"method": "snip", "sparsity": 0.9},
        {"method": "soft-threshold-reparametrisation", "sparsity": 0.5},
    ],
    ids=["seed", "settings", "initialisation", "masked", "thresholds"],
)
def test_another_training_is_not_taken_over(other: dict[str, Any], tmp_path: Path, trained: list[str]) -> None:
    first, second = recipes(MAGNITUDE, other)
    prune(first, tmp_path / "first", shared=tmp_path / "shared")
    before = len(trained)
    prune(second, tmp_path / "second", shared=tmp_path / "shared")
    assert trained[before] == "training"


def recipe_of_four(**changes: Any) -> dict[str, Any]:
    return {
        "version": 1,
        "model": "lenet-300-100",
        "data": "digits",
        "threads": 1,
        "train": {"epochs": 1},
        "grid": [
            {**MAGNITUDE, "sparsity": [0.8, 0.9], "seed": [0, 1], "export": [{"format": "packed"}]},
        ],
        "measure": {"runtimes": []},
        **changes,
    }


def test_runs_at_once_give_the_same_bytes_as_one_after_the_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path / "cache"))
    recipe = load_recipe(recipe_of_four())
    for name, jobs in (("one", 1), ("two", 2)):
        job.run(recipe, tmp_path / name, jobs=jobs)
    manifests = [json.loads((tmp_path / name / "manifest.json").read_text())["runs"] for name in ("one", "two")]
    assert manifests[0] == manifests[1]
    assert list(manifests[0]) == ["0.8-0", "0.8-1", "0.9-0", "0.9-1"]
    for name in ("one", "two"):
        logs = {run: read_log(tmp_path / name / run / "log.jsonl") for run in manifests[0]}
        shared = [run for run, events in logs.items() if any(event["event"] == "shared" for event in events)]
        assert len(shared) == 2
        assert not (tmp_path / name / ".shared").exists()


def test_the_first_of_each_training_come_first(tmp_path: Path) -> None:
    from sparsepack.runtimes.job_runs import Task

    found = recipes(*({**MAGNITUDE, "seed": seed, "sparsity": s} for seed in (0, 1) for s in (0.5, 0.6, 0.7)))
    tasks = [Task(str(number), recipe, tmp_path, [], tmp_path) for number, recipe in enumerate(found)]
    assert [task.name for task in _spread(tasks)] == ["0", "3", "1", "4", "2", "5"]


def test_a_failing_run_is_told_and_the_others_stay(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:

    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path / "cache"))
    recipe = load_recipe(recipe_of_four(grid=[{"method": "snip", "sparsity": [0.8, 0.9], "train": {"epochs": 0}}]))
    (tmp_path / "out" / "0.9").mkdir(parents=True)
    (tmp_path / "out" / "0.9" / "checkpoint.safetensors").write_text("somebody's")
    (tmp_path / "out" / "recipe.yaml").write_text(resolved_text(recipe, tmp_path / "out"))
    record = job.run(recipe, tmp_path / "out", jobs=2)
    (failed,) = record["failed"]
    assert failed["run"] == "0.9"
    assert "holds a checkpoint but no manifest" in failed["error"]
    assert (tmp_path / "out" / "0.8" / "checkpoint.safetensors").exists()
