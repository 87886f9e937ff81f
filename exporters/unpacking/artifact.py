"""An ``onnx-unpack`` file opened as an artifact: decoded by numpy alone, by the rules that its graph follows.

Opening compares the hash of the whole file and checks that every tensor of the manifest is there; tensors are read and
decoded when asked for.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import onnx

from ...compressor.checkpoint import SparseTensor, TensorRecord, check_hash
from ...errors import FileFormatError
from ...files import Array
from ...models.onnx_file import OnnxFile
from ...models.onnx_tensor import tensor_header
from ...models.protobuf import LENGTH, fields
from ..artifact import Artifact, TensorRow
from ..bound import part_bound
from ..container import PREFIX
from ..manifest import TensorEntry, read_manifest
from ..onnx_seal import read_seal
from ..value_types import CODEBOOK
from . import positions, seeded, values
from .tensor import stored_codes, unpack

FORMAT = "onnx-unpack"
VERSION = 1
# What belongs to a tensor: under its own name, or under its name and one of these.
_SUFFIXES = ("", positions.SUFFIX, values.SUFFIX, values.SCALES, values.TABLE, seeded.ROWS, seeded.COLUMNS)
_TENSOR = onnx.TensorProto


@dataclass(frozen=True)
class _Stored:
    """Where one initializer's bytes lie."""

    dtype: np.dtype[Any]
    shape: tuple[int, ...]
    file: Path
    start: int
    length: int

    def read(self) -> Array:
        with self.file.open("rb") as stream:
            stream.seek(self.start)
            content = stream.read(self.length)
        if len(content) != self.length:
            raise FileFormatError(f"{self.file} ends early.")
        return np.frombuffer(content, self.dtype).reshape(self.shape).copy()


