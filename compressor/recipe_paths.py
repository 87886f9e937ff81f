"""Which parts of a recipe are paths, and how they are moved from one folder to another."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..models.source import TORCHSCRIPT_SUFFIXES

_DATA_PATHS = ("npz", "idx", "cifar10", "folder")
Move = Callable[[str], str]


def seen_from_here(folder: Path) -> Move:
    """Return the move for paths that are relative to ``folder``: to paths that are right where the process runs."""
    return lambda path: path if Path(path).is_absolute() else os.path.normpath(folder / path)


def seen_from(folder: Path) -> Move:
    """Return the opposite move: from paths that are right where the process runs to paths relative to ``folder``."""
    return lambda path: path if Path(path).is_absolute() else os.path.relpath(path, folder)


def is_onnx(model: str) -> bool:
    """Return whether a model text names an ONNX file."""
    return Path(model).suffix.lower() == ".onnx"


def is_torchscript(model: str) -> bool:
    """Return whether a model text names a TorchScript file."""
    return Path(model).suffix.lower() in TORCHSCRIPT_SUFFIXES


def is_checkpoint(model: str) -> bool:
    """Return whether a model text names a checkpoint, whose network goes on."""
    return Path(model).suffix.lower() == ".safetensors"


def is_factory(model: str) -> bool:
    """Return whether a model text names a factory: ``file.py:factory`` or ``package.module:factory``."""
    return ":" in model and not is_onnx(model) and not is_torchscript(model)


def factory_file(model: str) -> str | None:
    """Return the file of ``file.py:factory``; None for anything else."""
    file, colon, _ = model.rpartition(":")
    return file if colon and file.endswith(".py") else None


def move_model(model: str, move: Move) -> str:
    """Apply a move to a model text; zoo names and modules stay as they are."""
    if is_onnx(model) or is_torchscript(model) or is_checkpoint(model):
        return move(model)
    file = factory_file(model)
    return model if file is None else move(file) + model[len(file) :]


def move_data(data: str, move: Move) -> str:
    """Apply a move to a data text; ``digits`` and ``none`` stay as they are."""
    kind, colon, path = data.partition(":")
    if colon and kind in _DATA_PATHS:
        return f"{kind}:{move(path)}"
    file = factory_file(data)
    return data if file is None else move(file) + data[len(file) :]
