"""The sparse checkpoint: what pruning hands to everything that follows.

In: masks, kept values, seed records, and whatever else a parametrisation stores. Out: one safetensors file whose single
metadata key holds canonical JSON. Guaranteed: masks are explicit (a kept zero stays kept), every decoded tensor carries
its SHA-256, nothing is stored that a seed can rebuild, and equal input gives equal bytes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import FileFormatError
from ..files import (
    Array,
    TensorFile,
    numpy_dtype,
    plausible_bytes,
    possible_shape,
    refuse_existing,
    write_safetensors,
)
from ..models.source import ModelRecord
from .mask import BoolArray, pack_bits, unpack_bits
from .parametrisations import PARAMETRISATIONS, VALUES, Parametrisation, PartSpec
from .parametrisations.masks import MASKS
from .sparse_tensor import SparseTensor, check_hash, dense_tensor, handed_tensor, make_tensor
from .tensor_record import TensorRecord

__all__ = [
    "FORMAT",
    "PARAMETRISATIONS",
    "VERSION",
    "CheckpointMetadata",
    "Provenance",
    "SparseCheckpoint",
    "SparseTensor",
    "TensorRecord",
    "TrainingCost",
    "check_hash",
    "dense_tensor",
    "handed_tensor",
    "make_tensor",
]

FORMAT = "sparsepack.checkpoint"
VERSION = 1


class Provenance(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Where a checkpoint came from; holds no time stamp, so that equal runs give equal bytes."""

    versions: dict[str, str]
    seed: int
    threads: int
    device: str


class TrainingCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the checkpoint cost, in counted operations (one multiply-add is two FLOPs).

    Attributes:
        trained_parameters: parameters that the last training could change.
        mask_search_flops: everything spent before the final mask was known (for lottery tickets, whole trainings).
        training_flops: the training that produced the final weights.
    """

    trained_parameters: int
    mask_search_flops: int
    training_flops: int


class CheckpointMetadata(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The JSON in the file's metadata key.

    Attributes:
        model: the model source as text, with what is needed to build it again.
        recipe: the resolved recipe of the run, as plain data.
        chain: the network as a list of layers, when it is a plain chain (see ``models.chain``); lets a runtime that
            knows no framework evaluate a linear network. None otherwise.
        training: counted cost; None when nothing was trained.
        warnings: what the user should know (collapsed layers, layers left dense), in full sentences.
    """

    format: str
    version: int
    model: ModelRecord
    recipe: dict[str, Any]
    provenance: Provenance
    tensors: list[TensorRecord]
    chain: list[dict[str, Any]] | None = None
    training: TrainingCost | None = None
    warnings: list[str] = []


@dataclass(frozen=True)
class SparseCheckpoint:
    """A pruned network: metadata and tensors, in state_dict order."""

    metadata: CheckpointMetadata
    tensors: Mapping[str, SparseTensor] = field(default_factory=dict)

    def resolve(self, name: str) -> SparseTensor:
        """Return the tensor that holds the storage of ``name`` (itself, or the one it is an alias of)."""
        tensor = self.tensors[name]
        return self.tensors[tensor.record.alias_of] if tensor.record.alias_of else tensor

    def dense_state(self) -> dict[str, Array]:
        """Return every tensor, dense, by name; aliases share one array."""
        dense = {name: t.dense() for name, t in self.tensors.items() if t.record.alias_of is None}
        return {name: dense[t.record.alias_of or name] for name, t in self.tensors.items()}

    def save(self, path: Path, *, force: bool = False) -> None:
        """Write the checkpoint atomically.

        Raises:
            OutputExistsError: the file exists and ``force`` is false.
        """
        refuse_existing(path, force)
        stored: dict[str, Array] = {}
        for name, tensor in self.tensors.items():
            if tensor.record.alias_of is not None:
                continue
            if tensor.mask is not None and MASKS not in tensor.parts:
                stored[f"{name}:mask"] = pack_bits(tensor.mask)
            if tensor.values is not None:
                stored[f"{name}:values"] = tensor.values
            kind = PARAMETRISATIONS[tensor.record.parametrisation]
            for part in tensor.record.parts:
                if not (tensor.record.shares and part in kind.shared):
                    stored[f"{name}:{part}"] = tensor.parts[part]
        write_safetensors(path, stored, msgspec.to_builtins(self.metadata))

    @classmethod
    def load(cls, path: Path) -> SparseCheckpoint:
        """Read a checkpoint, checking structure and counts; :meth:`verify` checks the hashes.

        Raises:
            FileFormatError: not a checkpoint, from a later version, truncated or corrupt.
        """
        opened = cls.open(path)
        return cls(opened.metadata, dict(opened.tensors))

    @classmethod
    def open(cls, path: Path) -> SparseCheckpoint:
        """Open a checkpoint whose tensors are read, and checked as by :meth:`load`, each time that they are asked for.

        Only what is asked for is in memory; the file must stay as it is.

        Raises:
            FileFormatError: not a checkpoint, from a later version, truncated or corrupt.
        """
        file = TensorFile(path)
        if not isinstance(file.metadata, dict) or file.metadata.get("format") != FORMAT:
            raise FileFormatError(f"{path} is not a sparsepack checkpoint; 'compress prune' writes them.")
        if file.metadata.get("version") != VERSION:
            raise FileFormatError(
                f"{path} is a checkpoint of version {file.metadata.get('version')}; this release reads version "
                f"{VERSION}; install a newer sparsepack."
            )
        try:
            metadata = msgspec.convert(file.metadata, CheckpointMetadata)
        except msgspec.ValidationError as error:
            raise FileFormatError(f"{path}: the checkpoint's metadata is malformed: {error}.") from error
        records = {record.name: record for record in metadata.tensors}
        if len(records) != len(metadata.tensors):
            raise FileFormatError(f"{path}: two tensors have the same name.")
        for name, record in records.items():
            target = record.alias_of
            if target is not None and (target not in records or records[target].alias_of is not None):
                raise FileFormatError(f"{path}: tensor '{name}' is an alias of '{target}', which is not stored.")
            _check_record(path, record, records)
        dense = sum(math.prod(r.shape) * numpy_dtype(r.dtype).itemsize for r in records.values() if not r.alias_of)
        if dense > plausible_bytes(path.stat().st_size):
            raise FileFormatError(f"{path}: the file cannot hold the {dense} bytes of tensors that it lists.")
        return cls(metadata, _StoredTensors(file, records))

    def verify(self) -> None:
        """Rebuild every tensor and compare its SHA-256 with the one written.

        Raises:
            HashMismatchError: naming the first tensor that differs.
        """
        for tensor in self.tensors.values():
            if tensor.record.alias_of is None:
                tensor.verify()