class UnpackArtifact(Artifact):
    """An opened ``onnx-unpack`` file."""

    is_graph = True

    def __init__(self, path: Path, content: dict[str, Any]) -> None:
        if content.get("version") != VERSION:
            raise FileFormatError(
                f"{path} is an '{FORMAT}' file of version {content.get('version')}; this release reads version "
                f"{VERSION}. Install a newer sparsepack to read it."
            )
        # Checks the whole structure, and that external data lies inside the model's folder.
        self._file = OnnxFile(path)
        manifest = read_manifest(path, content.get("manifest"), self._file.total_bytes)
        super().__init__(path, FORMAT, manifest)
        self._manifest = manifest
        self._entries = {entry.name: entry for entry in manifest.tensors}
        self._stored = dict(_initializers(path))
        for entry in manifest.tensors:
            if not entry.values or sum(stored.length for stored in self._parts(entry)) != _stated(entry):
                raise FileFormatError(f"{path}: tensor '{entry.name}' does not fit the file's own manifest.")

    def files(self) -> list[Path]:
        """Return the model and its external data; see :meth:`.artifact.Artifact.files`."""
        return [self.path, *(self.path.parent / location for location in self._file.data_files)]

    def names(self) -> list[str]:
        """Return the names of all tensors; see :meth:`.artifact.Artifact.names`."""
        return list(self._entries)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record; see :meth:`.artifact.Artifact.records`."""
        return {name: self._manifest.record(entry) for name, entry in self._entries.items()}

    def tensor(self, name: str) -> Array:
        """Return one tensor, dense and checked; see :meth:`.artifact.Artifact.tensor`."""
        sparse = self._sparse(name)
        dense = sparse.dense()
        check_hash(sparse.record, dense)
        return dense

    def sparse_tensors(self) -> Iterator[SparseTensor]:
        """Yield every tensor; see :meth:`.artifact.Artifact.sparse_tensors`."""
        for name in self._entries:
            yield self._sparse(name)

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes: positions, values, scales and keys; see :meth:`.artifact.Artifact.rows`."""
        rows = []
        for name, entry in self._entries.items():
            sparse = self._sparse(name)
            stored = None
            if entry.parametrisation != "selected":
                stored = sparse.values
                if entry.values and entry.values[0] == CODEBOOK:
                    stored = stored_codes(entry, sparse.mask, self._read)
                elif entry.stored is not None and name + values.SUFFIX in self._stored:
                    stored = self._read(name + values.SUFFIX)
            bound = part_bound(
                sparse.mask, None if stored is None else stored.reshape(-1), entry.structure, entry.output_axis
            )
            codec = " + ".join(found[0] for found in (entry.positions, entry.values) if found)
            size = sum(part.length for part in self._parts(entry))
            rows.append(TensorRow(name, entry.shape, entry.kept_count, size, codec, bound))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes of graph and manifest; see :meth:`.artifact.Artifact.overhead`."""
        parts = [part for entry in self._entries.values() for part in self._parts(entry)]
        inside = sum(part.length for part in parts if part.file == self.path)
        graph = self.path.stat().st_size - inside
        return {"header": 0, "graph": graph, "other": self.size - graph - sum(part.length for part in parts)}

    def _sparse(self, name: str) -> SparseTensor:
        if name not in self._entries:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        entry = self._entries[name]
        try:
            return unpack(entry, self._manifest.record(entry), self._read)
        except FileFormatError as error:
            raise FileFormatError(f"{self.path}: {error}") from error

    def _read(self, name: str) -> Array:
        if name not in self._stored:
            raise FileFormatError(f"the initializer '{name}' is missing.")
        return self._stored[name].read()

    def _parts(self, entry: TensorEntry) -> Iterator[_Stored]:
        for suffix in _SUFFIXES:
            stored = self._stored.get(entry.name + suffix)
            if stored is not None:
                yield stored


def open_unpack(path: Path) -> UnpackArtifact | None:
    """Return an ``onnx-unpack`` file opened, or None when an ONNX file is none.

    Raises:
        FileFormatError: it is one, but corrupt or from a later release.
    """
    sealed = read_seal(path)
    if sealed is None:
        return None
    try:
        content = msgspec.json.decode(sealed)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}: what it says about itself is no JSON: {error}.") from error
    if not isinstance(content, dict) or content.get("format") != PREFIX + FORMAT:
        return None
    return UnpackArtifact(path, content)


def _stated(entry: TensorEntry) -> int:
    """Return the bytes that the manifest states for an entry; keys, which follow from the shape, included."""
    return (entry.positions[1] if entry.positions else 0) + (entry.values[1] if entry.values else 0)


def _initializers(path: Path) -> Iterator[tuple[str, _Stored]]:
    """Yield every initializer that has raw bytes or external data, by name."""
    with path.open("rb") as stream:
        content = memoryview(stream.read())
    for field in fields(content, 0, len(content)):
        if field.number != onnx.ModelProto.GRAPH_FIELD_NUMBER or field.wire != LENGTH:
            continue
        for inner in fields(content, field.start, field.end):
            if inner.number == onnx.GraphProto.INITIALIZER_FIELD_NUMBER and inner.wire == LENGTH:
                found = _locate(path, content, inner.start, inner.end)
                if found is not None:
                    yield found


def _locate(path: Path, content: memoryview, start: int, end: int) -> tuple[str, _Stored] | None:
    header = tensor_header(content, start, end)
    if min(header.dims, default=0) < 0 or header.data_type not in onnx.helper.get_all_tensor_dtypes():
        raise FileFormatError(f"{path}: the initializer '{header.name}' has no shape or type that can be read.")
    if header.data_type == _TENSOR.STRING:
        return None
    shape, dtype = tuple(header.dims), np.dtype(onnx.helper.tensor_dtype_to_np_dtype(header.data_type))
    file, begin, length = path, 0, 0
    if header.data_location == _TENSOR.EXTERNAL:
        entries = {entry.key: entry.value for entry in header.external_data}
        file = path.parent / entries.get("location", "")
        numbers = [entries.get(key, "0") for key in ("offset", "length")]
        if not all(number.isascii() and number.isdigit() for number in numbers):
            raise FileFormatError(f"{path}: '{header.name}' lies at no readable place in its external data.")
        begin, length = map(int, numbers)
    else:
        for field in fields(content, start, end):
            if field.number == _TENSOR.RAW_DATA_FIELD_NUMBER:
                begin, length = field.start, field.end - field.start
    if length != math.prod(shape) * dtype.itemsize:
        return None
    return header.name, _Stored(dtype, shape, file, begin, length)
