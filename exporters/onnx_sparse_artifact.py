"""Reading ``onnx-sparse``: the tensors of its manifest, packed or dense, each checked against its hash."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path

import msgspec
import numpy as np
import onnx

from ..compressor.checkpoint import TensorRecord, check_hash
from ..compressor.mask import BoolArray
from ..errors import FileFormatError
from ..files import Array, numpy_dtype
from ..models.onnx_file import OnnxFile
from ..models.onnx_tensor import StoredTensor
from .artifact import Artifact, TensorRow
from .bound import part_bound
from .manifest import TensorEntry, read_manifest
from .onnx_seal import sealed_metadata
from .onnx_sparse import FORMAT, VERSION
from .sparse_graph import gaps
from .sparse_graph.choose import LayerChoice
from .sparse_graph.rewrite import GAPS, VALUES


class OnnxSparseArtifact(Artifact):
    """An opened ``onnx-sparse`` file.

    Attributes:
        layers: what was chosen for each layer with constant weights, and why, in graph order.
    """

    is_graph = True

    def __init__(self, path: Path) -> None:
        metadata = sealed_metadata(path, FORMAT, VERSION)
        manifest = read_manifest(path, metadata.get("manifest"), path.stat().st_size)
        super().__init__(path, FORMAT, manifest)
        self._manifest = manifest
        try:
            self.layers = msgspec.convert(metadata.get("layers"), list[LayerChoice])
        except msgspec.ValidationError as error:
            raise FileFormatError(f"{path}: its list of layers is malformed: {error}.") from error
        self._file = OnnxFile(path)
        self._entries = {entry.name: entry for entry in manifest.tensors}
        self._stored = {name: self._find(entry) for name, entry in self._entries.items()}

    def _find(self, entry: TensorEntry) -> StoredTensor | None:
        """Return where a tensor's values lie, or None for a weight of which nothing is kept."""
        packed = self._packed(entry.name)
        name = entry.name + VALUES if packed else entry.name
        if name not in self._file.constants:
            raise FileFormatError(f"{self.path}: tensor '{entry.name}' is missing, which the file's manifest lists.")
        stored = self._file.stored(name)
        if stored is None and packed:
            return None
        fits = stored is not None and stored.dtype == numpy_dtype(entry.stored_dtype)
        if stored is None or not fits or (len(stored.shape) != 1 if packed else stored.shape != entry.shape):
            raise FileFormatError(f"{self.path}: tensor '{entry.name}' does not fit the file's own manifest.")
        return stored

    def _packed(self, name: str) -> bool:
        return name + GAPS in self._file.constants

    def _gaps(self, name: str) -> Array:
        tensor = self._file.tensor(name + GAPS)
        raw = tensor.data_type == onnx.TensorProto.UINT8 and list(tensor.dims) == [len(tensor.raw_data)]
        if not raw or tensor.data_location == onnx.TensorProto.EXTERNAL:
            raise FileFormatError(f"{self.path}: the gaps of tensor '{name}' are no list of bytes.")
        return np.frombuffer(tensor.raw_data, np.uint8)

    def _read(self, name: str) -> tuple[BoolArray | None, Array]:
        """Return the mask (None for a dense tensor) and the stored values."""
        entry, stored = self._entries[name], self._stored[name]
        values = np.zeros(0, numpy_dtype(entry.stored_dtype)) if stored is None else stored.read()
        if not self._packed(name):
            return None, values
        try:
            return gaps.unpack(self._gaps(name), entry.shape, values.size), values
        except FileFormatError as error:
            raise FileFormatError(f"{self.path}: tensor '{name}': {error}") from error

    @cached_property
    def _reasons(self) -> dict[str, str]:
        return {layer.weight: layer.reason for layer in self.layers if not layer.sparse}

    def names(self) -> list[str]:
        """Return the names of the manifest's tensors; see :meth:`.artifact.Artifact.names`."""
        return list(self._entries)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record."""
        return {name: self._manifest.record(entry) for name, entry in self._entries.items()}

    def tensor(self, name: str) -> Array:
        """Return one tensor; see :meth:`.artifact.Artifact.tensor`."""
        if name not in self._entries:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        record = self._manifest.record(self._entries[name])
        mask, values = self._read(name)
        values = values.astype(numpy_dtype(record.dtype), copy=False)
        if mask is not None:
            dense = np.zeros(record.shape, values.dtype)
            dense[mask] = values
            values = dense
        check_hash(record, values)
        return values

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes; a layer's weight that stayed dense says why."""
        rows = []
        for name, entry in self._entries.items():
            mask, values = self._read(name)
            size = values.nbytes
            if mask is not None:
                size += self._gaps(name).size
                codec = f"gaps {values.dtype.name}, runs sparse"
            else:
                codec = f"dense {values.dtype.name}"
                codec += f", {self._reasons[name]}" if name in self._reasons else ""
                mask = gaps.nonzero_bits(values)
                values = values[mask]
            positions = None if mask.all() else mask
            bound = part_bound(positions, values, entry.structure, entry.output_axis)
            rows.append(TensorRow(name, entry.shape, entry.kept_count, size, codec, bound))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes that belong to no tensor of the network."""
        tensors = 0
        for name in self._entries:
            stored = self._stored[name]
            tensors += 0 if stored is None else sum(end - start for start, end in stored.spans)
            tensors += self._gaps(name).size if self._packed(name) else 0
        return {"header": 0, "graph": self.size - tensors, "other": 0}
