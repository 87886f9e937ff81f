"""Reading ``onnx-int8``: the quantised tensors of its manifest and those left in floating point, checked."""

from __future__ import annotations

from pathlib import Path

import msgspec
from onnx import numpy_helper

from ..compressor.checkpoint import TensorRecord, check_hash
from ..errors import FileFormatError
from ..files import Array, numpy_dtype
from ..models.onnx_file import OnnxFile
from .artifact import Artifact, TensorRow
from .bound import part_bound
from .manifest import TensorEntry, read_manifest
from .onnx_int8 import FORMAT, VERSION, dequantised
from .onnx_seal import sealed_metadata

_Place = tuple[str, str, str, int]


class OnnxInt8Artifact(Artifact):
    """An opened ``onnx-int8`` file."""

    is_graph = True

    def __init__(self, path: Path) -> None:
        metadata = sealed_metadata(path, FORMAT, VERSION)
        manifest = read_manifest(path, metadata.get("manifest"), path.stat().st_size)
        super().__init__(path, FORMAT, manifest)
        self._manifest = manifest
        try:
            self._places = msgspec.convert(metadata.get("quantised"), dict[str, _Place])
        except msgspec.ValidationError as error:
            raise FileFormatError(f"{path}: its list of quantised tensors is malformed: {error}.") from error
        self._file = OnnxFile(path)
        self._entries = {entry.name: entry for entry in manifest.tensors}
        for name, entry in self._entries.items():
            self._check(name, entry)

    def _check(self, name: str, entry: TensorEntry) -> None:
        for part in self._parts(name):
            if part not in self._file.constants:
                raise FileFormatError(f"{self.path}: tensor '{part}' is missing, which the file's manifest lists.")
        header = self._file.tensor(self._parts(name)[0])
        stored = numpy_dtype(entry.stored_dtype)
        needed = entry.size * stored.itemsize
        if tuple(header.dims) != entry.shape or len(header.raw_data) != needed:
            raise FileFormatError(f"{self.path}: tensor '{name}' does not fit the file's own manifest.")

    def _parts(self, name: str) -> tuple[str, ...]:
        return self._places[name][:3] if name in self._places else (name,)

    def _array(self, part: str) -> Array:
        try:
            return numpy_helper.to_array(self._file.tensor(part))
        except (ValueError, TypeError) as error:
            raise FileFormatError(f"{self.path}: tensor '{part}' cannot be read: {error}.") from error

    def names(self) -> list[str]:
        """Return the names of the manifest's tensors; see :meth:`.artifact.Artifact.names`."""
        return list(self._entries)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record."""
        return {name: self._manifest.record(entry) for name, entry in self._entries.items()}

    def tensor(self, name: str) -> Array:
        """Return one tensor, decoded; see :meth:`.artifact.Artifact.tensor`."""
        if name not in self._entries:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        parts = [self._array(part) for part in self._parts(name)]
        dense = parts[0]
        if name in self._places:
            axis = self._places[name][3]
            lengths = {part.size for part in parts[1:]}
            whole = parts[1].size == 1 or (-dense.ndim <= axis < dense.ndim and lengths == {dense.shape[axis]})
            if not whole or parts[1].size != parts[2].size:
                raise FileFormatError(f"{self.path}: the scales of tensor '{name}' do not fit it.")
            dense = dequantised(parts[0], parts[1], parts[2], axis)
        check_hash(self._manifest.record(self._entries[name]), dense)
        return dense

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes: its values, and where it is quantised its scales and zero points."""
        rows, counted = [], set[str]()
        for name, entry in self._entries.items():
            parts = [part for part in self._parts(name) if part not in counted]
            counted.update(parts)
            size = sum(len(self._file.tensor(part).raw_data) for part in parts)
            values = self._array(self._parts(name)[0])
            codec = "dense" if name not in self._places else "quantised"
            bound = part_bound(None, values)
            rows.append(TensorRow(name, entry.shape, entry.kept_count, size, f"{codec} {values.dtype.name}", bound))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes that belong to no tensor of the network."""
        tensors = sum(row.bytes for row in self.rows())
        return {"header": 0, "graph": self.size - tensors, "other": 0}
