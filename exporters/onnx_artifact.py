"""An ONNX file as an artifact: one of ours, with a manifest, or anyone's.

Its tensors are the float constants of the main graph. A file that carries our metadata entry is checked against the
hashes in it; a foreign one has none, and only its structure is checked.
"""

from __future__ import annotations

from pathlib import Path

import msgspec
import numpy as np

from ..compressor.checkpoint import TensorRecord, check_hash
from ..errors import FileFormatError
from ..files import Array, numpy_dtype, plausible_bytes
from ..models.onnx_file import OnnxFile
from ..models.onnx_tensor import StoredTensor
from ..models.onnx_weights import prunable_constants
from .artifact import Artifact, TensorRow
from .bound import part_bound
from .container import PREFIX, check_version
from .manifest import Manifest, TensorEntry, read_manifest
from .onnx_dense import FORMAT, VERSION
from .onnx_seal import read_seal
from .onnx_slim import FORMAT as SLIM
from .onnx_slim import VERSION as SLIM_VERSION
from .sparse_initializers import StoredSparse, locate_sparse

_VERSIONS = {FORMAT: VERSION, SLIM: SLIM_VERSION}


class OnnxArtifact(Artifact):
    """An opened ONNX file; tensors are read when asked for."""

    is_graph = True

    def __init__(self, path: Path) -> None:
        self._file = OnnxFile(path)
        super().__init__(path, *_manifest(path, self._file.total_bytes))
        self._entries: dict[str, TensorEntry] = {}
        if self.metadata is not None:
            self._entries = {entry.name: entry for entry in self.metadata.tensors}
        found = ((name, self._file.stored(name)) for name in self._file.constants if name)
        self._stored: dict[str, StoredTensor | StoredSparse] = {
            name: stored for name, stored in found if stored is not None
        }
        self._find_sparse()
        self._records = self._describe()

    def _find_sparse(self) -> None:
        limit = plausible_bytes(self.path.stat().st_size)
        for name, span in self._file.sparse.items():
            stored = locate_sparse(self.path, span, limit)
            if stored is not None and name in self._stored:
                raise FileFormatError(f"{self.path}: '{name}' is both a dense and a sparse initializer.")
            if stored is not None:
                self._stored[name] = stored

    def _describe(self) -> dict[str, TensorRecord]:
        prunable = {tensor.name: tensor for tensor in prunable_constants(self._file)}
        records = {}
        for name, stored in self._stored.items():
            entry = self._entries.get(name)
            if entry is not None and self.metadata is not None:
                if stored.dtype != numpy_dtype(entry.stored_dtype) or stored.shape != entry.shape:
                    raise FileFormatError(f"{self.path}: tensor '{name}' does not fit the file's own manifest.")
                records[name] = self.metadata.record(entry)
                continue
            role, axis = ("prunable", prunable[name].output_axis) if name in prunable else ("parameter", 0)
            records[name] = TensorRecord(name, stored.shape, stored.dtype.name, "", role=role, output_axis=axis)
        missing = set(self._entries) - set(records)
        if missing:
            raise FileFormatError(f"{self.path}: tensor '{min(missing)}' is missing, which the file's manifest lists.")
        return records

    def files(self) -> list[Path]:
        """Return the model and its external data; see :meth:`.artifact.Artifact.files`."""
        return [self.path, *(self.path.parent / location for location in self._file.data_files)]

    def names(self) -> list[str]:
        """Return the names of the float constants; see :meth:`.artifact.Artifact.names`."""
        return list(self._records)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record; the SHA-256 is empty for a foreign file's."""
        return dict(self._records)

    def tensor(self, name: str) -> Array:
        """Return one tensor; see :meth:`.artifact.Artifact.tensor`."""
        if name not in self._records:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        record = self._records[name]
        dense = self._stored[name].read().astype(numpy_dtype(record.dtype), copy=False)
        if record.sha256:
            check_hash(record, dense)
        return dense

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes; zeros count as pruned where the file has no manifest that knows better."""
        rows = []
        payloads = self._payloads()
        for name, stored in self._stored.items():
            values = stored.read()
            # -0.0 is a value somebody stored; only the bit pattern of +0.0 is what pruning leaves behind.
            words = values.reshape(-1).view(f"<u{values.dtype.itemsize}")
            mask = words != 0
            record = self._records[name]
            entry = self._entries.get(name)
            kept = entry.kept_count if entry else int(np.count_nonzero(mask))
            bound = part_bound(
                None if mask.all() else mask.reshape(record.shape),
                values.reshape(-1)[mask],
                record.structure,
                record.output_axis,
            )
            layout = "sparse initializer" if isinstance(stored, StoredSparse) else "dense"
            rows.append(TensorRow(name, record.shape, kept, payloads[name], f"{layout} {stored.dtype.name}", bound))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes outside the tensors' values: the graph, and padding in external data."""
        payloads = self._payloads()
        sizes = {False: 0, True: 0}
        for name, stored in self._stored.items():
            sizes[stored.file == self.path] += payloads[name]
        graph = self.path.stat().st_size - sizes[True]
        return {"header": 0, "graph": graph, "other": self.size - graph - sizes[True] - sizes[False]}

    def _payloads(self) -> dict[str, int]:
        """Return the bytes of each tensor's values; tensors that share their bytes are counted with the first."""
        seen: set[tuple[Path, tuple[tuple[int, int], ...]]] = set()
        payloads = {}
        for name, stored in self._stored.items():
            place = (stored.file, stored.spans)
            payloads[name] = 0 if place in seen else sum(end - start for start, end in stored.spans)
            seen.add(place)
        return payloads


def _manifest(path: Path, total: int) -> tuple[str, Manifest | None]:
    """Return format and manifest when the file begins with one of ours, after comparing the hash of the whole file."""
    content = read_seal(path)
    if content is None:
        return FORMAT, None
    try:
        metadata = msgspec.json.decode(content)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}: its sparsepack entry is no JSON: {error}.") from error
    claimed = metadata.get("format") if isinstance(metadata, dict) else None
    format = next((name for name in _VERSIONS if claimed == PREFIX + name), FORMAT)
    check_version(path, metadata, format, _VERSIONS[format])
    return format, read_manifest(path, metadata.get("manifest"), total)
