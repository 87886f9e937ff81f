"""What share of this core's own fused-multiply-add peak the sparse kernels reach, layer by layer of ResNet-50.

Compiles `sparse_kernels.cpp` with the operators' sources and runs it on one thread. The peak is that of 12 independent
chains of registers; beside it stands the rate when every term is loaded from the first-level cache. `inner` is the
kernel over tiles whose activations are already copied, `layer` the whole operator. The rates count the kept weights
alone: lanes that padding wastes are a loss. Target: `inner` at 70 % of the peak on 1x1 and 3x3 layers at 90 % sparsity.

Masks of a pattern (2:4, 1:4, blocks of outputs x columns) run through the same kernels; they are timed in turns with
an unstructured mask of the same density, whole layers, time for each kept weight.
"""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import arguments, write

ROOT = Path(__file__).resolve().parent.parent
# Density and pattern; blocks of 16x1 are 16 outputs that share an input.
PATTERNS = (
    ("0.5", "2:4"),
    ("0.25", "1:4"),
    ("0.3", "16x1"),
    ("0.1", "16x1"),
    ("0.1", "1x16"),
    ("0.1", "4x4"),
)
SOURCES = ROOT / "runtimes" / "native" / "csrc"


def main() -> None:
    """Compile, run at each density and with each pattern, and write the record."""
    options = arguments(__doc__)
    compiler = shutil.which("c++")
    if compiler is None:
        sys.exit("sparse_kernels: needs a C++ compiler")
    figures: dict[str, Any] = {}
    with tempfile.TemporaryDirectory() as name:
        program = Path(name) / "sparse_kernels"
        files = [*sorted((SOURCES / "core").glob("*.cpp")), *sorted((SOURCES / "kernels").glob("*.cpp"))]
        objects = []
        flags = ["-std=c++17", "-O3", "-DNDEBUG", "-ffp-contract=fast", "-Wno-psabi", f"-I{SOURCES}"]
        for file in files:
            objects.append(Path(name) / f"{file.stem}.o")
            subprocess.run([compiler, *flags, "-c", file, "-o", objects[-1]], check=True)
        # The peak is measured with everything that the processor has.
        main_file = Path(__file__).with_suffix(".cpp")
        subprocess.run([compiler, *flags, "-march=native", main_file, *objects, "-o", program, "-pthread"], check=True)
        for density in ("0.2", "0.1", "0.05"):
            done = subprocess.run([program, density], check=True, capture_output=True, text=True)
            figures[density] = json.loads(done.stdout)
        for density, pattern in PATTERNS:
            done = subprocess.run([program, density, pattern], check=True, capture_output=True, text=True)
            figures.setdefault("patterns", {})[f"{pattern} at {density}"] = json.loads(done.stdout)["layers"]
    write(options.json, figures)


if __name__ == "__main__":
    main()
