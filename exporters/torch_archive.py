"""``torchscript`` and ``torch-export``: PyTorch's own zip archives, with dense values, sealed and byte-deterministic.

PyTorch writes the archive; what it holds is put into a new one without dates, identifiers and debugging notes, behind
an entry of ours that lists the tensors, where each lies, and the SHA-256 of everything else. PyTorch loads such a file
like any of its own; opening it as an artifact needs no PyTorch and reads no pickle.
"""

from __future__ import annotations

import hashlib
import io
import json
import struct
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..compressor.checkpoint import SparseCheckpoint, TensorRecord, check_hash
from ..errors import FileFormatError, HashMismatchError, ModelError, UnsupportedError
from ..files import Array, canonical_json, decoded_json, numpy_dtype, refuse_existing, write_bytes
from .artifact import Artifact, TensorRow
from .bound import part_bound
from .container import PREFIX, check_version
from .manifest import Manifest, TensorEntry, describe, identity_entry, manifest_json, read_manifest

if TYPE_CHECKING:
    from torch import nn

    from ..models.source import ModelSource

TORCHSCRIPT = "torchscript"
TORCH_EXPORT = "torch-export"
FORMATS = (TORCHSCRIPT, TORCH_EXPORT)
VERSION = 1
# What PyTorch calls the folder that everything in its archives lies in.
_FOLDER = "archive/"
ENTRY = _FOLDER + "extra/sparsepack.json"
_ALIGNMENT = 64
_LOCAL_HEADER = 30
# Notes for debuggers, examples and a random number: nothing that loading needs.
_DROPPED = (".debug_pkl", "/.data/serialization_id", "/traced_inputs.pkl")

Entries = dict[str, bytes]
Trace = Callable[["nn.Module", tuple[Any, ...]], Entries]


def write_torch_archive(
    checkpoint: SparseCheckpoint, path: Path, format: str, trace: Trace, *, source: ModelSource, force: bool = False
) -> None:
    """Write a checkpoint as one of PyTorch's archives.

    Args:
        checkpoint: any checkpoint of a network that PyTorch builds.
        path: where to.
        format: one of :data:`FORMATS`.
        trace: module in evaluation mode and example inputs in, the entries of PyTorch's archive out.
        source: the network.
        force: whether an existing file may be replaced.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: the network came from an ONNX file.
        ModelError: the checkpoint does not fit the network, or it cannot be traced.
    """
    from ..models.source import OnnxSource
    from ..models.tensors import to_torch

    refuse_existing(path, force)
    if isinstance(source, OnnxSource):
        raise UnsupportedError(f"'{format}' is written by PyTorch, which cannot build a model from an ONNX file.")
    state = checkpoint.dense_state()
    module = source.build()
    try:
        module.load_state_dict({name: to_torch(array) for name, array in state.items()})
    except RuntimeError as error:
        raise ModelError(f"the checkpoint does not fit the model '{source.record.text}': {error}") from error
    entries = trace(module.eval(), source.example_inputs(2))
    kept = {name: content for name, content in entries.items() if not name.endswith(_DROPPED)}
    places = _places(checkpoint, state, kept)
    described = [
        identity_entry(tensor.record, tensor.kept) if tensor.record.alias_of is None else _alias(tensor.record)
        for name, tensor in checkpoint.tensors.items()
        if (tensor.record.alias_of or name) in places
    ]
    manifest = describe(
        checkpoint.metadata, [(entry, None) for entry in described], values="fp32", max_abs_error=None, chain=False
    )
    head = {
        "format": PREFIX + format,
        "version": VERSION,
        "manifest": json.loads(manifest_json(manifest)),
        "places": places,
        "sha256": {n: hashlib.sha256(c).hexdigest() for n, c in kept.items() if n not in places.values()},
    }
    write_bytes(path, _zipped({ENTRY: canonical_json(head), **kept}))


