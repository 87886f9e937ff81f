"""How long ``compress --help`` takes, against a bare Python start. Target: under 0.3 s."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

from record import arguments, interleaved, paired_ratio, summary, write


def main() -> None:
    """Time both commands in turn and write the record."""
    options = arguments(__doc__, runs=21)
    command = str(Path(sys.executable).parent / "compress")

    def start(*words: str) -> None:
        subprocess.run(words, check=True, capture_output=True)

    times = interleaved(
        {
            "compress --help": lambda: start(command, "--help"),
            "python -c pass": lambda: start(sys.executable, "-c", "pass"),
        },
        runs=options.runs,
    )
    figures = {name: summary(seconds) for name, seconds in times.items()}
    write(options.json, {**figures, "ratio": paired_ratio(*times.values())})


if __name__ == "__main__":
    main()
