"""How far apart two cores are: a host may place a machine's two cores nearer or further, and move them.

Runs on two threads scatter by a third with it (docs/runtime.md, "Two threads"), so that a record of them says what it
met. Compiled from `core_distance.cpp` with the system's C++ compiler.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

from record import arguments, write


class CoreDistance:
    """Measures the distance of the first two cores that this process may use; ``{}`` where that cannot be done."""

    def __init__(self, folder: Path) -> None:
        self._program: Path | None = None
        compiler = shutil.which(os.environ.get("CXX", "c++"))
        if compiler is not None and sys.platform == "linux":
            self._program = folder / "core_distance"
            source = Path(__file__).with_suffix(".cpp")
            subprocess.run([compiler, "-std=c++17", "-O2", source, "-o", self._program, "-pthread"], check=True)

    def measure(self) -> dict[str, float]:
        """Return the round trip of a flag in nanoseconds, and the rate of writing what both caches hold in GB/s."""
        if self._program is None:
            return {}
        done = subprocess.run([self._program], capture_output=True, text=True)
        result: dict[str, float] = json.loads(done.stdout) if done.returncode == 0 else {}
        return result


def main() -> None:
    """Measure once and write the record."""
    import tempfile

    options = arguments(__doc__)
    with tempfile.TemporaryDirectory() as name:
        write(options.json, CoreDistance(Path(name)).measure())


if __name__ == "__main__":
    main()
