"""Data flows models -> compressor -> exporters -> runtimes -> cli; imports point back along it and never forward."""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
FLOW = ["models", "compressor", "exporters", "runtimes", "cli"]
GROUND = ["errors", "files", "__init__"]


def room_of(path: Path) -> str:
    return path.relative_to(ROOT).parts[0].removesuffix(".py")


def imported_rooms(path: Path) -> set[str]:
    """Every room that a module imports, however deep in its functions the import stands."""
    package = ("sparsepack", *path.relative_to(ROOT).parent.parts)
    rooms: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        names: list[tuple[str, ...]] = []
        if isinstance(node, ast.ImportFrom):
            base = package[: len(package) - node.level + 1] if node.level else ()
            module = (*base, *(node.module.split(".") if node.module else ()))
            names = [module] if len(module) > 1 else [(*module, alias.name) for alias in node.names]
        elif isinstance(node, ast.Import):
            names = [tuple(alias.name.split(".")) for alias in node.names]
        rooms |= {name[1] for name in names if name[0] == "sparsepack" and len(name) > 1}
    return rooms


SOURCES = sorted(file for room in FLOW for file in (ROOT / room).rglob("*.py"))


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_imports_point_back_along_the_flow(path: Path) -> None:
    allowed = {*FLOW[: FLOW.index(room_of(path)) + 1], *GROUND, "__version__"}
    assert imported_rooms(path) <= allowed


@pytest.mark.parametrize("name", ["errors.py", "files.py"])
def test_the_ground_floor_imports_no_room(name: str) -> None:
    assert imported_rooms(ROOT / name) <= set(GROUND)


def test_the_check_sees_a_forward_import(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(globals(), "ROOT", tmp_path)
    (tmp_path / "models").mkdir()
    bad = tmp_path / "models" / "bad.py"
    bad.write_text("def f():\n    from ..exporters.csr import g\n    from .. import cli\n")
    assert imported_rooms(bad) == {"exporters", "cli"}
