"""What a manifest's entry must be before anything is read by it."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import TYPE_CHECKING

from ..compressor.structure import parse_structure
from ..errors import FileFormatError, UsageError
from ..files import numpy_dtype, possible_shape

if TYPE_CHECKING:
    from .manifest import TensorEntry

# What every format of ours stores as it is. A format stores other parametrisations too, or turns them into these.
PARAMETRISATIONS = ("identity", "frozen", "selected")


def check_entry(path: Path, entry: TensorEntry, keeps: Collection[str]) -> None:
    """Refuse an entry that contradicts itself.

    Args:
        path: for the message.
        entry: of a manifest.
        keeps: the parametrisations that the format stores.

    Raises:
        FileFormatError: naming the tensor.
    """
    numpy_dtype(entry.stored_dtype)
    problem = None
    if not possible_shape(entry.shape, numpy_dtype(entry.dtype).itemsize):
        problem = f"has the impossible shape {entry.shape}"
    elif not 0 <= entry.output_axis < max(1, len(entry.shape)):
        problem = f"has no axis {entry.output_axis}"
    elif not _is_structure(entry.structure):
        problem = f"has the unknown structure '{entry.structure}'"
    elif entry.parametrisation not in keeps:
        problem = f"has the unknown parametrisation '{entry.parametrisation}'"
    elif entry.parametrisation in ("frozen", "selected") and not entry.masked:
        problem = f"is '{entry.parametrisation}' but has no mask"
    elif entry.parametrisation in PARAMETRISATIONS and (entry.parts or entry.count or entry.task or entry.shares):
        problem = f"is '{entry.parametrisation}' and has parts of another kind"
    elif not 0 <= entry.kept_count <= entry.size or (entry.masked and entry.kept is None):
        problem = f"keeps {entry.kept} of {entry.size} weights"
    if problem:
        raise FileFormatError(f"{path}: tensor '{entry.name}' {problem}.")


def check_sharing(path: Path, entry: TensorEntry, owner: TensorEntry | None) -> None:
    """Refuse a part that nobody stores, or that is another one there."""
    same = owner is not None and owner.shares is None and owner.alias_of is None and owner.dtype == entry.dtype
    if not same or owner is None or (owner.parametrisation, owner.count) != (entry.parametrisation, entry.count):
        raise FileFormatError(f"{path}: tensor '{entry.name}' shares a part with '{entry.shares}', which stores none.")


def _is_structure(text: str) -> bool:
    try:
        parse_structure(text)
    except UsageError:
        return False
    return True