def _alias(record: TensorRecord) -> TensorEntry:
    return TensorEntry(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        role=record.role,
        parametrisation="identity",
        output_axis=record.output_axis,
        alias_of=record.alias_of,
        sha256=record.sha256,
    )


def _places(checkpoint: SparseCheckpoint, state: Mapping[str, Array], entries: Entries) -> dict[str, str]:
    """Return the entry that holds each tensor; found by content, so that a tensor that was left out has none."""
    by_content: dict[bytes, list[str]] = {}
    for name, content in entries.items():
        if "/data/" in name and not name.endswith((".json", ".pkl", ".pt")):
            by_content.setdefault(content, []).append(name)
    places = {}
    for name, tensor in checkpoint.tensors.items():
        found = by_content.get(state[name].tobytes(), []) if tensor.record.alias_of is None else []
        if found:
            places[name] = found.pop(0)
    return places


def _zipped(entries: Entries) -> bytes:
    """Return a zip archive of uncompressed entries whose contents are aligned, as PyTorch writes them."""
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w", zipfile.ZIP_STORED) as archive:
        for name, content in entries.items():
            info = zipfile.ZipInfo(name, (1980, 1, 1, 0, 0, 0))
            # Four bytes of every extra field are its own header.
            begin = stream.tell() + _LOCAL_HEADER + len(name.encode()) + 4
            padding = -begin % _ALIGNMENT
            info.extra = struct.pack("<2sH", b"FB", padding) + b"Z" * padding
            archive.writestr(info, content)
    return stream.getvalue()