class _StoredTensors(Mapping[str, SparseTensor]):
    """The tensors of a file, read one at a time."""

    def __init__(self, file: TensorFile, records: Mapping[str, TensorRecord]) -> None:
        self._file = file
        self._records = records

    def __getitem__(self, name: str) -> SparseTensor:
        return _read_tensor(self._file, self._records[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self._records)

    def __len__(self) -> int:
        return len(self._records)


def _check_record(path: Path, record: TensorRecord, records: Mapping[str, TensorRecord]) -> None:
    """Refuse a record that contradicts itself, or whose shared part no other tensor stores."""
    problem = None
    if record.parametrisation not in PARAMETRISATIONS:
        problem = f"has the unknown parametrisation '{record.parametrisation}'"
    elif not possible_shape(record.shape, numpy_dtype(record.dtype).itemsize):
        problem = f"has the impossible shape {record.shape}"
    elif record.alias_of is None:
        problem = PARAMETRISATIONS[record.parametrisation].problem(record)
        owner = records.get(record.shares or record.name)
        if record.shares is not None and (owner is None or owner.shares or owner.parts != record.parts):
            problem = f"shares a part with '{record.shares}', which stores none"
    if problem:
        raise FileFormatError(f"{path}: tensor '{record.name}' {problem}.")


def _read_tensor(file: TensorFile, record: TensorRecord) -> SparseTensor:
    if record.alias_of is not None:
        return SparseTensor(record, None, None)
    kind = PARAMETRISATIONS[record.parametrisation]
    count = math.prod(record.shape)
    mask: BoolArray | None = None
    if record.masked and MASKS not in record.parts:
        key = f"{record.name}:mask"
        if file.nbytes(key) != (count + 7) // 8:
            raise FileFormatError(f"{file.path}: the mask of '{record.name}' does not have {count} bits.")
        mask = unpack_bits(file.read(key), record.shape)
    kept = count if mask is None else int(np.count_nonzero(mask))
    parts = {part: _read_part(file, record, kind, part, spec) for part, spec in kind.specify(record, kept).items()}
    if MASKS in parts:
        mask = _mask_of_task(file.path, record, parts[MASKS])
    try:
        kind.check(record, parts)
    except FileFormatError as error:
        raise FileFormatError(f"{file.path}: {error}") from error
    return SparseTensor(record, mask, parts.pop(VALUES, None), parts)


def _read_part(file: TensorFile, record: TensorRecord, kind: Parametrisation, part: str, spec: PartSpec) -> Array:
    owner = record.shares if record.shares is not None and part in kind.shared else record.name
    key = f"{owner}:{part}"
    count = math.prod(spec.shape)
    if file.dtype(key) != numpy_dtype(spec.dtype) or math.prod(file.shape(key)) != count:
        raise FileFormatError(
            f"{file.path}: '{record.name}' should hold {count} {part} of {spec.dtype}; the file holds "
            f"{file.shape(key)} of {file.dtype(key)}."
        )
    array = file.read(key)
    return array if part == VALUES else array.reshape(spec.shape)


def _mask_of_task(path: Path, record: TensorRecord, packed: Array) -> BoolArray:
    """Return the mask that computes; the others are unpacked too, so that a set bit behind an end is found."""
    try:
        for row in packed:
            unpack_bits(row, record.shape)
        return unpack_bits(packed[record.task], record.shape)
    except FileFormatError as error:
        raise FileFormatError(f"{path}: tensor '{record.name}': {error}") from error
