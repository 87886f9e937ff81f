"""What every benchmark shares: interleaved timing and a JSON file that says where the numbers come from."""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from sparsepack.files import write_bytes
from sparsepack.runtimes.measure.environment import current_environment, default_threads

RESULTS = Path(__file__).parent / "results"


def arguments(description: str | None, **flags: Any) -> argparse.Namespace:
    """Parse ``--json FILE`` and the given further flags (name -> default)."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    name = Path(sys.argv[0]).stem
    parser.add_argument("--json", type=Path, default=RESULTS / f"{name}.json", help="where the record goes")
    for flag, default in flags.items():
        if default is False:
            parser.add_argument(f"--{flag}", action="store_true")
        else:
            parser.add_argument(f"--{flag}", type=type(default), default=default)
    return parser.parse_args()


def write(path: Path, figures: Mapping[str, Any]) -> None:
    """Write the figures with the command that gave them and the machine that it ran on."""
    # As it is typed in the project's folder, wherever it was typed.
    command = " ".join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]])
    record = {"command": command, "environment": current_environment(default_threads()), "figures": figures}
    write_bytes(path, (json.dumps(record, indent=1, sort_keys=True) + "\n").encode())
    print(json.dumps(figures, indent=1, sort_keys=True))


def summary(seconds: list[float]) -> dict[str, float]:
    """Return median, p10 and p90 in milliseconds and the number of runs."""
    ordered = sorted(seconds)
    last = len(ordered) - 1
    return {
        "median_ms": round(statistics.median(ordered) * 1e3, 3),
        "p10_ms": round(ordered[round(0.1 * last)] * 1e3, 3),
        "p90_ms": round(ordered[round(0.9 * last)] * 1e3, 3),
        "runs": len(ordered),
    }


def interleaved(tasks: Mapping[str, Callable[[], object]], runs: int, warmup: int = 1) -> dict[str, list[float]]:
    """Time the tasks in turn (A B A B ...), so that drift of the machine hits all of them alike.

    Returns:
        Seconds of every counted run by task.
    """
    times: dict[str, list[float]] = {name: [] for name in tasks}
    for turn in range(warmup + runs):
        for name, task in tasks.items():
            begin = time.perf_counter()
            task()
            if turn >= warmup:
                times[name].append(time.perf_counter() - begin)
    return times


def paired_ratio(numerator: list[float], denominator: list[float]) -> dict[str, float]:
    """Return median, p10 and p90 of the run-by-run ratio of two interleaved timings."""
    ratios = sorted(a / b for a, b in zip(numerator, denominator, strict=True))
    last = len(ratios) - 1
    return {
        "median": round(statistics.median(ratios), 4),
        "p10": round(ratios[round(0.1 * last)], 4),
        "p90": round(ratios[round(0.9 * last)], 4),
    }


def in_child(code: str, *values: str) -> dict[str, Any]:
    """Run Python code in a fresh process; it prints one JSON object as its last line, which is returned."""
    done = subprocess.run([sys.executable, "-c", code, *values], check=True, stdout=subprocess.PIPE, text=True)
    result: dict[str, Any] = json.loads(done.stdout.strip().splitlines()[-1])
    return result
