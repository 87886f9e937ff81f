"""The RUN folder: who may write it, what it holds, and whether it is this run's.

recipe.yaml               the resolved recipe; running it again gives the same checkpoint
checkpoint.safetensors    the result
tape/                     earlier states that the method asked for
log.jsonl                 one JSON object a line: epochs, stages, seconds, accuracy
manifest.json             the run's identity; once it is complete, the SHA-256 of the files above (not the log)
snapshot.safetensors      while the run is under way: where it goes on after a kill
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Any

import msgspec

from ..errors import FileFormatError, OutputExistsError, SparsepackError
from ..files import canonical_json, sha256_file, write_bytes
from .exclusive import try_hold

SCHEMA = "sparsepack.run/1"
RECIPE, CHECKPOINT, LOG = "recipe.yaml", "checkpoint.safetensors", "log.jsonl"


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What tells one run from another, and a finished one from one that is under way.

    Attributes:
        schema: :data:`SCHEMA`.
        identity: SHA-256 of the resolved recipe and of the model files that it names.
        threads: the run uses and, when it goes on, keeps using.
        complete: whether the checkpoint is written.
        files: SHA-256 by path in the folder, once complete.
    """

    schema: str
    identity: str
    threads: int
    complete: bool = False
    files: dict[str, str] = {}


class RunFolder:
    """A RUN folder and the paths in it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.recipe = path / RECIPE
        self.checkpoint = path / CHECKPOINT
        self.tape = path / "tape"
        self.log = path / LOG
        self.manifest = path / "manifest.json"
        self.snapshot = path / "snapshot.safetensors"

    def read_manifest(self) -> Manifest | None:
        """Return the manifest, or None when there is none, or one of a run that came to nothing.

        Raises:
            OutputExistsError: the folder holds results of ours without a manifest, or one that cannot be read.
        """
        try:
            manifest = msgspec.json.decode(self.manifest.read_bytes(), type=Manifest)
        except (FileNotFoundError, NotADirectoryError):
            if self.checkpoint.exists() or self.snapshot.exists():
                raise OutputExistsError(
                    f"{self.path} holds a checkpoint but no manifest; choose another folder, or give --force."
                ) from None
            return None
        except (OSError, msgspec.DecodeError) as error:
            raise OutputExistsError(
                f"{self.manifest} cannot be read ({error}); choose another folder, or give --force to begin anew."
            ) from error
        return manifest if manifest.complete or self.snapshot.exists() else None

    def begin(self, manifest: Manifest, recipe: str) -> None:
        """Write what a fresh run starts with, over whatever an earlier run left."""
        # In this order a kill at any point leaves a folder that is either still the earlier run's or begun again.
        self.snapshot.unlink(missing_ok=True)
        self._write(manifest)
        for file in (self.checkpoint, self.log):
            file.unlink(missing_ok=True)
        shutil.rmtree(self.tape, ignore_errors=True)
        write_bytes(self.recipe, recipe.encode())

    def complete(self, manifest: Manifest) -> None:
        """Write the final manifest with the digests of all result files, then remove the snapshot."""
        files = [self.recipe, self.checkpoint, *sorted(self.tape.glob("*.safetensors"))]
        digests = {file.relative_to(self.path).as_posix(): sha256_file(file) for file in files}
        self._write(msgspec.structs.replace(manifest, complete=True, files=digests))
        self.snapshot.unlink(missing_ok=True)

    def check_complete(self, manifest: Manifest) -> None:
        """Compare the result files of a finished run with the manifest, and remove a snapshot that it no longer needs.

        Raises:
            FileFormatError: one is missing or was changed.
        """
        for name, digest in manifest.files.items():
            file = self.path / name
            if not file.is_file() or sha256_file(file) != digest:
                raise FileFormatError(f"{file} is missing or not what the run wrote; give --force to run it again.")
        # A kill between the final manifest and this step of completing leaves it behind.
        self.snapshot.unlink(missing_ok=True)

    def _write(self, manifest: Manifest) -> None:
        write_bytes(self.manifest, json.dumps(msgspec.to_builtins(manifest), indent=2).encode() + b"\n")

    def append(self, event: Mapping[str, Any]) -> None:
        """Add one line to the log."""
        try:
            with self.log.open("ab") as stream:
                stream.write(canonical_json(event) + b"\n")
        except OSError as error:
            raise SparsepackError(f"cannot write {self.log}: {error.strerror or error}.") from error

    def put_log(self, content: bytes) -> None:
        """Let the log begin with ``content``, and nothing else be in it."""
        write_bytes(self.log, content)

    def log_size(self) -> int:
        """Return the log's length in bytes."""
        return self.log.stat().st_size if self.log.exists() else 0

    def cut_log(self, size: int) -> None:
        """Drop what was logged after ``size`` bytes; those steps will be taken and logged again."""
        if self.log_size() > size:
            os.truncate(self.log, size)

    @contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the folder against other processes; the system lets go of it when the process ends, however it ends.

        Raises:
            SparsepackError: another process runs in it.
        """
        file = self.path / ".lock"
        try:
            self.path.mkdir(parents=True, exist_ok=True)
            stream = file.open("ab")
        except OSError as error:
            raise SparsepackError(f"cannot write {self.path}: {error.strerror or error}.") from error
        with stream:
            # The one who held it may have removed the file between our opening and our locking it.
            if not (try_hold(stream) and _same(file, stream)):
                raise SparsepackError(
                    f"another process is running in {self.path}; wait for it, or choose another folder."
                )
            try:
                yield
            finally:
                if [entry.name for entry in self.path.iterdir()] == [file.name]:
                    # Nothing came of it: leave no trace.
                    file.unlink()
                    self.path.rmdir()


def _same(file: Path, stream: IO[bytes]) -> bool:
    try:
        return file.stat().st_ino == os.fstat(stream.fileno()).st_ino
    except OSError:
        return False


def read_log(path: Path) -> list[dict[str, Any]]:
    """Return the events in a run's log; a line that a kill cut short is left out.

    Args:
        path: ``log.jsonl``.
    """
    if not path.exists():
        return []
    events: list[dict[str, Any]] = []
    for line in path.read_bytes().splitlines():
        try:
            events.append(msgspec.json.decode(line, type=dict[str, Any]))
        except msgspec.DecodeError:
            continue
    return events


def training_seconds(path: Path) -> float:
    """Return how long the trainings of a run took together, over all resumptions.

    Args:
        path: ``log.jsonl``.
    """
    return sum(float(event["seconds"]) for event in read_log(path) if event.get("event") == "stage")
