"""Where the shared library is, whether it can be loaded here, and with which instruction set it computes."""

from __future__ import annotations

import ctypes
import os
from functools import cache
from pathlib import Path

from ...errors import RuntimeUnavailableError

NAME = "libsparsepack_ops.so"
# A library that was built elsewhere, for example by CMake.
ENVIRONMENT = "SPARSEPACK_OPS"


def _place() -> Path:
    chosen = os.environ.get(ENVIRONMENT)
    return Path(chosen) if chosen else Path(__file__).parent / NAME


def unavailable() -> str | None:
    """Return why the operators cannot be used here, or None when they can."""
    return _unavailable(_place())


@cache
def _unavailable(path: Path) -> str | None:
    if not path.is_file():
        if ENVIRONMENT in os.environ:
            return f"{ENVIRONMENT} names {path}, which is no file"
        return (
            "the native operators were not built when sparsepack was installed; install a C++17 compiler (g++ or "
            "clang++) and install sparsepack again"
        )
    try:
        _load(path)
    except (OSError, AttributeError) as error:
        return f"the native operators in {path} cannot be loaded: {error}"
    return None


def _load(path: Path) -> ctypes.CDLL:
    library = ctypes.CDLL(str(path))
    library.sparsepack_instruction_set.restype = ctypes.c_char_p
    return library


def library_path() -> Path:
    """Return the shared library, for ``SessionOptions.register_custom_ops_library``.

    Raises:
        RuntimeUnavailableError: it is not there or cannot be loaded, with the reason.
    """
    path = _place()
    reason = _unavailable(path)
    if reason is not None:
        raise RuntimeUnavailableError(f"{reason}.")
    return path


def instruction_set() -> str:
    """Return what the kernels compute with on this processor: ``avx512``, ``avx2``, ``neon`` or ``generic``.

    Raises:
        RuntimeUnavailableError: the library is not there or cannot be loaded.
    """
    found: bytes = _load(library_path()).sparsepack_instruction_set()
    return found.decode()
