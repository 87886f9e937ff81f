"""Load time and peak memory in a child process: what it measures, and that its death is a sentence, not a crash."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import psutil
import pytest
from checkpoints import assembled

from sparsepack.compressor.checkpoint import (
    make_tensor,
)
from sparsepack.exporters import export
from sparsepack.models.source import InputSpec, ModelRecord
from sparsepack.runtimes.measure import child
from sparsepack.runtimes.measure.memory import Failure, Footprint, _ask, footprint


@pytest.fixture
def artifact(tmp_path: Path) -> Path:
    """Write a chain of one linear layer that came from a user's factory."""
    generator = np.random.default_rng(0)
    dense = generator.standard_normal((50, 20)).astype(np.float32)
    weight = make_tensor("fc.weight", dense, mask=generator.random((50, 20)) < 0.5, record={"role": "prunable"})
    checkpoint = assembled(
        weight,
        model=ModelRecord("factory", "net.py:build", [InputSpec("x", (20,))]),
        chain=[{"op": "linear", "weight": "fc.weight", "bias": None}],
    )
    path = tmp_path / "a.safetensors"
    export(checkpoint, "csr", path)
    return path


def test_the_child_measures_itself_and_not_its_parent(artifact: Path) -> None:
    # A child's getrusage would start from this process's memory; what is reported must not.
    ballast = np.ones(300_000_000, np.uint8)
    found = footprint(artifact, "scipy-csr-cpu", threads=1, batch=4)
    assert isinstance(found, Footprint)
    assert found.load_ms > 0
    assert found.peak_rss_bytes is not None
    assert 5_000_000 < found.peak_rss_bytes < psutil.Process().memory_info().rss
    assert ballast[-1] == 1


def test_the_peak_is_at_least_what_is_resident() -> None:
    peak = child.peak_rss()
    assert peak is not None
    assert peak >= psutil.Process().memory_info().rss * 0.9


@pytest.mark.parametrize(
    ("runtime", "message"),
    [
        ("torch-cpu", "give --model net.py:build"),
        ("onnxruntime-cuda", "cannot run here"),
        ("none-such", "unknown runtime"),
    ],
)
def test_what_the_child_cannot_do_is_its_own_sentence(artifact: Path, runtime: str, message: str) -> None:
    found = footprint(artifact, runtime, threads=1, batch=1)
    assert isinstance(found, Failure)
    assert message in found.reason
    # A sentence of ours needs no frame around it.
    assert "process of its own" not in found.reason
    assert "\n" not in found.reason


def test_the_child_starts_without_a_warning(artifact: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-W", "error", "-P", "-m", child.__name__, str(artifact), "scipy-csr-cpu"]
    done = subprocess.run([*command, str(tmp_path / "answer.json")], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr, done.stdout) == (0, "", "")


def test_a_file_that_is_no_artifact(tmp_path: Path) -> None:
    (tmp_path / "a.spk").write_bytes(b"nonsense")
    found = footprint(tmp_path / "a.spk", "torch-cpu", threads=1, batch=1)
    assert isinstance(found, Failure)
    assert "a.spk is no artifact" in found.reason


@pytest.mark.parametrize(
    ("program", "reason"),
    [
        ("import os; os.abort()", "it crashed in a process of its own (SIGABRT)"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGSEGV)", "(SIGSEGV)"),
        ("import time; time.sleep(60)", "it gave no answer within 0.5 seconds"),
        (
            "raise ValueError('the output holds NaN')",
            "it failed in a process of its own: ValueError: the output holds NaN",
        ),
        ("import sys; sys.exit(4)", "exit code 4 and no message"),
        ("pass", "no message"),
    ],
)
def test_a_child_that_dies_hangs_or_says_nothing(tmp_path: Path, program: str, reason: str) -> None:
    timeout = 0.5 if "sleep" in program else 60.0
    found = _ask([sys.executable, "-c", program], tmp_path / "answer.json", timeout)
    assert isinstance(found, Failure)
    assert reason in found.reason


def test_what_a_users_code_prints_does_not_disturb_the_answer(tmp_path: Path) -> None:
    answer = tmp_path / "answer.json"
    text = json.dumps({"load_ms": 1.5, "peak_rss_bytes": None})
    program = f"print('{{', 'chatter'); open({str(answer)!r}, 'w').write({text!r})"
    assert _ask([sys.executable, "-c", program], answer, 60.0) == Footprint(1.5, None)
