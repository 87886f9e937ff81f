"""Load time and peak memory, taken in a fresh process: nothing that this process loaded before can blur them.

The child (:mod:`.child`) loads the artifact, runs it once and reports. When it crashes, hangs or raises, the reason
becomes the result, and this process never loads an artifact that brought its child down.
"""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path

TIMEOUT = 300.0
# The child's exit code for a refusal that is a sentence of ours; a traceback exits with 1.
REFUSED = 3


@dataclass(frozen=True)
class Footprint:
    """What the child measured.

    Attributes:
        load_ms: from opening the file to a loaded session; imports not counted.
        peak_rss_bytes: the process's peak resident memory after loading and one run, libraries included; None where
            the system does not tell.
        finite: whether the outputs of that run hold neither NaN nor infinity.
    """

    load_ms: float
    peak_rss_bytes: int | None
    finite: bool = True


@dataclass(frozen=True)
class Failure:
    """Why there is no footprint, as the tail of a sentence."""

    reason: str


def footprint(
    artifact: Path, runtime: str, *, threads: int, batch: int, model: str | None = None, timeout: float = TIMEOUT
) -> Footprint | Failure:
    """Load and run ``artifact`` once in a child process.

    Args:
        artifact: the artifact's file.
        runtime: the runtime's name.
        threads: threads for the run.
        batch: examples in the run.
        model: the user's ``--model``, for artifacts of a factory.
        timeout: seconds after which the child is killed.
    """
    with tempfile.TemporaryDirectory(prefix="sparsepack-") as folder:
        answer = Path(folder) / "footprint.json"
        # -P keeps the user's working folder off the module path: a file torch.py there must not be imported.
        command = [sys.executable, "-P", "-m", f"{__package__}.child", str(artifact), runtime, str(answer)]
        command += ["--threads", str(threads), "--batch", str(batch), *(["--model", model] if model else [])]
        return _ask(command, answer, timeout)


def _ask(command: list[str], answer: Path, timeout: float) -> Footprint | Failure:
    try:
        # The command is this interpreter with arguments of ours; no shell reads it.
        done = subprocess.run(  # noqa: S603
            command, stdin=subprocess.DEVNULL, capture_output=True, text=True, errors="replace", timeout=timeout
        )
    except subprocess.TimeoutExpired:
        return Failure(f"it gave no answer within {timeout:g} seconds in a process of its own and was stopped")
    if done.returncode < 0:
        return Failure(f"it crashed in a process of its own ({_signal_name(-done.returncode)})")
    if done.returncode or not answer.exists():
        lines = done.stderr.strip().splitlines()
        said = lines[-1].removesuffix(".") if lines else f"exit code {done.returncode} and no message"
        return Failure(said if done.returncode == REFUSED else f"it failed in a process of its own: {said}")
    fields = json.loads(answer.read_text())
    return Footprint(fields["load_ms"], fields["peak_rss_bytes"], fields.get("finite", True))


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