def open_torch_archive(path: Path) -> Artifact:
    """Open a zip archive of ours.

    Raises:
        FileFormatError: it is none of ours, or damaged.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            listed = _checked(path, infos)
            content = archive.read(ENTRY) if ENTRY in listed else None
    except (
        zipfile.BadZipFile,
        OSError,
        EOFError,
        ValueError,
        NotImplementedError,
        RuntimeError,
        struct.error,
    ) as error:
        raise FileFormatError(f"{path}: its zip archive is damaged: {error}.") from error
    if content is None:
        kind = "TorchScript" if any(name.endswith("/constants.pkl") for name in listed) else "zip"
        hint = "; 'compress prune FILE' reads TorchScript as a model" if kind == "TorchScript" else ""
        raise FileFormatError(f"{path} is no artifact: it is a {kind} file without a sparsepack entry{hint}.")
    try:
        head = decoded_json(content)
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path}: its sparsepack entry is no JSON: {error}.") from error
    claimed = head.get("format") if isinstance(head, dict) else None
    format = next((name for name in FORMATS if claimed == PREFIX + name), TORCHSCRIPT)
    check_version(path, head, format, VERSION)
    manifest = read_manifest(path, head.get("manifest"), path.stat().st_size)
    return TorchArchive(path, format, manifest, infos, head)


def _checked(path: Path, infos: list[zipfile.ZipInfo]) -> dict[str, zipfile.ZipInfo]:
    """Refuse what PyTorch does not write and what could cost more memory than the file has bytes."""
    listed = {info.filename: info for info in infos}
    if len(listed) != len(infos):
        raise FileFormatError(f"{path}: its zip archive lists an entry twice.")
    if any(info.compress_type != zipfile.ZIP_STORED or info.file_size != info.compress_size for info in infos):
        if ENTRY in listed:
            raise FileFormatError(f"{path}: its zip archive is compressed; sparsepack's are not.")
    elif sum(info.file_size for info in infos) > path.stat().st_size:
        raise FileFormatError(f"{path}: its zip archive claims more bytes than the file has.")
    return listed


class TorchArchive(Artifact):
    """An opened archive; tensors are read when asked for."""

    def __init__(
        self, path: Path, format: str, manifest: Manifest, infos: list[zipfile.ZipInfo], head: Mapping[str, Any]
    ) -> None:
        super().__init__(path, format, manifest)
        self._manifest = manifest
        self._sizes = {info.filename: info.file_size for info in infos}
        self._places = _texts(path, head.get("places"), "places")
        self._records = {entry.name: manifest.record(entry) for entry in manifest.tensors}
        hashes = _texts(path, head.get("sha256"), "sha256")
        self._check(hashes)

    def _check(self, hashes: Mapping[str, str]) -> None:
        tensors = {name for name, record in self._records.items() if record.alias_of is None}
        if set(self._places) != tensors or len(set(self._places.values())) != len(tensors):
            raise FileFormatError(f"{self.path}: its sparsepack entry does not say where every tensor lies.")
        held = set(self._sizes) - {ENTRY}
        if held != set(hashes) | set(self._places.values()) or set(hashes) & set(self._places.values()):
            raise FileFormatError(f"{self.path}: its zip archive does not hold what its sparsepack entry lists.")
        for name, place in self._places.items():
            record = self._records[name]
            if self._sizes[place] != int(np.prod(record.shape, dtype=np.int64)) * numpy_dtype(record.dtype).itemsize:
                raise FileFormatError(f"{self.path}: tensor '{name}' does not fit the file's own manifest.")
        for name, digest in hashes.items():
            if hashlib.sha256(self._read(name)).hexdigest() != digest:
                raise HashMismatchError(f"{self.path}: '{name}' holds other bytes than were written (SHA-256 differs).")

    def _read(self, name: str) -> bytes:
        try:
            with zipfile.ZipFile(self.path) as archive:
                return archive.read(name)
        except (zipfile.BadZipFile, OSError, EOFError, RuntimeError) as error:
            raise FileFormatError(f"{self.path}: '{name}' in its zip archive is damaged: {error}.") from error

    def names(self) -> list[str]:
        """Return the names of all tensors; see :meth:`.artifact.Artifact.names`."""
        return list(self._records)

    def records(self) -> dict[str, TensorRecord]:
        """Return every tensor's record; see :meth:`.artifact.Artifact.records`."""
        return dict(self._records)

    def tensor(self, name: str) -> Array:
        """Return one tensor; see :meth:`.artifact.Artifact.tensor`."""
        if name not in self._records:
            raise FileFormatError(f"{self.path} holds no tensor '{name}'.")
        record = self._records[self._records[name].alias_of or name]
        content = self._read(self._places[record.name])
        dense = np.frombuffer(content, numpy_dtype(record.dtype)).reshape(record.shape).copy()
        check_hash(record, dense)
        return dense

    def rows(self) -> list[TensorRow]:
        """Return what each tensor takes; see :meth:`.artifact.Artifact.rows`."""
        rows = []
        for entry in self._manifest.tensors:
            if entry.alias_of is not None:
                rows.append(TensorRow(entry.name, entry.shape, 0, 0, f"alias of {entry.alias_of}", 0.0))
                continue
            values = self.tensor(entry.name)
            # As in the other dense formats: the bit pattern of +0.0 is what pruning leaves behind.
            words = values.reshape(-1).view(f"<u{values.dtype.itemsize}")
            mask = words != 0
            shaped = None if mask.all() else mask.reshape(entry.shape)
            bound = part_bound(shaped, values.reshape(-1)[mask], entry.structure, entry.output_axis)
            size = self._sizes[self._places[entry.name]]
            rows.append(TensorRow(entry.name, entry.shape, entry.kept_count, size, f"dense {entry.dtype}", bound))
        return rows

    def overhead(self) -> dict[str, int]:
        """Return the bytes that belong to no tensor: our entry, PyTorch's program, the zip archive around both."""
        tensors = set(self._places.values())
        graph = sum(size for name, size in self._sizes.items() if name not in tensors and name != ENTRY)
        header = self._sizes[ENTRY]
        held = sum(self._sizes[name] for name in tensors)
        return {"header": header, "graph": graph, "other": self.size - graph - header - held}


def _texts(path: Path, value: Any, what: str) -> dict[str, str]:
    if not isinstance(value, dict) or not all(isinstance(text, str) for text in value.values()):
        raise FileFormatError(f"{path}: '{what}' in its sparsepack entry is malformed.")
    return value
