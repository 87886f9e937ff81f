"""The documentation's own words work: every block of commands is run, section by section, or says why it is not.

A block is run when it is labelled ``bash`` or ``python``; a ``yaml`` block is read as a recipe; one that begins with
``# name.py`` or ``# name.yaml`` is written as a file. What a reader would have at hand by then stands in a comment that
nobody sees, ``<!-- before: COMMAND -->``. A block that is not run carries its reason, ``<!-- not run: REASON -->``, and
is listed as skipped.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from sparsepack.compressor.recipe import load_recipe

ROOT = Path(__file__).resolve().parent.parent
PAGES = sorted([ROOT / "README.md", ROOT / "CONTRIBUTING.md", *(ROOT / "docs").glob("*.md")])
_PIECE = re.compile(
    r"^<!-- (?P<mark>before|not run): (?P<words>.*?) -->$|^```(?P<language>\w*)\n(?P<code>.*?)^```$",
    re.MULTILINE | re.DOTALL,
)
_COMMAND = re.compile(r"^(\$ )?(compress|python3?|make|pip|bash|npm|cmake|PYTHONPATH=\S+) ", re.MULTILINE)
RUN = ("bash", "python", "yaml")
# Blocks that hold data, not commands.
SHOWN = ("", "text", "json")


@dataclass(frozen=True)
class Block:
    """One block of a page: its language, what has to be there before it, and why it is not run, if it is not."""

    page: str
    line: int
    heading: str
    language: str
    code: str
    before: tuple[str, ...]
    reason: str | None


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text()
    found: list[Block] = []
    before: list[str] = []
    reason: str | None = None
    for piece in _PIECE.finditer(text):
        if piece["mark"] == "before":
            before.append(piece["words"])
        elif piece["mark"] == "not run":
            reason = piece["words"]
        else:
            # A comment in a block begins like a heading.
            prose = re.sub(r"^```.*?^```$", "", text[: piece.start()], flags=re.MULTILINE | re.DOTALL)
            above = re.findall(r"^#+ (.*)$", prose, re.MULTILINE)
            line = text[: piece.start()].count("\n") + 1
            name = page.relative_to(ROOT).as_posix()
            heading = above[-1] if above else ""
            found.append(Block(name, line, heading, piece["language"], piece["code"], tuple(before), reason))
            before, reason = [], None
    return found


BLOCKS = [block for page in PAGES for block in blocks_of(page)]
SECTIONS = list(dict.fromkeys((b.page, b.heading) for b in BLOCKS if b.language in RUN and b.reason is None))
MARKED = [block for block in BLOCKS if block.reason is not None]


@pytest.mark.parametrize("block", BLOCKS, ids=lambda block: f"{block.page}:{block.line}")
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    if block.reason is not None or block.language in RUN:
        return
    assert block.language in SHOWN, f"{block.language} is not run: say why in a comment before it"
    assert not _COMMAND.search(block.code), "it holds commands: label it bash, or say why it is not run"


@pytest.mark.parametrize("block", MARKED, ids=lambda block: f"{block.page}:{block.line}")
def test_marked_blocks_are_listed(block: Block) -> None:
    assert block.reason
    pytest.skip(block.reason)


@pytest.fixture
def workplace(tmp_path: Path) -> Path:
    """A user's folder with own models/, exporters/ and cli.py, which must not be imported by our command."""
    for name in ("models", "exporters"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("raise RuntimeError('imported the user\\'s folder')\n")
    (tmp_path / "cli.py").write_text("raise RuntimeError('imported the user\\'s cli.py')\n")
    shutil.copy(ROOT / "examples" / "quickstart.yaml", tmp_path)
    return tmp_path


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("page", "heading"), SECTIONS, ids=lambda words: words.replace(" ", "-"))
def test_a_section_s_blocks_run(page: str, heading: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # Another environment that the package is installed in may be given, one that holds nothing else.
    commands = os.environ.get("SPARSEPACK_COMMANDS", str(Path(sys.executable).parent))
    monkeypatch.setenv("PATH", commands, prepend=":")
    monkeypatch.setenv("SPARSEPACK_CACHE", str(workplace / "cache"))
    for block in BLOCKS:
        if (block.page, block.heading) != (page, heading) or block.reason is not None:
            continue
        for command in block.before:
            _run(["bash", "-euo", "pipefail", "-c", command], workplace)
        if block.language == "yaml":
            name = re.match(r"# (\w+\.yaml)\n", block.code)
            file = workplace / (name[1] if name else "block.yaml")
            file.write_text(block.code)
            assert load_recipe(file).prune_recipes()
        elif block.language == "python" and (script := re.match(r"# (\w+\.py)\n", block.code)):
            (workplace / script[1]).write_text(block.code)
        elif block.language == "python":
            _run([sys.executable, "-c", block.code], workplace)
        elif block.language == "bash":
            _run(["bash", "-euo", "pipefail", "-c", block.code], workplace)


def _run(words: list[str], folder: Path) -> None:
    done = subprocess.run(words, cwd=folder, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_mentioned_in_the_readme() -> None:
    from sparsepack.cli import commands

    text = (ROOT / "README.md").read_text()
    for name in commands.commands:
        assert re.search(rf"compress {name}\b", text), name
