"""A whole recipe: what it writes, that it is the same twice and after any kill, and what it refuses before any work."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from records import record as complete_record

from sparsepack import files
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import PruneRecipe, load_recipe
from sparsepack.errors import (
    OutputExistsError,
    RecipeError,
    SparsepackError,
    TrainingDivergedError,
    UnknownNameError,
    UsageError,
)
from sparsepack.exporters import open_artifact, packed
from sparsepack.runtimes import job, job_runs
from sparsepack.runtimes.job_plan import baseline_of, plan_products, plan_requirements
from sparsepack.runtimes.measure.gates import verdict
from sparsepack.runtimes.measure.reading import read_record


@pytest.fixture(autouse=True)
def own_cache(monkeypatch: pytest.MonkeyPatch, tmp_path_factory: pytest.TempPathFactory) -> None:
    monkeypatch.setenv("SPARSEPACK_CACHE", str(tmp_path_factory.mktemp("cache")))


def recipe_data(**changes: Any) -> dict[str, Any]:
    data: dict[str, Any] = {
        "version": 1,
        "model": "lenet-300-100",
        "data": "digits",
        "threads": 1,
        "train": {"epochs": 1},
        "runs": [
            {"name": "dense", "method": "dense", "export": [{"format": "csr"}]},
            {
                "name": "pruned",
                "method": "magnitude",
                "sparsity": 0.9,
                "fine_tune": {"epochs": 1, "learning_rate": 0.1},
                "export": [{"format": "packed"}, {"format": "packed", "values": "fp16"}, {"format": "csr"}],
            },
        ],
        "measure": {"runtimes": ["scipy-csr-cpu"], "time_budget": 0.05},
    }
    return {**data, **changes}


def fake_record(artifacts: list[Path], **options: Any) -> dict[str, Any]:
    """Stand in for measuring, which the tests of resuming need not wait for."""
    names = options["names"]
    whole = complete_record()
    whole["requirements"] = []
    template = whole["artifacts"][0]
    template["storage"]["size_ratio"] = 5.0
    whole["artifacts"] = [
        {**template, "artifact": names[path], "sha256": open_artifact(path).sha256} for path in artifacts
    ]
    return whole


@pytest.fixture
def unmeasured(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job, "measure", fake_record)


def results(out: Path) -> dict[str, str]:
    """Return the SHA-256 of everything that must not depend on when or how often the job was stopped."""
    wanted = [path for path in out.rglob("*") if path.suffix in (".safetensors", ".spk", ".onnx")]
    wanted += [out / "manifest.json", *out.glob("*/exports.json"), *out.rglob("recipe.yaml")]
    return {str(path.relative_to(out)): hashlib.sha256(path.read_bytes()).hexdigest() for path in wanted}


def leftovers(out: Path) -> list[Path]:
    return [path for path in out.rglob(".*") if path.name != ".lock"]


def test_a_job_writes_everything_and_measures_it(tmp_path: Path) -> None:
    requirements = [
        "storage.bytes<=100000",
        {"run": "pruned", "format": "packed", "expression": "storage.size_ratio>=8"},
        {"run": "pruned", "expression": "accuracy.value>=2"},
    ]
    data = recipe_data()
    data["measure"]["require"] = requirements
    record = job.run(load_recipe(data), tmp_path / "out")
    names = [entry["artifact"] for entry in record["artifacts"]]
    assert names == ["dense/csr", "pruned/packed", "pruned/packed-fp16", "pruned/csr"]
    assert json.loads((tmp_path / "out" / "measurement.json").read_text()) == record

    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    for run, entry in manifest["runs"].items():
        folder = tmp_path / "out" / run
        assert entry["checkpoint"] == files.sha256_file(folder / "checkpoint.safetensors")
        state = SparseCheckpoint.load(folder / "checkpoint.safetensors").dense_state()
        assert entry["tensors"] == {name: files.sha256_array(value) for name, value in state.items()}
        for name, artifact in entry["artifacts"].items():
            assert artifact["sha256"] == files.sha256_file(folder / name)
            assert artifact["bytes"] == (folder / name).stat().st_size

    by_name = {entry["artifact"]: entry for entry in record["artifacts"]}
    pruned = by_name["pruned/csr"]
    assert pruned["storage"]["sparsity"] == pytest.approx(0.9, abs=1e-4)
    assert pruned["latency"]["scipy-csr-cpu"]["median_ms"] > 0
    assert pruned["parity"]["error"] < 1e-4
    assert by_name["pruned/packed"]["parity"]["error"] == 0.0
    assert pruned["accuracy"]["value"] == by_name["pruned/packed"]["accuracy"]["value"] > 0.5
    assert pruned["training"]["trained_parameters"] == pruned["storage"]["nonzero"] + 300 + 100 + 10
    assert pruned["training"]["seconds"] > 0
    assert by_name["pruned/packed"]["latency"]["scipy-csr-cpu"]["unavailable"].startswith("it runs the format 'csr'")

    met = {(entry["expression"], entry["artifact"]): entry["met"] for entry in record["requirements"]}
    assert len(met) == 4 + 2 + 3
    assert met["storage.bytes<=100000", "pruned/csr"] is True
    assert met["storage.bytes<=100000", "dense/csr"] is False
    assert met["storage.size_ratio>=8", "pruned/packed"] is True
    assert met["accuracy.value>=2", "pruned/packed"] is False
    assert not verdict(record)


def test_a_finished_job_is_not_done_again(tmp_path: Path, unmeasured: None, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = load_recipe(recipe_data())
    first = job.run(recipe, tmp_path / "out")
    before = {path: path.stat().st_mtime_ns for path in (tmp_path / "out").rglob("*.safetensors")}

    def refuse(*arguments: Any, **options: Any) -> Any:
        raise AssertionError("done again")

    monkeypatch.setattr(job_runs, "export", refuse)
    monkeypatch.setattr(job, "measure", refuse)
    assert job.run(recipe, tmp_path / "out") == first
    assert {path: path.stat().st_mtime_ns for path in before} == before


def test_two_jobs_give_the_same_bytes(tmp_path: Path, unmeasured: None) -> None:
    recipe = load_recipe(recipe_data())
    job.run(recipe, tmp_path / "one")
    job.run(recipe, tmp_path / "deep" / "two")
    assert results(tmp_path / "one") == results(tmp_path / "deep" / "two")


class Killed(BaseException):
    """Ends a job the way a kill does: nothing catches it."""


@contextlib.contextmanager
def killed_at(write: int, moment: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[list[Path]]:
    """Kill the body before or after its ``write``-th file is put in place; yields the files put in place."""
    original = files.atomic_path
    written: list[Path] = []

    @contextlib.contextmanager
    def deadly(path: Path) -> Iterator[Path]:
        if len(written) == write and moment == "before":
            # What a kill leaves of a write that had begun.
            (path.parent / f".{path.name}.left.partial").write_bytes(b"half")
            raise Killed
        with original(path) as temporary:
            yield temporary
        written.append(path)
        if len(written) == write and moment == "after":
            raise Killed

    with monkeypatch.context() as patch:
        # By either name: a module that was imported before holds the function itself.
        for module in (files, packed):
            patch.setattr(module, "atomic_path", deadly)
        yield written


def test_killed_at_any_write_the_same_call_ends_in_the_same_bytes(
    tmp_path: Path, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = load_recipe(recipe_data())
    with killed_at(10**9, "never", monkeypatch) as written:
        job.run(recipe, tmp_path / "whole")
    expected = results(tmp_path / "whole")
    # After each file, and in the middle of every third; after no write at all is before the first.
    moments = [(write, "after") for write in range(1, len(written))]
    moments += [(write, "before") for write in range(0, len(written), 3)]
    for number, (write, moment) in enumerate(moments):
        out = tmp_path / str(number)
        with killed_at(write, moment, monkeypatch), pytest.raises(Killed):
            job.run(recipe, out)
        job.run(recipe, out)
        assert results(out) == expected, (write, moment, written[write])
        assert leftovers(out) == []


@pytest.mark.slow
def test_a_real_kill_at_random_moments(tmp_path: Path) -> None:
    recipe_file = tmp_path / "recipe.yaml"
    recipe_file.write_text(json.dumps(recipe_data()))
    # Measuring is left out: it writes one file, after everything that must not change.
    program = (
        "import sys; from pathlib import Path; from sparsepack.runtimes import job;"
        "from sparsepack.compressor.recipe import load_recipe;"
        "job.measure = lambda *a, **k: {'artifacts': []};"
        "job.run(load_recipe(Path(sys.argv[1])), Path(sys.argv[2]))"
    )

    def start(out: str) -> subprocess.Popen[bytes]:
        return subprocess.Popen([sys.executable, "-c", program, str(recipe_file), str(tmp_path / out)])

    begin = time.monotonic()
    assert start("whole").wait() == 0
    duration = time.monotonic() - begin
    for share in (0.6, 0.85):
        process = start("killed")
        time.sleep(share * duration)
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert start("killed").wait() == 0
    assert results(tmp_path / "killed") == results(tmp_path / "whole")
    assert leftovers(tmp_path / "killed") == []


@pytest.mark.parametrize("damage", [b"", b"nonsense", None])
def test_a_damaged_or_missing_artifact_is_written_again(tmp_path: Path, unmeasured: None, damage: bytes | None) -> None:
    recipe = load_recipe(recipe_data())
    job.run(recipe, tmp_path / "out")
    expected = results(tmp_path / "out")
    victim = tmp_path / "out" / "pruned" / "packed.spk"
    victim.unlink()
    if damage is not None:
        victim.write_bytes(damage)
    job.run(recipe, tmp_path / "out")
    assert results(tmp_path / "out") == expected


def test_a_changed_checkpoint_is_refused_and_force_begins_anew(tmp_path: Path, unmeasured: None) -> None:
    recipe = load_recipe(recipe_data())
    job.run(recipe, tmp_path / "out")
    expected = results(tmp_path / "out")
    victim = tmp_path / "out" / "pruned" / "checkpoint.safetensors"
    victim.write_bytes(victim.read_bytes()[:-1])
    record = job.run(recipe, tmp_path / "out")
    assert [entry["run"] for entry in record["failed"]] == ["pruned"]
    assert "give --force" in record["failed"][0]["error"]
    assert [entry["artifact"] for entry in record["artifacts"]] == ["dense/csr"]
    job.run(recipe, tmp_path / "out", force=True)
    assert results(tmp_path / "out") == expected


def test_another_recipe_is_refused_and_force_replaces_it(tmp_path: Path, unmeasured: None) -> None:
    out = tmp_path / "out"
    job.run(load_recipe(recipe_data()), out)
    before = results(out)
    other = load_recipe(recipe_data(seed=1))
    with pytest.raises(OutputExistsError, match="holds the job of another recipe; give --force"):
        job.run(other, out)
    assert results(out) == before
    job.run(other, out, force=True)
    job.run(other, tmp_path / "fresh")
    assert results(out) == results(tmp_path / "fresh")
    # It is the new recipe's folder now, which goes on without force.
    job.run(other, out)


def test_other_requirements_are_judged_from_the_record_and_other_measuring_trains_nothing(
    tmp_path: Path, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    data = recipe_data()
    job.run(load_recipe(data), out)
    before = {path: digest for path, digest in results(out).items() if path not in ("recipe.yaml", "manifest.json")}
    monkeypatch.setattr(job_runs, "prune", lambda recipe, folder, **options: trained(folder))
    counted: list[int] = []

    def trained(folder: Path) -> SparseCheckpoint:
        return SparseCheckpoint.load(folder / "checkpoint.safetensors")

    def counting(artifacts: list[Path], **options: Any) -> dict[str, Any]:
        counted.append(1)
        return fake_record(artifacts, **options)

    monkeypatch.setattr(job, "measure", counting)

    for bound, met in ((5, True), (6, False)):
        data["measure"]["require"] = [f"storage.size_ratio>={bound}"]
        record = job.run(load_recipe(data), out)
        assert [entry["met"] for entry in record["requirements"]] == [met] * 4
        assert json.loads((out / "measurement.json").read_text()) == record
        assert f"size_ratio>={bound}" in (out / "recipe.yaml").read_text()
    assert counted == []
    data["measure"]["time_budget"] = 0.06
    job.run(load_recipe(data), out)
    assert counted == [1]
    assert before.items() <= results(out).items()


def test_a_kill_while_other_measuring_is_taken_up_leaves_no_earlier_record(
    tmp_path: Path, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = recipe_data(runs=recipe_data()["runs"][:1])
    job.run(load_recipe(data), tmp_path)
    data["measure"]["time_budget"] = 0.06
    with killed_at(1, "after", monkeypatch) as written, pytest.raises(Killed):
        job.run(load_recipe(data), tmp_path)
    assert [path.name for path in written] == ["recipe.yaml"]
    assert not (tmp_path / "measurement.json").exists()


def test_a_folder_with_other_files_is_left_alone(tmp_path: Path, unmeasured: None) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    with pytest.raises(OutputExistsError, match="is not empty and holds no job"):
        job.run(load_recipe(recipe_data()), tmp_path)
    assert [path.name for path in tmp_path.iterdir() if path.name != ".lock"] == ["thesis.txt"]
    job.run(load_recipe(recipe_data()), tmp_path, force=True)
    assert (tmp_path / "thesis.txt").read_text() == "years of work"


def test_the_recipe_in_the_folder_gives_the_same_job(tmp_path: Path, unmeasured: None) -> None:
    job.run(load_recipe(recipe_data()), tmp_path / "one")
    job.run(load_recipe(tmp_path / "one" / "recipe.yaml"), tmp_path / "two")
    assert results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"export": [{"format": "paked"}]}, UnknownNameError, "unknown format 'paked'. Did you mean 'packed'"),
        ({"export": [{"format": "csr", "values": "fp8"}]}, UnknownNameError, "unknown value type for 'csr' 'fp8'"),
        ({"export": [{"format": "csr"}, {"format": "csr"}]}, RecipeError, "exports csr with fp32 twice"),
    ],
)
def test_an_export_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = recipe_data()
    data["runs"][1].update(change)
    with pytest.raises(error) as caught:
        job.run(load_recipe(data), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("change", "error", "message"),
    [
        ({"baseline": "dense"}, RecipeError, "the baseline run 'dense' exports no onnx artifact"),
        ({"require": ["storage.size_ration>=2"]}, UsageError, "Did you mean 'storage.size_ratio'"),
        ({"require": [{"expression": "storage.bytes>=2", "format": "onnx"}]}, RecipeError, "holds for no artifact"),
        ({"runtimes": ["onnxruntime"]}, UnknownNameError, "Did you mean 'onnxruntime-cpu'"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused_before_any_work(
    tmp_path: Path, change: dict[str, Any], error: type[Exception], message: str
) -> None:
    data = recipe_data()
    data["measure"].update(change)
    with pytest.raises(error) as caught:
        job.run(load_recipe(data), tmp_path / "out")
    assert message in str(caught.value)
    assert not (tmp_path / "out").exists()


def test_a_requirement_without_a_run_leaves_the_baseline_out(tmp_path: Path) -> None:
    data = recipe_data()
    data["runs"][0]["export"] = [{"format": "onnx"}]
    data["measure"] |= {"baseline": "dense", "require": ["storage.size_ratio>=2"]}
    recipe = load_recipe(data)
    products = plan_products(recipe, tmp_path)
    ((_, chosen),) = plan_requirements(recipe, products)
    assert [product.name for product in chosen] == ["pruned/packed", "pruned/packed-fp16", "pruned/csr"]
    baseline = baseline_of(recipe, products)
    assert baseline is not None
    assert baseline.name == "dense/onnx"


@pytest.mark.parametrize("damage", ["{", '{"schema": "sparsepack.measurement/1", "artifacts": [{}]}'])
def test_a_damaged_record_is_measured_anew(tmp_path: Path, unmeasured: None, damage: str) -> None:
    recipe = load_recipe(recipe_data(runs=recipe_data()["runs"][:1]))
    first = job.run(recipe, tmp_path / "out")
    (tmp_path / "out" / "measurement.json").write_text(damage)
    assert job.run(recipe, tmp_path / "out") == first


DIVERGING: dict[str, Any] = {"method": "dense", "train": {"learning_rate": 1e30}, "export": [{"format": "csr"}]}


@pytest.mark.parametrize("jobs", [1, 2])
def test_a_run_that_fails_costs_its_own_artifacts(tmp_path: Path, unmeasured: None, jobs: int) -> None:
    runs = [{**DIVERGING, "name": "first"}, {**DIVERGING, "name": "second"}, recipe_data()["runs"][0]]
    data = recipe_data(runs=runs)
    data["measure"]["require"] = ["storage.size_ratio>=2"]
    record = job.run(load_recipe(data), tmp_path / "out", jobs=jobs)
    assert [entry["artifact"] for entry in record["artifacts"]] == ["dense/csr"]
    assert [entry["run"] for entry in record["failed"]] == ["first", "second"]
    assert all(entry["error"].startswith("the loss ") for entry in record["failed"])
    judged = [(entry["artifact"], entry["met"], entry["reason"]) for entry in record["requirements"]]
    assert judged == [
        ("first/csr", None, "the run 'first' failed"),
        ("second/csr", None, "the run 'second' failed"),
        ("dense/csr", True, None),
    ]
    assert not verdict(record, allow_inconclusive=True)
    data["measure"].pop("require")
    record = job.run(load_recipe(data), tmp_path / "out", jobs=jobs)
    assert not record["requirements"]
    assert not verdict(record)
    assert read_record(tmp_path / "out" / "measurement.json") == record
    assert list(json.loads((tmp_path / "out" / "manifest.json").read_text())["runs"]) == ["dense"]


def test_a_job_whose_runs_all_fail_fails(tmp_path: Path, unmeasured: None) -> None:
    runs = [{**DIVERGING, "name": "first"}, {**DIVERGING, "name": "second"}]
    with pytest.raises(TrainingDivergedError, match=r"^run 'first': the loss .* Failed as well: second\.$"):
        job.run(load_recipe(recipe_data(runs=runs)), tmp_path / "out")


def test_without_the_baselines_run_the_others_are_measured_without_comparing(tmp_path: Path, unmeasured: None) -> None:
    baseline = {**DIVERGING, "name": "yardstick", "export": [{"format": "onnx"}]}
    data = recipe_data(runs=[baseline, recipe_data()["runs"][0]])
    data["measure"] |= {"baseline": "yardstick", "require": ["speedup>=1"]}
    record = job.run(load_recipe(data), tmp_path / "out")
    (artifact,) = record["artifacts"]
    assert artifact["notes"][-1] == "no comparison: the baseline's run 'yardstick' failed."


def count_trained(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the list that the names of runs go into whose folder was not finished when they began."""
    trained: list[str] = []

    def counting(recipe: PruneRecipe, folder: Path, **options: Any) -> SparseCheckpoint:
        if not (folder / "checkpoint.safetensors").exists():
            trained.append(folder.name)
        return prune(recipe, folder, **options)

    monkeypatch.setattr(job_runs, "prune", counting)
    return trained


