"""The checkpoint sequence of a run: the states that a method will want again, one file each, written once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import msgspec

from ...errors import FileFormatError, HashMismatchError
from ...files import Array, TensorFile, sha256_array, write_safetensors

FORMAT = "sparsepack.tape"
VERSION = 1

INITIAL = "initial"
DENSE = "dense"


def step_label(step: int) -> str:
    """Return the label of the state before step ``step``; step 0 is the initial state."""
    return INITIAL if step == 0 else f"step-{step}"


def round_label(number: int) -> str:
    """Return the label of the state and masks at the end of round ``number``; round 0 is the dense training."""
    return f"round-{number}"


def examples_label(number: int) -> str:
    """Return the label of the training examples (``examples``: indices) that round ``number`` found critical."""
    return f"critical-examples-{number}"


class _Header(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    format: str
    version: int
    label: str
    sha256: dict[str, str]


class MemoryTape:
    """Recorded states in memory, for loops that have no run folder."""

    def __init__(self) -> None:
        self.states: dict[str, dict[str, Array]] = {}

    def record(self, label: str, state: Mapping[str, Array]) -> None:
        """Keep a copy of a state."""
        self.states[label] = {name: array.copy() for name, array in state.items()}

    def read(self, label: str) -> Mapping[str, Array]:
        """Return a kept state."""
        return self.states[label]


class Tape:
    """Dense states by label in a folder.

    Attributes:
        folder: where the files lie; made with the first of them.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def path(self, label: str) -> Path:
        """Return the file of a label."""
        return self.folder / f"{label}.safetensors"

    def has(self, label: str) -> bool:
        """Return whether the state was recorded."""
        return self.path(label).exists()

    def record(self, label: str, state: Mapping[str, Array]) -> None:
        """Write a state atomically; recording the same one again gives the same bytes."""
        header = _Header(FORMAT, VERSION, label, {name: sha256_array(array) for name, array in state.items()})
        write_safetensors(self.path(label), state, msgspec.to_builtins(header))

    def read(self, label: str) -> dict[str, Array]:
        """Return a recorded state.

        Raises:
            FileFormatError: there is none, or the file is not what this class wrote.
        """
        file = TensorFile(self.path(label))
        state = {name: file.read(name) for name in file}
        check_header(file, FORMAT, VERSION, state)
        return state


def check_header(file: TensorFile, expected: str, version: int, state: Mapping[str, Array]) -> None:
    """Compare the arrays of a file with the SHA-256 digests in its metadata (``format``, ``sha256`` by name).

    Raises:
        FileFormatError: of another format or version.
        HashMismatchError: a tensor differs from what was written, or is missing.
    """
    metadata = file.metadata
    if not isinstance(metadata, dict) or metadata.get("format") != expected:
        raise FileFormatError(f"{file.path} is no file of the format {expected}.")
    if metadata.get("version") != version:
        raise FileFormatError(
            f"{file.path} is of version {metadata.get('version')}; this release reads version {version}; install a "
            "newer sparsepack."
        )
    digests = metadata.get("sha256")
    if digests != {name: sha256_array(array) for name, array in state.items()}:
        raise HashMismatchError(f"{file.path} is corrupt: its tensors are not those that were written.")
