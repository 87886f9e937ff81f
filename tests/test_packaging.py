"""The package list, the version and the lazy root module are what they claim to be."""

import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

import sparsepack

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ["models", "compressor", "exporters", "runtimes"]


def test_package_list_equals_the_folders() -> None:
    folders = {"sparsepack"}
    for room in ROOMS:
        for folder in [ROOT / room, *(ROOT / room).rglob("*/")]:
            if any(folder.glob("*.py")):
                folders.add(".".join(["sparsepack", *folder.relative_to(ROOT).parts]))
    assert set(PROJECT["tool"]["setuptools"]["packages"]) == folders


def test_version_equals_the_changelog() -> None:
    newest = re.search(r"^## (\d+\.\d+\.\d+)", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert newest is not None
    assert PROJECT["project"]["version"] == newest[1] == sparsepack.__version__


def test_runtime_dependencies_have_lower_bounds_only() -> None:
    for requirement in PROJECT["project"]["dependencies"]:
        assert re.fullmatch(r"[A-Za-z_]+>=[\d.]+", requirement), requirement


def test_every_pinned_package_is_exact() -> None:
    for line in (ROOT / "constraints.txt").read_text().splitlines():
        assert line.startswith("#") or re.fullmatch(r"[A-Za-z0-9_.-]+==[0-9][0-9A-Za-z.]*", line), line


@pytest.mark.parametrize("name", [name for name in sparsepack.__all__ if name != "__version__"])
def test_public_names_load(name: str) -> None:
    assert getattr(sparsepack, name).__name__ == name


def test_unknown_public_name_is_an_attribute_error() -> None:
    with pytest.raises(AttributeError, match="no attribute 'prume'"):
        sparsepack.prume  # type: ignore[attr-defined]  # the point of the test  # noqa: B018


@pytest.mark.parametrize(
    "statement", ["import sparsepack", "from sparsepack.cli import run; run(['--help'])", "import sparsepack.models"]
)
def test_light_entrances_import_no_framework(statement: str) -> None:
    code = (
        f"{statement}\nimport sys\n"
        "heavy = {'torch', 'onnx', 'onnxruntime', 'onnxscript', 'scipy', 'numpy'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True)