def test_a_recipe_with_other_runs_keeps_those_that_it_shares(
    tmp_path: Path, unmeasured: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    trained = count_trained(monkeypatch)
    dense, pruned = recipe_data()["runs"]
    first = {**DIVERGING, "name": "first"}
    out = tmp_path / "out"
    job.run(load_recipe(recipe_data(runs=[first, dense])), out)
    assert trained == ["first", "dense"]
    # What failed may get a new name, others may come, an artifact may be written in another format.
    mended = {**first, "name": "mended", "train": {"learning_rate": 0.05}}
    changed = recipe_data(runs=[mended, {**dense, "export": [{"format": "packed"}]}, pruned])
    record = job.run(load_recipe(changed), out)
    assert trained == ["first", "dense", "mended", "pruned"]
    names = ["mended/csr", "dense/packed", "pruned/packed", "pruned/packed-fp16", "pruned/csr"]
    assert [entry["artifact"] for entry in record["artifacts"]] == names
    assert record["failed"] == []
    # The same as what the recipe would have come to alone.
    job.run(load_recipe(changed), tmp_path / "alone")
    alone = results(tmp_path / "alone")
    assert alone.items() <= results(out).items()
    # A run that goes leaves its folder, and the record.
    fewer = job.run(load_recipe(recipe_data(runs=[pruned])), out)
    assert [entry["artifact"] for entry in fewer["artifacts"]] == names[2:]
    assert (out / "dense" / "checkpoint.safetensors").exists()
    assert leftovers(out) == []


def test_a_finished_run_with_other_settings_is_refused_by_name(tmp_path: Path, unmeasured: None) -> None:
    out = tmp_path / "out"
    data = recipe_data()
    job.run(load_recipe(data), out)
    before = results(out)
    data["runs"][1]["sparsity"] = 0.8
    with pytest.raises(OutputExistsError, match="runs with other settings under these names: pruned; give them other"):
        job.run(load_recipe(data), out)
    assert results(out) == before
    shutil.rmtree(out / "pruned")
    job.run(load_recipe(data), out)
    job.run(load_recipe(data), tmp_path / "alone")
    assert results(out) == results(tmp_path / "alone")
    renamed = [{**run, "name": f"{run['name']}-again"} for run in recipe_data()["runs"]]
    with pytest.raises(OutputExistsError, match="holds the job of another recipe"):
        job.run(load_recipe(recipe_data(runs=renamed)), out)


def test_a_process_that_was_killed_is_told_in_a_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(job_runs, "_elsewhere", _ends_at_once)
    with pytest.raises(SparsepackError, match="process was killed, perhaps because memory ran out"):
        job.run(load_recipe(recipe_data()), tmp_path / "out", jobs=2)


def _ends_at_once(task: object, queue: object) -> None:
    os._exit(1)


def test_progress_names_the_run(tmp_path: Path, unmeasured: None) -> None:
    class Watcher:
        stages: list[str] = []  # noqa: RUF012

        def stage(self, title: str, total: int | None = None) -> None:
            self.stages.append(title)

        def advance(self, steps: int = 1) -> None:
            pass

    job.run(load_recipe(recipe_data()), tmp_path / "out", progress=Watcher())
    assert "pruned: export packed" in Watcher.stages
    assert any(title.startswith("dense: ") for title in Watcher.stages)
