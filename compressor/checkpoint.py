"""The sparse checkpoint: what pruning hands to everything that follows.

In: masks, kept values, seed records. Out: one safetensors file whose single metadata key holds canonical JSON.
Guaranteed: masks are explicit (a kept zero stays kept), every decoded tensor carries its SHA-256, frozen and selected
tensors store no value that a seed can rebuild, and equal input gives equal bytes.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..errors import FileFormatError, HashMismatchError
from ..files import Array, TensorFile, numpy_dtype, refuse_existing, sha256_array, write_safetensors
from ..models.seeding.rebuild import rebuild
from ..models.seeding.record import SeedRecord
from ..models.source import ModelRecord
from .mask import BoolArray, pack_bits, unpack_bits

FORMAT = "sparsepack.checkpoint"
VERSION = 1

# identity: kept values, zero elsewhere. frozen: kept values, the seeded initialisation elsewhere (all values, when the
# initialisation has no seed). selected: the seeded initialisation where the mask is 1, zero elsewhere, no values.
PARAMETRISATIONS = ("identity", "frozen", "selected")


class TensorRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor of the network as the checkpoint describes it.

    Attributes:
        name: its state_dict (or ONNX initializer) name.
        shape: its dense shape.
        dtype: its dense dtype (``float32``, ``bfloat16`` ...).
        sha256: of the decoded dense tensor's little-endian bytes.
        role: ``prunable`` (a weight that a method may mask), ``parameter`` or ``buffer``.
        parametrisation: one of :data:`PARAMETRISATIONS`.
        masked: whether a mask is stored; an unmasked tensor is stored whole.
        structure: what the mask was selected as: ``element``, ``N:M`` or ``channel``.
        output_axis: the axis of the output units (0 for torch's Linear and Conv, 1 for ONNX's MatMul [K, N]).
        seed: how to draw the tensor again as it was before training; None when no seed does.
        alias_of: the tensor that this one shares its storage with (tied weights); nothing of its own is stored.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    role: str = "parameter"
    parametrisation: str = "identity"
    masked: bool = False
    structure: str = "element"
    output_axis: int = 0
    seed: SeedRecord | None = None
    alias_of: str | None = None

    def __post_init__(self) -> None:
        """Make equal records equal bytes: a default is left out only when it is the very object, not an equal one."""
        for field_name in ("dtype", "role", "parametrisation", "structure"):
            msgspec.structs.force_setattr(self, field_name, sys.intern(getattr(self, field_name)))


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
class SparseTensor:
    """One tensor in memory: its record, its mask (None when unmasked) and its stored values.

    ``values`` is the dense tensor when unmasked, the kept values in row-major order (1-D) for ``identity`` and for
    ``frozen`` with a seed, every value (dense shape) for ``frozen`` without one, and None for ``selected``.
    """

    record: TensorRecord
    mask: BoolArray | None
    values: Array | None

    @property
    def kept(self) -> int:
        """The number of entries that the mask keeps (all of them when there is no mask)."""
        if self.mask is None:
            return int(np.prod(self.record.shape, dtype=np.int64))
        return int(np.count_nonzero(self.mask))

    def dense(self) -> Array:
        """Return the tensor as the network computes with it, in its dense shape and dtype."""
        return dense_tensor(self.record, self.mask, self.values)

    def verify(self) -> None:
        """Raise :class:`HashMismatchError` when the decoded tensor is not the one that was written."""
        check_hash(self.record, self.dense())


def dense_tensor(record: TensorRecord, mask: BoolArray | None, values: Array | None) -> Array:
    """Put mask, values and seed together (equation w = mask * values + (1 - mask) * chi).

    Args:
        record: shape, dtype, parametrisation and seed.
        mask: bool, in the dense shape, or None.
        values: as :class:`SparseTensor` describes.
    """
    dtype = numpy_dtype(record.dtype)
    if mask is None:
        if values is None:
            raise FileFormatError(f"tensor '{record.name}' has neither mask nor values.")
        return values.reshape(record.shape)
    if record.parametrisation == "selected":
        seeded = rebuild(_seed_of(record), record.shape).astype(dtype, copy=False)
        seeded[~mask] = 0
        return seeded
    if values is None:
        raise FileFormatError(f"tensor '{record.name}' has no values.")
    if record.parametrisation == "frozen":
        if record.seed is None:
            return values.reshape(record.shape)
        dense: Array = rebuild(record.seed, record.shape).astype(dtype, copy=False)
    else:
        dense = np.zeros(record.shape, dtype)
    # The places first: writing through a mask takes several times as long.
    np.put(dense, np.flatnonzero(mask), values)
    return dense


def check_hash(record: TensorRecord, dense: Array) -> None:
    """Raise :class:`HashMismatchError` unless ``dense`` has the bytes that the record promises."""
    if sha256_array(dense) != record.sha256:
        raise HashMismatchError(
            f"tensor '{record.name}' decodes to other bytes than were written (SHA-256 differs); the file is corrupt."
        )


def _seed_of(record: TensorRecord) -> SeedRecord:
    if record.seed is None:
        raise FileFormatError(f"tensor '{record.name}' is '{record.parametrisation}' but carries no seed record.")
    return record.seed


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
            if tensor.mask is not None:
                stored[f"{name}:mask"] = pack_bits(tensor.mask)
            if tensor.values is not None:
                stored[f"{name}:values"] = tensor.values
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


def _read_tensor(file: TensorFile, record: TensorRecord) -> SparseTensor:
    if record.parametrisation not in PARAMETRISATIONS:
        raise FileFormatError(f"{file.path}: tensor '{record.name}' has an unknown parametrisation.")
    if record.alias_of is not None:
        return SparseTensor(record, None, None)
    count = 1
    for extent in record.shape:
        if extent < 0:
            raise FileFormatError(f"{file.path}: tensor '{record.name}' has a negative extent.")
        count *= extent
    mask: BoolArray | None = None
    expected = count
    if record.masked:
        key = f"{record.name}:mask"
        if file.nbytes(key) != (count + 7) // 8:
            raise FileFormatError(f"{file.path}: the mask of '{record.name}' does not have {count} bits.")
        mask = unpack_bits(file.read(key), record.shape)
        if record.parametrisation == "selected":
            return SparseTensor(record, mask, None)
        if not (record.parametrisation == "frozen" and record.seed is None):
            expected = int(np.count_nonzero(mask))
    key = f"{record.name}:values"
    values = file.read(key) if file.dtype(key) == numpy_dtype(record.dtype) else None
    if values is None or values.size != expected:
        raise FileFormatError(
            f"{file.path}: '{record.name}' should hold {expected} values of {record.dtype}; the file holds "
            f"{file.shape(key)} of {file.dtype(key)}."
        )
    return SparseTensor(record, mask, values)


def make_tensor(
    name: str, dense: Array, *, mask: BoolArray | None = None, record: Mapping[str, Any] | None = None
) -> SparseTensor:
    """Build a :class:`SparseTensor` from a dense array: the one place where a tensor becomes mask and values.

    Args:
        name: the tensor's name.
        dense: the tensor as the network computes with it; entries outside the mask are ignored and replaced by what
            the parametrisation puts there.
        mask: bool array in the same shape, or None.
        record: further :class:`TensorRecord` fields (role, parametrisation, structure, output_axis, seed).
    """
    fields: dict[str, Any] = {"name": name, "shape": tuple(dense.shape), "dtype": dense.dtype.name, **(record or {})}
    values: Array | None = np.ascontiguousarray(dense)
    if mask is not None:
        draft = TensorRecord(**fields, sha256="", masked=True)
        if draft.parametrisation == "selected":
            values = None
        elif draft.parametrisation != "frozen" or draft.seed is not None:
            values = dense[mask]
    final = TensorRecord(**fields, sha256="", masked=mask is not None)
    digest = sha256_array(dense_tensor(final, mask, values))
    return SparseTensor(msgspec.structs.replace(final, sha256=digest), mask, values)
