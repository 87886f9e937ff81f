"""Killed, interrupted, out of disk or diverged at any moment: nothing is lost, and going on gives the same bytes."""

import errno
import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from sparsepack.compressor import pipeline
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import recipe_text, single_run
from sparsepack.compressor.run_folder import RunFolder, read_log
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.training.resume import Snapshots
from sparsepack.errors import FileFormatError, OutputExistsError, SparsepackError, TrainingDivergedError

# Dropout draws from torch's generator, batch normalisation has statistics and an integer counter.
NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Dropout(0.2),\n"
    "                         nn.Linear(24, 10))\n"
)

RUNS: dict[str, dict[str, Any]] = {
    "dense": {"method": "dense"},
    "dense-adam": {"method": "dense", "optimiser": "adam", "learning_rate": 0.01},
    "magnitude": {"method": "magnitude", "sparsity": 0.8},
    "iterative": {"method": "magnitude", "sparsity": 0.5, "schedule": "iterative", "fine_tune_epochs": 1},
    "gradual": {
        "method": "magnitude",
        "sparsity": 0.8,
        "schedule": "gradual",
        "optimiser": "adamw",
        "method_options": ("update_interval=3",),
    },
    "lottery-ticket": {"method": "lottery-ticket", "sparsity": 0.36, "method_options": ("rewind_step=5",)},
    "early-bird": {"method": "early-bird", "sparsity": 0.5, "method_options": ("window=2", "tolerance=0.5")},
    "prac": {"method": "prac", "sparsity": 0.36, "method_options": ("window=2", "tolerance=0.05", "fewest=1")},
    "dual-ticket": {"method": "dual-lottery-ticket", "sparsity": 0.36, "schedule": "iterative", "rounds": 2},
    "inertial-manifold": {"method": "inertial-manifold", "sparsity": 0.36, "method_options": ("share=0.8",)},
    "snip": {"method": "snip", "sparsity": 0.8},
    "dct-plus-sparse": {"method": "dct-plus-sparse", "sparsity": 0.8},
    "edge-popup": {"method": "edge-popup", "sparsity": 0.5, "init": "signed-constant"},
    "rigl": {"method": "rigl", "sparsity": 0.8, "method_options": ("update_interval=4", "drop_fraction=0.6")},
    "freezenet": {"method": "freezenet", "sparsity": 0.8, "init": "uniform", "optimiser": "adamw"},
}


class KilledError(Exception):
    pass


