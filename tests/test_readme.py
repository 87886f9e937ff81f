"""The README's own words work: every bash and python block is run, in a folder whose names could shadow ours."""

import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
TEXT = (ROOT / "README.md").read_text()


def blocks(heading: str) -> list[tuple[str, str]]:
    """Return (language, code) of the blocks under a heading, those without a language left out."""
    section = TEXT.split(f"\n## {heading}\n", 1)[1].split("\n## ", 1)[0]
    return re.findall(r"```(bash|python)\n(.*?)```", section, re.DOTALL)


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
@pytest.mark.parametrize(
    "heading",
    [
        "From a model to a measured artifact",
        "Your own model and data",
        "In continuous integration",
        "From Python",
        "In a loop of your own",
    ],
)
def test_blocks_run(heading: str, workplace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=":")
    monkeypatch.setenv("SPARSEPACK_CACHE", str(workplace / "cache"))
    found = blocks(heading)
    assert found
    for language, code in found:
        if language == "python" and (name := re.match(r"# (\w+\.py)\n", code)):
            (workplace / name[1]).write_text(code)
            continue
        words = ["bash", "-euo", "pipefail", "-c", code] if language == "bash" else [sys.executable, "-c", code]
        done = subprocess.run(words, cwd=workplace, capture_output=True, text=True)
        assert done.returncode == 0, done.stdout + done.stderr


def test_every_command_is_mentioned() -> None:
    from sparsepack.cli import commands

    for name in commands.commands:
        assert re.search(rf"compress {name}\b", TEXT), name
