"""How large the report of a job is, and how long a browser takes to open it: a grid of twelve ResNet-20 runs.

The grid is pruned and measured (some minutes; resumable), its page opened in headless Chromium, and what the browser
says about opening it (``performance``) is recorded.
"""

from __future__ import annotations

import json
import re
import shutil
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

from record import arguments, write

from sparsepack.compressor.recipe import load_recipe
from sparsepack.runtimes import job
from sparsepack.runtimes.report.outputs import job_report, write_outputs

TARGET_SECONDS, TARGET_BYTES = 2.0, 5_000_000
OPENINGS = 5
RECIPE: dict[str, Any] = {
    "version": 1,
    "model": "resnet-20",
    "data": "digits",
    "threads": 1,
    "train": {"epochs": 1},
    "grid": [
        {
            "name": "grid",
            "method": ["magnitude", "snip"],
            "sparsity": [0.9, 0.95],
            "seed": [0, 1, 2],
            "export": [{"format": "packed"}, {"format": "onnx"}],
        }
    ],
    "measure": {"time_budget": 0.2},
}
PROBE = """<script>addEventListener("load", () => setTimeout(() => {
  const entry = performance.getEntriesByType("navigation")[0];
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = JSON.stringify({loaded: entry.loadEventEnd, nodes: document.querySelectorAll("*").length});
  document.body.append(answer);
}, 0));</script>"""


def opened(page: Path, browser: str) -> dict[str, float]:
    """Return what the browser says about opening a page in a fresh profile."""
    with tempfile.TemporaryDirectory() as profile:
        command = [browser, "--headless", "--no-sandbox", "--disable-gpu", "--disable-background-networking"]
        command += [f"--user-data-dir={profile}", "--virtual-time-budget=10000", "--dump-dom", page.resolve().as_uri()]
        document = subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout
    answer = re.search(r'<pre id="answer">([^<]*)</pre>', document)
    if answer is None:
        sys.exit("the browser did not run the page's probe.")
    found: dict[str, float] = json.loads(answer.group(1))
    return found


def main() -> None:
    """Run the grid, open its report, write the record."""
    options = arguments(__doc__, runs="out/report-grid")
    browser = shutil.which("chromium") or shutil.which("google-chrome")
    if browser is None:
        sys.exit("no Chromium is installed; the system's package manager has it.")
    out = Path(options.runs)
    record = job.run(load_recipe(RECIPE), out)
    page = out / "report.html"
    write_outputs(job_report(out, record), {"html": page})
    probed = out / "probed.html"
    probed.write_text(page.read_text().replace("</head>", f"{PROBE}</head>"))
    found = [opened(probed, browser) for _ in range(OPENINGS)]
    milliseconds = [entry["loaded"] for entry in found]
    size = page.stat().st_size
    write(
        options.json,
        {
            "artifacts": len(record["artifacts"]),
            "bytes": size,
            "elements": found[0]["nodes"],
            "load_ms": {"median": statistics.median(milliseconds), "largest": max(milliseconds)},
            "target": {"seconds": TARGET_SECONDS, "bytes": TARGET_BYTES},
            "met": size < TARGET_BYTES and max(milliseconds) < 1000 * TARGET_SECONDS,
        },
    )


if __name__ == "__main__":
    main()
