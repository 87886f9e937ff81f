"""The package list, the version and the lazy root module are what they claim to be."""

import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

import sparsepack

ROOT = Path(__file__).resolve().parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
ROOMS = ["models", "compressor", "exporters", "runtimes", "cli"]


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


def test_every_native_source_is_in_the_package() -> None:
    native = ROOT / "runtimes" / "native"
    patterns = PROJECT["tool"]["setuptools"]["package-data"]["sparsepack.runtimes.native"]
    shipped = {path for pattern in patterns for path in native.glob(pattern)}
    sources = {path for path in native.rglob("*") if path.suffix in {".cpp", ".h", ".map", ".txt"}}
    assert shipped == sources


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The sources in another folder, so that nothing is built among them."""
    listed = subprocess.run(["git", "ls-files", "-co", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True)
    if listed.returncode:
        pytest.skip("not a git checkout")
    folder = tmp_path_factory.mktemp("copy") / "sparsepack"
    for name in filter(None, listed.stdout.splitlines()):
        if (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


@pytest.mark.native
@pytest.mark.parametrize("required", [False, True])
def test_without_a_compiler(required: bool, copy: Path, tmp_path: Path) -> None:
    environment = {**os.environ, "CC": "/no/compiler", "CXX": "/no/compiler"}
    environment["SPARSEPACK_REQUIRE_NATIVE"] = "1" if required else "0"
    words = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "-w", str(tmp_path), str(copy)]
    done = subprocess.run(words, env=environment, capture_output=True, text=True)
    if required:
        assert done.returncode != 0
        assert "/no/compiler" in done.stdout + done.stderr
        return
    assert done.returncode == 0, done.stderr
    (wheel,) = tmp_path.glob("*.whl")
    assert wheel.name.endswith("-py3-none-any.whl")
    names = zipfile.ZipFile(wheel).namelist()
    assert not [name for name in names if name.endswith(".so")]
    assert "sparsepack/runtimes/native/library.py" in names
    assert not {"sparsepack/setup.py", "sparsepack/conftest.py"} & set(names)
