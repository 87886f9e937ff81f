"""A user's own code: find a factory by its text, run it, and turn whatever goes wrong into one clear line.

``path/to/file.py:factory`` is loaded from its path, with its folder importable, so that it may import its neighbours;
``package.module:factory`` is imported with the current folder importable. Modules that come from such a folder are
visible only while its own code runs: two folders may both have a ``models`` of their own, and neither is confused with
the other or with a part of this package.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
import random
import sys
import traceback
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType, ModuleType
from typing import Any

import numpy as np

from ..errors import ModelError, SparsepackError, near_miss

_PREFIX = "_sparsepack_user_"
# Folder -> the modules that code in it has imported from it, by name.
_neighbours: dict[Path, dict[str, ModuleType]] = {}


def is_factory(text: str) -> bool:
    """Return whether ``text`` has the form of a factory (``file.py:factory`` or ``package.module:factory``)."""
    place, _, name = text.rpartition(":")
    return bool(place) and name.isidentifier() and (place.endswith(".py") or _is_module_name(place))


def load_factory(text: str, error: type[SparsepackError] = ModelError) -> Callable[[], Any]:
    """Return a function that calls the factory ``text`` without arguments.

    The call, and what its file does when it is imported, draw from freshly seeded global generators (torch, numpy,
    random), whose states are put back afterwards: a factory that fills its weights at random gives the same ones each
    time.

    Args:
        text: ``file.py:factory`` or ``package.module:factory``.
        error: what to raise.

    Raises:
        SparsepackError: of the type ``error``: no such file, module or attribute, nothing callable, or code that raised
            (while it is imported here, or in the returned function).
    """
    place, _, name = text.rpartition(":")
    folder = Path(os.path.realpath(place)).parent if place.endswith(".py") else Path.cwd()
    with _importable(folder), fixed_randomness(), UserCode(text, error):
        module = _load_file(Path(place), error) if place.endswith(".py") else _load_module(place, error)
    factory = getattr(module, name, None)
    if factory is None:
        names = [known for known, value in vars(module).items() if callable(value) and not known.startswith("_")]
        raise error(f"{place} has no '{name}'.{near_miss(name, names)} It defines: {', '.join(names) or 'nothing'}.")
    if _is_module(factory):
        raise error(
            f"'{name}' in {place} is a module already; name a function without arguments that returns it, or the class."
        )
    if not callable(factory):
        raise error(f"'{name}' in {place} is a {type(factory).__name__}, not a function or class that can be called.")

    def call() -> Any:
        with _importable(folder), fixed_randomness(), UserCode(text, error):
            return factory()

    return call


def _is_module(value: object) -> bool:
    from torch import nn

    return isinstance(value, nn.Module)


@contextmanager
def fixed_randomness() -> Iterator[None]:
    """Seed the global generators of torch (CPU), numpy and random with 0, and put their states back at the end."""
    import torch

    python, numpy = random.getstate(), np.random.get_state()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        np.random.seed(0)
        random.seed(0)
        try:
            yield
        finally:
            random.setstate(python)
            np.random.set_state(numpy)


def blame(error: BaseException) -> str:
    """Return where an exception arose, as ``(file.py, line 12)``: the innermost frame that is not library code."""
    if isinstance(error, SyntaxError):
        return f"({Path(error.filename or '?').name}, line {error.lineno})"
    frames = [(frame, line) for frame, line in traceback.walk_tb(error.__traceback__)]
    users = [(frame, line) for frame, line in frames if not _is_library(frame)]
    frame, line = (users or frames)[-1]
    return f"({Path(frame.f_code.co_filename).name}, line {line})"


def _is_library(frame: FrameType) -> bool:
    module, filename = str(frame.f_globals.get("__name__")), frame.f_code.co_filename
    if filename.startswith("<") or module.partition(".")[0] == __name__.partition(".")[0]:
        return True
    path = Path(filename)
    return "site-packages" in path.parts or path.is_relative_to(Path(random.__file__).parent)


class UserCode:
    """A context in which a user's code runs: what it raises becomes one line that names exception and place.

    Ctrl-C passes through; an attempt to end the process does not.
    """

    def __init__(self, text: str, error: type[SparsepackError] = ModelError) -> None:
        self.text = text
        self.error = error

    def __enter__(self) -> None:
        """Enter the context."""

    def __exit__(self, kind: type[BaseException] | None, raised: BaseException | None, trace: object) -> None:
        """Convert an exception of the user's code."""
        if isinstance(raised, SparsepackError) or not isinstance(raised, (Exception, SystemExit)):
            return
        message = str(raised).strip().splitlines()
        detail = f": {message[0]}" if message else ""
        raise self.error(f"{self.text} raised {type(raised).__name__}{detail} {blame(raised)}.") from raised


def _load_file(path: Path, error: type[SparsepackError]) -> ModuleType:
    if not path.is_file():
        raise error(f"{path} does not exist; give the path of a Python file, as in 'net.py:build'.")
    resolved = path.resolve()
    # A name of its own keeps the file from shadowing, or being shadowed by, any module of the same name.
    unique = f"{_PREFIX}{resolved.stem}_{zlib.crc32(str(resolved).encode()):08x}"
    spec = importlib.util.spec_from_file_location(unique, resolved)
    if spec is None or spec.loader is None:
        raise error(f"{path} cannot be loaded as a Python file.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[unique] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[unique]
        raise
    return module


def _load_module(name: str, error: type[SparsepackError]) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as missing:
        # Only the module itself; one that it fails to import is the user's code raising.
        if missing.name is not None and (name == missing.name or name.startswith(f"{missing.name}.")):
            raise error(
                f"there is no module '{missing.name}'; run the command in the folder that holds it, or give the path "
                "of a Python file, as in 'net.py:build'."
            ) from missing
        raise


@contextmanager
def _importable(folder: Path) -> Iterator[None]:
    """Make ``folder`` importable, with the modules that its code imported before; hide both again at the end."""
    kept = _neighbours.setdefault(folder, {})
    hidden = {name: sys.modules[name] for name in kept if name in sys.modules}
    before = {name.partition(".")[0] for name in sys.modules}
    sys.modules.update(kept)
    sys.path.insert(0, str(folder))
    importlib.invalidate_caches()
    try:
        yield
    finally:
        if str(folder) in sys.path:
            sys.path.remove(str(folder))
        tops = {name.partition(".")[0] for name in sys.modules} - before | {name.partition(".")[0] for name in kept}
        local = {top for top in tops if not top.startswith(_PREFIX) and _lies_in(sys.modules.get(top), folder)}
        for name in [name for name in sys.modules if name.partition(".")[0] in local]:
            kept[name] = sys.modules.pop(name)
        sys.modules.update(hidden)


def _lies_in(module: ModuleType | None, folder: Path) -> bool:
    """Return whether a top-level module is a file or a package directly in ``folder``."""
    package = list(getattr(module, "__path__", []))
    place = package[0] if package else getattr(module, "__file__", None)
    return place is not None and Path(place).resolve().parent == folder.resolve()


def _is_module_name(text: str) -> bool:
    return all(part.isidentifier() for part in text.split("."))
