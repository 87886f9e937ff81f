"""Containers of plain arrays: what ``csr`` and ``nm`` files share.

Each tensor is a few named safetensors entries that other programs read as they are; the manifest stands in the metadata
key as JSON, with a CRC-32 over the manifest and every tensor byte.
"""

from __future__ import annotations

import zlib
from abc import abstractmethod
from collections.abc import Callable
from pathlib import Path

import msgspec

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.mask import BoolArray
from ..errors import FileFormatError, UnsupportedError
from ..files import (
    Array,
    TensorFile,
    canonical_json,
    little_endian_bytes,
    numpy_dtype,
    refuse_existing,
    write_safetensors,
)
from .container import PREFIX, ContainerArtifact, StoredTensor, check_version
from .manifest import TensorEntry, describe, manifest_json, read_manifest
from .parts import VALUES, Part, parts, stored_units
from .quantise import Coded
from .value_types import INT8, parse_values

# Name -> dtype name and shape of every array that a tensor has in the file.
ArraySpec = dict[str, tuple[str, tuple[int, ...]]]
_SCALES = ".scales"


def write_arrays(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    format: str,
    version: int,
    arrays_of: Callable[[Part], dict[str, Array]],
    values: str,
    force: bool,
    index_dtype: str = "int32",
) -> None:
    """Write a checkpoint as a container of plain arrays.

    Args:
        checkpoint: any checkpoint.
        path: where to.
        format: the format's name.
        version: its version.
        arrays_of: gives the arrays of one tensor, by their name in the file.
        values: ``fp32``, ``fp16``, ``bf16`` or ``int8``.
        force: whether an existing file may be replaced.
        index_dtype: what the manifest says of the column indices.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        UnsupportedError: ``arrays_of`` refuses a tensor, or two arrays would have the same name.
    """
    refuse_existing(path, force)
    described = []
    arrays: dict[str, Array] = {}
    error = 0.0
    for part in parts(checkpoint, values):
        described.append((part.entry, part.seed if part.entry.parametrisation != "identity" else None))
        error = max(error, part.max_abs_error)
        if part.entry.alias_of is not None:
            continue
        for name, array in arrays_of(part).items():
            if name in arrays:
                raise UnsupportedError(f"two tensors of the network would both be named '{name}' in the file.")
            arrays[name] = array
    lossy = None if parse_values(values, VALUES).lossless else error
    manifest = describe(checkpoint.metadata, described, values=values, max_abs_error=lossy, chain=True)
    manifest = msgspec.structs.replace(manifest, index_dtype=index_dtype)
    content = manifest_json(manifest)
    checksum = zlib.crc32(content)
    for array in arrays.values():
        checksum = zlib.crc32(little_endian_bytes(array), checksum)
    metadata = {
        "format": PREFIX + format,
        "version": version,
        "crc32": checksum,
        "manifest": msgspec.json.decode(content),
    }
    write_safetensors(path, arrays, metadata)


class ArraysArtifact(ContainerArtifact):
    """An opened container of plain arrays."""

    def __init__(self, file: TensorFile, format: str, version: int) -> None:
        check_version(file.path, file.metadata, format, version)
        metadata = file.metadata
        content = metadata.get("manifest")
        _check_checksum(file, zlib.crc32(canonical_json(content)), metadata.get("crc32"))
        super().__init__(file, format, read_manifest(file.path, content, file.path.stat().st_size))
        expected: ArraySpec = {}
        for entry in self.manifest.tensors:
            if entry.alias_of is None:
                expected |= self.spec(entry)
        if set(expected) != set(file):
            name = min(set(expected) ^ set(file))
            raise FileFormatError(f"{file.path}: array '{name}' is missing or belongs to no tensor.")
        for name, (dtype, shape) in expected.items():
            if file.dtype(name) != numpy_dtype(dtype) or file.shape(name) != shape:
                raise FileFormatError(f"{file.path}: array '{name}' should be {dtype} of shape {shape}.")

    @abstractmethod
    def spec(self, entry: TensorEntry) -> ArraySpec:
        """Return which arrays a tensor that is no alias has.

        Raises:
            FileFormatError: its entry does not fit the format.
        """

    def tensor_bytes(self, entry: TensorEntry) -> int:
        """Return the bytes of a tensor's arrays; see :meth:`.container.ContainerArtifact.tensor_bytes`."""
        return sum(self.file.nbytes(name) for name in self.spec(entry))

    def scaled(self, entry: TensorEntry, mask: BoolArray | None, values: Array, codec: str) -> StoredTensor:
        """Return stored values as they decode: int8 codes times the scale of their output unit, others as they are.

        Args:
            entry: of the tensor.
            mask: bool, dense shape; None when every weight is stored.
            values: as they lie in the file, 1-D in the tensor's row-major order.
            codec: how they are stored, for people.
        """
        if entry.stored != INT8:
            return StoredTensor(mask, values, codec)
        coded = Coded(INT8, values, self.file.read(entry.name + _SCALES))
        return StoredTensor(mask, coded.decode(stored_units(entry, mask)), f"{codec} int8", values)


def whole_arrays(part: Part) -> dict[str, Array]:
    """Return the arrays of a tensor without a mask: its values under its own name, scales beside them.

    Raises:
        UnsupportedError: it has no values.
    """
    if part.values is None:
        raise UnsupportedError(f"tensor '{part.entry.name}' has neither mask nor values.")
    values = part.values if part.coded is None else part.coded.codes
    return {part.entry.name: values.reshape(part.entry.shape), **scale_arrays(part)}


def scale_arrays(part: Part) -> dict[str, Array]:
    """Return the scales of int8 codes, one an output unit; nothing for other values."""
    return {} if part.coded is None else {part.entry.name + _SCALES: part.coded.table}


def scale_spec(entry: TensorEntry) -> ArraySpec:
    """Return the spec of :func:`scale_arrays`."""
    units = entry.shape[entry.output_axis] if entry.shape else 1
    return {entry.name + _SCALES: ("float32", (units,))} if entry.stored == INT8 else {}


def _check_checksum(file: TensorFile, checksum: int, expected: object) -> None:
    with file.path.open("rb") as stream:
        stream.seek(file.header_bytes)
        while chunk := stream.read(1 << 20):
            checksum = zlib.crc32(chunk, checksum)
    if checksum != expected:
        raise FileFormatError(f"{file.path} is corrupt: its checksum differs from the one that was written.")
