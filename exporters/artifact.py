"""An artifact: a file that an exporter wrote, opened, checked and ready to be decoded.

Opening reads and checks structure and checksum; decoding rebuilds each tensor and compares its SHA-256. The rows of
:meth:`Artifact.rows` and the parts of :meth:`Artifact.overhead` add up to the size on disk, to the byte.
"""

from __future__ import annotations

import hashlib
import math
from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..compressor.checkpoint import SparseTensor, TensorRecord, TrainingCost
from ..errors import UnsupportedError
from ..files import Array, numpy_dtype
from ..models.source import ModelRecord
from .manifest import Manifest

# Formats whose tensors are not the recorded network's own: layers were cut, or folded and rounded.
TRANSFORMED = ("onnx-slim", "onnx-int8")


@dataclass(frozen=True)
class TensorRow:
    """What one tensor takes in an artifact.

    Attributes:
        name: its state_dict (or ONNX initializer) name.
        shape: its dense shape.
        nnz: how many of its weights are kept (not pruned, or trained in a frozen network).
        bytes: what the file spends on it.
        codec: how it is stored.
        bound_bytes: the order-0 entropy bound of what is stored (:mod:`.bound`).
        max_abs_error: the most that rounding changed a weight by; None for lossless values.
    """

    name: str
    shape: tuple[int, ...]
    nnz: int
    bytes: int
    codec: str
    bound_bytes: float
    max_abs_error: float | None = None


class Artifact(ABC):
    """A network in one of our formats, or any ONNX file.

    Attributes:
        path: the file; :meth:`files` lists it with what lies beside it.
        format: the key of its exporter.
        metadata: what the file says about itself; None for a foreign ONNX file.
        is_graph: whether the file is an ONNX graph, which a runtime loads as it is.
    """

    is_graph = False

    def __init__(self, path: Path, format: str, metadata: Manifest | None) -> None:
        self.path = path
        self.format = format
        self.metadata = metadata

    @property
    def model(self) -> ModelRecord | None:
        """The model source; None for a foreign file."""
        return self.metadata.model if self.metadata else None

    @property
    def chain(self) -> list[dict[str, Any]] | None:
        """The network as a list of layers, when it is a plain chain and the format carries it."""
        return self.metadata.chain if self.metadata else None

    @property
    def training(self) -> TrainingCost | None:
        """What the checkpoint cost; None when nothing was trained or nothing is known."""
        return self.metadata.training if self.metadata else None

    def files(self) -> list[Path]:
        """Return every file of the artifact, the one that was opened first."""
        return [self.path]

    @property
    def size(self) -> int:
        """Bytes on disk, all files."""
        return sum(path.stat().st_size for path in self.files())

    @property
    def sha256(self) -> str:
        """SHA-256 (hexadecimal) of the bytes of all files, one after the other."""
        digest = hashlib.sha256()
        for path in self.files():
            with path.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    @abstractmethod
    def names(self) -> list[str]:
        """Return the names of all tensors, aliases included, in state_dict order."""

    @abstractmethod
    def tensor(self, name: str) -> Array:
        """Return one tensor, dense, as the network computes with it.

        Raises:
            HashMismatchError: it decodes to other bytes than were written.
            FileFormatError: the file is malformed or holds no such tensor.
        """

    @abstractmethod
    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record by name; its SHA-256 may be cut short (``packed``) or empty (a foreign file)."""

    @abstractmethod
    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes, in order; decodes the tensors, because their bound depends on them."""

    @abstractmethod
    def overhead(self) -> dict[str, int]:
        """Return the bytes that belong to no tensor: ``header``, ``graph``, ``other``."""

    def tensors(self) -> dict[str, Array]:
        """Return every tensor, dense and checked, by name; aliases share one array."""
        records = self.records()
        dense = {name: self.tensor(name) for name in self.names() if records[name].alias_of is None}
        return {name: dense[records[name].alias_of or name] for name in self.names()}

    def sparse_tensors(self) -> Iterator[SparseTensor]:
        """Yield mask, kept values and record of every tensor that is no alias, checked; dense formats have no masks.

        Raises:
            UnsupportedError: the format stores dense values only.
        """
        raise UnsupportedError(f"{self.path}: the format '{self.format}' stores dense values, no masks.")

    def verify(self) -> None:
        """Decode every tensor and compare its hash, one at a time.

        Raises:
            HashMismatchError: naming the first tensor that differs.
        """
        records = self.records()
        for name in self.names():
            if records[name].alias_of is None:
                self.tensor(name)


def dense_bytes(artifact: Artifact) -> int:
    """Return the bytes of every tensor in its dense dtype; tied weights once."""
    return sum(
        math.prod(record.shape) * numpy_dtype(record.dtype).itemsize
        for record in artifact.records().values()
        if record.alias_of is None
    )
