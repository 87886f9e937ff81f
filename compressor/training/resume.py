"""Snapshots: everything that a run's next step depends on, in one file that is replaced atomically.

A snapshot is a safetensors file (no pickle: reading one runs no code) whose metadata holds the position in the run and
a SHA-256 of every tensor. When it is written changes nothing in the run's result.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ...errors import FileFormatError
from ...files import Array, TensorFile, sha256_array, write_safetensors
from .tape import check_header

FORMAT = "sparsepack.snapshot"
VERSION = 1


class Position(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a run stands.

    Attributes:
        stage: number of the stage in the run's plan that is under way.
        training: the trainer's own figures when that stage is a training that has begun; None before its first step.
        totals: the run's counters (FLOPs, seconds), as they were when the stage began.
        log_bytes: length of the log; whatever was written after it belongs to steps that will be taken again.
        warnings: what the stages so far had to say.
    """

    stage: int
    training: dict[str, Any] | None
    totals: dict[str, int | float]
    log_bytes: int
    warnings: list[str] = []


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    position: Position
    sha256: dict[str, str]


class Snapshots:
    """The one snapshot of a run.

    Args:
        path: its file.
        every: seconds between two periodic snapshots.
    """

    def __init__(self, path: Path, every: float) -> None:
        self.path = path
        self._every = every
        self._next = time.monotonic() + every

    @property
    def due(self) -> bool:
        """Whether a periodic snapshot should be written now."""
        return time.monotonic() >= self._next

    def write(self, position: Position, arrays: Mapping[str, Array]) -> None:
        """Replace the snapshot; on a full disk the old one stays.

        Raises:
            SparsepackError: it cannot be written.
        """
        header = _Header(FORMAT, VERSION, position, {name: sha256_array(array) for name, array in arrays.items()})
        write_safetensors(self.path, arrays, msgspec.to_builtins(header))
        self._next = time.monotonic() + self._every

    def read(self) -> tuple[Position, dict[str, Array]] | None:
        """Return the snapshot, or None when there is none.

        Raises:
            FileFormatError: it is corrupt or of another kind; the message says how to begin anew.
        """
        if not self.path.exists():
            return None
        try:
            file = TensorFile(self.path)
            arrays = {name: file.read(name) for name in file}
            check_header(file, FORMAT, VERSION, arrays)
            return msgspec.convert(file.metadata, _Header).position, arrays
        except (FileFormatError, msgspec.ValidationError) as error:
            raise FileFormatError(f"the run cannot go on: {error} Give --force to begin it anew.") from error

    def remove(self) -> None:
        """Delete the snapshot of a finished run."""
        self.path.unlink(missing_ok=True)


def group_of(arrays: Mapping[str, Array], group: str) -> dict[str, Array]:
    """Return what a snapshot holds under ``GROUP:NAME``, by name."""
    return {key.partition(":")[2]: array for key, array in arrays.items() if key.startswith(f"{group}:")}
