"""The report page in a real browser: it opens from disk without an error, sorts, prints, and can be dark.

A copy of the page carries a probe, a script that does what a reader does and writes what came out into the document,
which the browser then prints (``--dump-dom``); so nothing has to drive it from outside.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
from records import HOSTILE, record

from sparsepack.runtimes.report.page import html_page

pytestmark = pytest.mark.browser

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
# Everything that would reach for the network is off; as root there is no sandbox to be had.
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PROBE = """
<script>
const faults = [];
addEventListener("error", (event) => faults.push(event.message));
addEventListener("securitypolicyviolation", (event) => faults.push(event.violatedDirective));
addEventListener("load", () => {
  const found = {};
  const table = document.querySelector("#overview table");
  const cells = (column) => [...table.tBodies[0].rows].map((row) => row.children[column].textContent);
  const click = (column) => table.querySelectorAll("th button")[column].click();
  click(2); found.rising = cells(2); click(2); found.falling = cells(2);
  click(0); found.names = cells(0);
  click(10); found.times = cells(10);
  found.sort = [...table.querySelectorAll("th")].map((head) => head.getAttribute("aria-sort"));
  found.background = getComputedStyle(document.body).backgroundColor;
  found.widths = [...document.querySelectorAll("#bytes > svg")].map((figure) => figure.getBoundingClientRect().width);
  found.loaded = performance.getEntriesByType("resource").length;
  for (const part of document.querySelectorAll("details")) part.open = true;
  found.words = document.body.innerText;
  found.milliseconds = performance.now();
  found.faults = faults;
  const answer = document.createElement("pre");
  answer.id = "answer";
  answer.textContent = btoa(unescape(encodeURIComponent(JSON.stringify(found))));
  document.body.append(answer);
});
</script>
"""


def browse(page: Path, profile: Path, *flags: str) -> str:
    """Open a page and return the document as the browser has it in the end."""
    if CHROMIUM is None:
        pytest.skip("no Chromium is installed")
    command = [CHROMIUM, *FLAGS, f"--user-data-dir={profile}", *flags, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def probe(tmp_path: Path, *flags: str) -> dict[str, Any]:
    """Return what the probe found on the page of the record made by hand."""
    import base64

    text = html_page(record(), title="a page")
    page = tmp_path / "page.html"
    page.write_text(text.replace("<body>", f"<body>{PROBE}"))
    document = browse(page, tmp_path / "profile", "--dump-dom", *flags)
    answer = re.search(r'<pre id="answer">([^<]*)</pre>', document)
    assert answer is not None, document[-500:]
    found: dict[str, Any] = json.loads(base64.b64decode(answer.group(1)))
    return found


def test_the_page_opens_and_its_tables_sort(tmp_path: Path) -> None:
    found = probe(tmp_path)
    assert found["faults"] == []
    assert found["loaded"] == 0
    # fast/onnx is the largest and has 760 bytes; 300 and 160 follow.
    assert found["rising"] == ["160 B", "300 B", "760 B"]
    assert found["falling"] == ["760 B", "300 B", "160 B"]
    assert found["names"] == ["fast/onnx", "poor/onnx", "small/packed"]
    # What was not timed stands last.
    assert [cell.split(" ")[0] for cell in found["times"]] == ["0.500", "1.00", "-"]
    assert found["sort"][10] == "ascending" and found["sort"][0] is None
    assert HOSTILE in found["words"]
    assert all(width > 300 for width in found["widths"])


def test_the_page_is_dark_for_those_who_want_it(tmp_path: Path) -> None:
    (tmp_path / "light").mkdir()
    (tmp_path / "dark").mkdir()
    assert probe(tmp_path / "light")["background"] == "rgb(255, 255, 255)"
    # 0 is dark in Blink's settings.
    dark = probe(tmp_path / "dark", "--blink-settings=preferredColorScheme=0")
    assert dark["background"] == "rgb(13, 17, 23)"


def test_the_page_prints(tmp_path: Path) -> None:
    page, paper = tmp_path / "page.html", tmp_path / "page.pdf"
    page.write_text(html_page(record(), title="a page"))
    browse(page, tmp_path / "profile", f"--print-to-pdf={paper}", "--no-pdf-header-footer")
    content = paper.read_bytes()
    assert content.startswith(b"%PDF-") and len(content) > 10_000
