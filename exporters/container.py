"""What ``packed``, ``csr`` and ``nm`` files share: a safetensors container, one metadata key, a manifest, a checksum.

The metadata key holds ``{"format": ..., "version": ..., ...}``. Every bit of a file is covered: the header by its own
redundancy, the manifest and the tensors by a CRC-32, and each decoded tensor by its SHA-256.
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec

from ..compressor.checkpoint import SparseTensor, TensorRecord
from ..compressor.mask import BoolArray, unpack_bits
from ..compressor.parametrisations import PARAMETRISATIONS, Parts
from ..compressor.parametrisations.masks import MASKS
from ..errors import FileFormatError, HashMismatchError
from ..files import Array, TensorFile, numpy_dtype, sha256_array
from ..models.seeding.rebuild import rebuild
from .artifact import Artifact, TensorRow
from .bound import part_bound, parts_bound
from .manifest import Manifest, TensorEntry

PREFIX = "sparsepack."


@dataclass(frozen=True)
class StoredTensor:
    """One tensor as it lies in a file: decoded from its codecs, but not put together.

    Attributes:
        mask: bool, dense shape; None when the tensor is stored whole.
        values: 1-D, in the stored dtype; None when a seed draws them all.
        codec: how it is stored, for people.
        codes: of coded values, which ``values`` holds decoded; None for others.
        mask_drawn: whether a seed draws the mask, too.
        parts: what else is stored, by name; one that another tensor stores included.
    """

    mask: BoolArray | None
    values: Array | None
    codec: str
    codes: Array | None = None
    mask_drawn: bool = False
    parts: Parts = field(default_factory=dict)


def check_version(path: Path, metadata: Any, format: str, version: int) -> None:
    """Refuse a file of another format or version.

    Args:
        path: for the message.
        metadata: decoded JSON with ``format`` and ``version``.
        format: the format's name.
        version: the version that this release reads.

    Raises:
        FileFormatError: it is of another format, or of a version that this release does not read.
    """
    if not isinstance(metadata, dict) or metadata.get("format") != PREFIX + format:
        raise FileFormatError(f"{path} is not a sparsepack file of format '{format}'.")
    found = metadata.get("version")
    if type(found) is not int or found != version:
        raise FileFormatError(
            f"{path} is a '{format}' file of version {found}; this release reads version {version}. "
            "Install a newer sparsepack to read it."
        )


class ContainerArtifact(Artifact):
    """An artifact of ours in a safetensors container; formats differ in how one tensor is read."""

    def __init__(self, file: TensorFile, format: str, manifest: Manifest) -> None:
        super().__init__(file.path, format, manifest)
        self.file = file
        self.manifest = manifest
        self._entries = {entry.name: entry for entry in manifest.tensors}

    @abstractmethod
    def read(self, entry: TensorEntry) -> StoredTensor:
        """Return a tensor that is no alias, as it lies in the file.

        Raises:
            FileFormatError: its stream is malformed; the caller adds file and tensor to the sentence.
        """

    @abstractmethod
    def tensor_bytes(self, entry: TensorEntry) -> int:
        """Return what the file spends on a tensor that is no alias, without decoding it."""

    def digest(self, entry: TensorEntry) -> str:
        """Return the SHA-256 that a decoded tensor must have (hexadecimal), or as much of its beginning as is kept."""
        return entry.sha256

    def names(self) -> list[str]:
        """Return the names of all tensors; see :meth:`.artifact.Artifact.names`."""
        return list(self._entries)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record; see :meth:`.artifact.Artifact.records`."""
        return {name: self._record(entry) for name, entry in self._entries.items()}

    def tensor(self, name: str) -> Array:
        """Return one tensor, dense and checked; see :meth:`.artifact.Artifact.tensor`."""
        return self._decode(self._entry(name).alias_of or name)[1]

    def sparse(self, name: str) -> SparseTensor:
        """Return record, mask and values (in the tensor's own dtype) of a tensor that is no alias; checked.

        Raises:
            HashMismatchError: it decodes to other bytes than were written.
            FileFormatError: its part of the file is malformed.
        """
        return self._decode(name)[0]

    def _decode(self, name: str) -> tuple[SparseTensor, Array]:
        """Return a tensor taken apart and put together; the record has the whole hash."""
        sparse = self._sparse(name)
        dense = sparse.dense()
        digest = sha256_array(dense)
        if not sparse.record.sha256 or not digest.startswith(sparse.record.sha256):
            raise HashMismatchError(
                f"{self.path}: tensor '{name}' decodes to other bytes than were written (SHA-256 differs)."
            )
        record = msgspec.structs.replace(sparse.record, sha256=digest)
        return SparseTensor(record, sparse.mask, sparse.values, sparse.parts), dense

    def _sparse(self, name: str) -> SparseTensor:
        entry = self._entry(name)
        record = self._record(entry)
        dtype = numpy_dtype(record.dtype)
        stored = self._read(entry)
        if stored.parts:
            return self._with_parts(record, stored)
        if stored.values is not None:
            values = stored.values.astype(dtype, copy=False)
            return SparseTensor(record, stored.mask, values if record.masked else values.reshape(record.shape))
        if record.seed is None:
            raise FileFormatError(f"{self.path}: tensor '{name}' has neither values nor a seed.")
        if stored.mask is not None:
            return SparseTensor(record, stored.mask, None)
        return SparseTensor(record, None, rebuild(record.seed, record.shape).astype(dtype, copy=False))

    def _with_parts(self, record: TensorRecord, stored: StoredTensor) -> SparseTensor:
        mask = stored.mask
        if MASKS in stored.parts:
            mask = unpack_bits(stored.parts[MASKS][record.task], record.shape)
        try:
            PARAMETRISATIONS[record.parametrisation].check(record, stored.parts)
        except FileFormatError as error:
            raise FileFormatError(f"{self.path}: {error}") from error
        values = stored.values
        if values is not None and mask is None:
            values = values.reshape(record.shape)
        return SparseTensor(record, mask, values, stored.parts)

    def sparse_tensors(self) -> Iterator[SparseTensor]:
        """Yield every tensor that is no alias; see :meth:`.artifact.Artifact.sparse_tensors`."""
        for name, entry in self._entries.items():
            if entry.alias_of is None:
                yield self.sparse(name)

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes; see :meth:`.artifact.Artifact.rows`."""
        rows = []
        for entry in self.manifest.tensors:
            if entry.alias_of is not None:
                rows.append(TensorRow(entry.name, entry.shape, 0, 0, f"alias of {entry.alias_of}", 0.0))
                continue
            stored = self._read(entry)
            values = stored.values if stored.codes is None else stored.codes
            mask = None if stored.mask_drawn else stored.mask
            bound = part_bound(mask, values, entry.structure, entry.output_axis)
            bound += parts_bound(self.manifest.record(entry), stored.parts)
            size = self.tensor_bytes(entry)
            rows.append(TensorRow(entry.name, entry.shape, entry.kept_count, size, stored.codec, bound, entry.error))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes that belong to no tensor; see :meth:`.artifact.Artifact.overhead`."""
        tensors = sum(self.tensor_bytes(entry) for entry in self.manifest.tensors if entry.alias_of is None)
        return {"header": self.size - tensors, "graph": 0, "other": 0}

    def _entry(self, name: str) -> TensorEntry:
        if name not in self._entries:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        return self._entries[name]

    def _read(self, entry: TensorEntry) -> StoredTensor:
        try:
            return self.read(entry)
        except FileFormatError as error:
            raise FileFormatError(f"{self.path}: tensor '{entry.name}' is corrupt: {error}") from error

    def _record(self, entry: TensorEntry) -> TensorRecord:
        return msgspec.structs.replace(self.manifest.record(entry), sha256=self.digest(entry))