class Stop:
    """Progress that stops the process, one way or the other, after a number of training steps."""

    def __init__(self, after: int, how: str) -> None:
        self.left, self.how = after, how

    def stage(self, title: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        self.left -= 1
        if self.left == 0:
            if self.how == "interrupt":
                signal.raise_signal(signal.SIGINT)
            else:
                raise KilledError


def recipe_for(folder: Path, name: str, **more: Any) -> PruneRecipe:
    (folder / "net.py").write_text(NETWORK)
    options = {"data": "digits", "epochs": 2, "batch_size": 128, "threads": 1, **RUNS[name], **more}
    return single_run(None, f"{folder / 'net.py'}:build", **options)


def results(run: Path) -> dict[str, bytes]:
    """Every file of a finished run but the log, which holds times."""
    return {
        path.relative_to(run).as_posix(): path.read_bytes()
        for path in sorted(run.rglob("*"))
        if path.is_file() and path.name not in ("log.jsonl", ".lock")
    }


def timeless(run: Path) -> list[dict[str, Any]]:
    return [{k: v for k, v in event.items() if k != "seconds"} for event in read_log(run / "log.jsonl")]


@pytest.mark.parametrize("how", ["interrupt", "kill"])
@pytest.mark.parametrize("name", RUNS)
def test_a_run_that_was_stopped_again_and_again_ends_in_the_same_bytes(tmp_path: Path, name: str, how: str) -> None:
    recipe = recipe_for(tmp_path, name)
    prune(recipe, tmp_path / "whole")
    draw = random.Random(f"{name}{how}")  # noqa: S311 - moments, no secrets
    stops = 0
    while True:
        try:
            # 12 steps an epoch; a snapshot after every step when killed, none but the interrupt's own otherwise.
            prune(
                recipe,
                tmp_path / "parts",
                progress=Stop(draw.randint(2, 17), how),
                snapshot_seconds=0.0 if how == "kill" else 1e9,
            )
            break
        except (KeyboardInterrupt, KilledError):
            stops += 1
    assert stops > 0
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


@pytest.mark.parametrize("name", ["magnitude", "rigl"])
def test_when_snapshots_are_written_changes_nothing(tmp_path: Path, name: str) -> None:
    recipe = recipe_for(tmp_path, name)
    prune(recipe, tmp_path / "often", snapshot_seconds=0.0)
    prune(recipe, tmp_path / "never", snapshot_seconds=1e9)
    assert results(tmp_path / "often") == results(tmp_path / "never")


def test_the_second_interrupt_does_not_wait(tmp_path: Path) -> None:
    class Twice(Stop):
        def advance(self, steps: int = 1) -> None:
            self.left -= 1
            if self.left == 0:
                signal.raise_signal(signal.SIGINT)
                signal.raise_signal(signal.SIGINT)

    recipe = recipe_for(tmp_path, "dense")
    with pytest.raises(KeyboardInterrupt):
        prune(recipe, tmp_path / "run", progress=Twice(9, "interrupt"))
    assert signal.getsignal(signal.SIGINT) is signal.default_int_handler
    found = Snapshots(tmp_path / "run" / "snapshot.safetensors", 1.0).read()
    assert found is not None
    assert found[0].training is None
    prune(recipe, tmp_path / "run")
    prune(recipe, tmp_path / "whole")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


def start(folder: Path, run: Path) -> subprocess.Popen[bytes]:
    code = (
        "import sys\n"
        "from pathlib import Path\n"
        "from sparsepack.compressor.pipeline import prune\n"
        "from sparsepack.compressor.recipe import single_run\n"
        f"prune(single_run(Path({str(folder / 'recipe.yaml')!r}), None), Path({str(run)!r}), snapshot_seconds=0.05)\n"
    )
    return subprocess.Popen([sys.executable, "-c", code], env={**os.environ, "OMP_NUM_THREADS": "1"})


def kill_until_done(tmp_path: Path, name: str, *, epochs: int, kills: int, seed: int) -> None:
    """Kill a run ``kills`` times, let it finish, and compare with one that was left alone."""
    recipe = recipe_for(tmp_path, name, epochs=epochs)
    (tmp_path / "recipe.yaml").write_text(recipe_text(recipe, tmp_path))
    began = time.monotonic()
    whole = start(tmp_path, tmp_path / "whole")
    while not (tmp_path / "whole" / "manifest.json").exists():
        assert whole.poll() is None
        time.sleep(0.01)
    loading = time.monotonic() - began
    assert whole.wait() == 0
    working = time.monotonic() - began - loading
    draw = random.Random(seed)  # noqa: S311
    for _ in range(kills):
        process = start(tmp_path, tmp_path / "parts")
        time.sleep(loading + draw.random() * working)
        process.kill()
        process.wait()
    assert start(tmp_path, tmp_path / "parts").wait() == 0
    assert results(tmp_path / "parts") == results(tmp_path / "whole")
    assert timeless(tmp_path / "parts") == timeless(tmp_path / "whole")


# Every stop between two steps is tested above in one process, for every kind of run. A real kill is tried on one of
# each state that goes on (an optimiser's, rounds and their tape, a mask that moves, two networks); on all where it is
# asked how often.
KILLS = int(os.environ.get("SPARSEPACK_KILLS", "2"))
KILLED = RUNS if "SPARSEPACK_KILLS" in os.environ else ("dense-adam", "lottery-ticket", "dual-ticket", "rigl")


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize("name", KILLED)
def test_a_process_killed_at_random_moments(tmp_path: Path, name: str) -> None:
    kill_until_done(tmp_path, name, epochs=12, kills=KILLS, seed=2)


def test_a_run_goes_on_with_the_number_of_threads_that_it_began_with(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(tmp_path, "dense", threads=None)
    monkeypatch.setattr(pipeline, "available_cores", lambda: 1)
    with pytest.raises(KeyboardInterrupt):
        prune(recipe, tmp_path / "run", progress=Stop(5, "interrupt"))
    monkeypatch.setattr(pipeline, "available_cores", lambda: 2)
    checkpoint = prune(recipe, tmp_path / "run")
    assert checkpoint.metadata.provenance.threads == 1
    assert checkpoint.metadata.recipe["threads"] == 1
    assert prune(recipe, tmp_path / "run").metadata == checkpoint.metadata


def test_on_a_full_disk_the_old_snapshot_stays_and_the_run_goes_on_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recipe = recipe_for(tmp_path, "rigl")
    written = 0
    sync = os.fsync

    def full(descriptor: int) -> None:
        nonlocal written
        written += 1
        # Manifest, recipe, the training's first snapshot and four periodic ones fit.
        if written > 7:
            raise OSError(errno.ENOSPC, "No space left on device")
        sync(descriptor)

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(SparsepackError, match=r"cannot write .*: No space left on device; nothing was changed\."):
        prune(recipe, tmp_path / "run", snapshot_seconds=0.0)
    monkeypatch.setattr(os, "fsync", sync)
    found = Snapshots(tmp_path / "run" / "snapshot.safetensors", 1.0).read()
    assert found is not None
    assert found[0].training is not None
    assert found[0].training["step"] == 4
    assert not list((tmp_path / "run").glob("*.partial"))
    prune(recipe, tmp_path / "run")
    prune(recipe, tmp_path / "whole")
    assert results(tmp_path / "run") == results(tmp_path / "whole")


@pytest.mark.parametrize("seconds", [0.0, 1e9])
def test_a_diverged_run_keeps_its_last_good_state(tmp_path: Path, seconds: float) -> None:
    recipe = recipe_for(tmp_path, "dense", learning_rate=1e30)
    with pytest.raises(TrainingDivergedError, match=r"at step \d+|after step \d+"):
        prune(recipe, tmp_path / "run", snapshot_seconds=seconds)
    found = Snapshots(tmp_path / "run" / "snapshot.safetensors", 1.0).read()
    assert found is not None
    assert all(np.isfinite(array).all() for name, array in found[1].items() if name.startswith("model:"))
    assert not (tmp_path / "run" / "checkpoint.safetensors").exists()
    with pytest.raises(OutputExistsError, match="holds the run of another recipe or model; give --force"):
        prune(recipe_for(tmp_path, "dense"), tmp_path / "run")
    prune(recipe_for(tmp_path, "dense"), tmp_path / "run", force=True)
    assert (tmp_path / "run" / "checkpoint.safetensors").exists()


def test_two_processes_do_not_share_a_folder(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, "dense")
    with (
        RunFolder(tmp_path / "run").lock(),
        pytest.raises(SparsepackError, match=r"another process is running in .*; wait for it"),
    ):
        prune(recipe, tmp_path / "run")
    prune(recipe, tmp_path / "run")


def test_results_of_a_finished_run_that_were_changed_are_not_taken_for_it(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, "snip")
    prune(recipe, tmp_path / "run")
    manifest = json.loads((tmp_path / "run" / "manifest.json").read_text())
    assert manifest["complete"]
    assert set(manifest["files"]) == {"recipe.yaml", "checkpoint.safetensors"}
    file = tmp_path / "run" / "checkpoint.safetensors"
    file.write_bytes(file.read_bytes()[:-1] + b"x")
    with pytest.raises(FileFormatError, match=r"is missing or not what the run wrote; give --force to run it again\."):
        prune(recipe, tmp_path / "run")
    prune(recipe, tmp_path / "run", force=True).verify()


def test_a_manifest_that_cannot_be_read_protects_the_folder(tmp_path: Path) -> None:
    recipe = recipe_for(tmp_path, "snip")
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "manifest.json").write_text("{")
    with pytest.raises(OutputExistsError, match=r"manifest\.json cannot be read"):
        prune(recipe, tmp_path / "run")
    (tmp_path / "run" / "manifest.json").unlink()
    (tmp_path / "run" / "checkpoint.safetensors").write_bytes(b"precious")
    with pytest.raises(OutputExistsError, match="holds a checkpoint but no manifest"):
        prune(recipe, tmp_path / "run")
    assert (tmp_path / "run" / "checkpoint.safetensors").read_bytes() == b"precious"
