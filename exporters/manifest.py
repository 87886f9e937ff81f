"""The manifest: what every artifact of ours says about itself, the same in every format.

It names the network and lists its tensors in state_dict order. What can be derived is not written: seed records stand
once per file with exceptions per tensor, and a bound that follows from the tensor's shape is left out.
"""

from __future__ import annotations

import hashlib
import math
import sys
from collections.abc import Collection, Sequence
from pathlib import Path
from typing import Any

import msgspec

from ..compressor.checkpoint import CheckpointMetadata, TensorRecord, TrainingCost
from ..compressor.parametrisations import PARAMETRISATIONS as KINDS
from ..compressor.parametrisations import PartSpec
from ..errors import FileFormatError
from ..files import canonical_json, numpy_dtype, plausible_bytes
from ..models.seeding.rebuild import check_record
from ..models.seeding.record import SeedRecord
from ..models.source import ModelRecord
from .manifest_checks import PARAMETRISATIONS, check_entry, check_sharing
from .seeds import SeedException, Seeding, common_seeding, exceptions, with_exceptions

_RECIPE_DIGITS = 16


class TensorEntry(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor of an artifact.

    Attributes:
        name: its state_dict (or ONNX initializer) name.
        shape: its dense shape.
        dtype: its dense dtype, the one that it decodes to.
        role: ``prunable``, ``parameter`` or ``buffer``.
        parametrisation: ``identity``, ``frozen`` or ``selected``, of which the last two need a mask and a seed; in
            ``packed`` the others, too. Left out of the file where it is ``identity`` without a mask, or the seeding's
            with one.
        masked: whether the file says which weights are kept.
        kept: how many are kept; all when it is missing. A tensor that is frozen at values that no seed rebuilds is
            stored whole: it has ``kept``, but is not ``masked``.
        structure: what the mask was selected as.
        output_axis: the axis of the output units.
        alias_of: the tensor that this one shares its storage with.
        stored: the dtype of the stored values, where it is not ``dtype``.
        error: the largest difference that rounding made to a weight (three digits, rounded up); None for lossless
            values.
        seed: exceptions to the file's seeding, None for a tensor without a seed. Left out of the file where a
            parametrisation that needs a seed has no exceptions.
        sha256: of the decoded dense tensor, hexadecimal; ``packed`` keeps its beginning in a table of bytes instead.
        positions: ``packed`` only: codec and bytes of the positions.
        values: ``packed`` only: codec and bytes of the values.
        parts: ``packed`` only: codec and bytes of what else is stored, by the names that the parametrisation gives.
        count: of candidates, tasks or coordinates; see :class:`.compressor.tensor_record.TensorRecord`.
        task: whose mask computes; see there.
        shares: the tensor whose part this one uses; see there.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str = "float32"
    role: str = "parameter"
    parametrisation: str = ""
    masked: bool = False
    kept: int | None = None
    structure: str = "element"
    output_axis: int = 0
    alias_of: str | None = None
    stored: str | None = None
    error: float | None = None
    seed: SeedException | None = None
    sha256: str = ""
    positions: tuple[str, int] | None = None
    values: tuple[str, int] | None = None
    parts: dict[str, tuple[str, int]] = {}
    count: int = 0
    task: int = 0
    shares: str | None = None

    def __post_init__(self) -> None:
        """Make equal entries equal bytes: a default is left out only when it is the very object, not an equal one."""
        for field in ("dtype", "role", "parametrisation", "structure"):
            msgspec.structs.force_setattr(self, field, sys.intern(getattr(self, field)))

    @property
    def size(self) -> int:
        """The number of weights, kept or not."""
        return math.prod(self.shape)

    @property
    def kept_count(self) -> int:
        """The number of kept weights."""
        return self.size if self.kept is None else self.kept

    @property
    def stored_dtype(self) -> str:
        """The dtype of the values in the file."""
        return self.stored or self.dtype


def identity_entry(record: TensorRecord, kept: int) -> TensorEntry:
    """Return the entry of a tensor that is stored dense, whatever it was made of: how many are kept, no mask."""
    return TensorEntry(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        role=record.role,
        parametrisation="identity",
        kept=kept if record.masked else None,
        structure=record.structure,
        output_axis=record.output_axis,
        sha256=record.sha256,
    )


class Manifest(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What an artifact says about itself.

    Attributes:
        model: the model source, as the checkpoint recorded it.
        tensors: in state_dict order.
        recipe: the first 16 hexadecimal digits of the SHA-256 of the resolved recipe.
        values: how values are stored: ``fp32`` (lossless), ``fp16``, ``bf16``, ``int8`` or ``codebook:BITS``.
        max_abs_error: the largest difference that rounding made to any weight; None for lossless values.
        seeding: common part of the seed records; None when nothing is seeded.
        chain: the network as a list of layers, in formats that a framework-free runtime reads.
        index_dtype: ``csr`` only: the integer type of its column indices.
        training: counted cost of the checkpoint.
    """

    model: ModelRecord
    tensors: list[TensorEntry]
    recipe: str = ""
    values: str = "fp32"
    max_abs_error: float | None = None
    seeding: Seeding | None = None
    chain: list[dict[str, Any]] | None = None
    training: TrainingCost | None = None
    index_dtype: str = "int32"

    def __post_init__(self) -> None:
        """As :meth:`TensorEntry.__post_init__`."""
        for field in ("values", "index_dtype"):
            msgspec.structs.force_setattr(self, field, sys.intern(getattr(self, field)))

    def record(self, entry: TensorEntry) -> TensorRecord:
        """Return ``entry`` as the checkpoint's record of the same tensor."""
        return TensorRecord(
            name=entry.name,
            shape=entry.shape,
            dtype=entry.dtype,
            sha256=entry.sha256,
            role=entry.role,
            parametrisation=entry.parametrisation,
            masked=entry.masked,
            structure=entry.structure,
            output_axis=entry.output_axis,
            seed=self.seed_of(entry),
            alias_of=entry.alias_of,
            parts=tuple(sorted(entry.parts)),
            count=entry.count,
            task=entry.task,
            shares=entry.shares,
        )

    def specification(self, entry: TensorEntry) -> dict[str, PartSpec]:
        """Return which arrays the parametrisation of a checked entry stores."""
        return KINDS[entry.parametrisation].specify(self.record(entry), entry.kept_count)

    def part_bytes(self, entry: TensorEntry) -> int:
        """Return the bytes that an entry's parts take once they are decoded."""
        spec = self.specification(entry)
        return sum(math.prod(spec[part].shape) * numpy_dtype(spec[part].dtype).itemsize for part in entry.parts)

    def seed_of(self, entry: TensorEntry) -> SeedRecord | None:
        """Return the seed record that the file implies for ``entry``."""
        if entry.seed is None:
            return None
        if self.seeding is None:
            raise FileFormatError(f"tensor '{entry.name}' has a seed, but the file names no generator.")
        return with_exceptions(self.seeding, entry.name, entry.shape, entry.output_axis, entry.seed)

    def check(self, path: Path, file_bytes: int, keeps: Collection[str] = PARAMETRISATIONS) -> None:
        """Refuse a manifest that contradicts itself or promises more than its file can hold.

        Args:
            path: for the message.
            file_bytes: of the file.
            keeps: the parametrisations that the format stores.

        Raises:
            FileFormatError: naming the tensor.
        """
        known: dict[str, TensorEntry] = {}
        dense_bytes = 0
        for entry in self.tensors:
            if entry.name in known:
                raise FileFormatError(f"{path}: tensor '{entry.name}' is listed twice.")
            known[entry.name] = entry
            check_entry(path, entry, keeps)
            seed = self.seed_of(entry)
            if seed is not None:
                check_record(seed)
            problem = KINDS[entry.parametrisation].problem(self.record(entry))
            if problem and entry.parametrisation not in PARAMETRISATIONS:
                raise FileFormatError(f"{path}: tensor '{entry.name}' {problem}.")
            if entry.alias_of is None:
                dense_bytes += entry.size * numpy_dtype(entry.dtype).itemsize + self.part_bytes(entry)
        if dense_bytes > plausible_bytes(file_bytes):
            raise FileFormatError(
                f"{path}: {file_bytes} bytes cannot hold the {dense_bytes} bytes of tensors it lists."
            )
        for entry in self.tensors:
            if entry.shares is not None:
                check_sharing(path, entry, known.get(entry.shares))
            if entry.alias_of is None:
                continue
            target = known.get(entry.alias_of)
            if target is None or target.alias_of is not None or _dense(target) != _dense(entry):
                raise FileFormatError(
                    f"{path}: tensor '{entry.name}' is an alias of '{entry.alias_of}', which is not there."
                )


def read_manifest(path: Path, content: Any, file_bytes: int, keeps: Collection[str] = PARAMETRISATIONS) -> Manifest:
    """Return a checked manifest from decoded JSON, or from JSON bytes; ``keeps`` as :meth:`Manifest.check` says.

    Raises:
        FileFormatError: it does not fit the schema, contradicts itself or promises too much.
    """
    try:
        if isinstance(content, bytes):
            manifest = msgspec.json.decode(content, type=Manifest)
        else:
            manifest = msgspec.convert(content, Manifest)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise FileFormatError(f"{path}: its manifest is malformed: {error}.") from error
    entries = [_expanded(manifest.seeding, entry) for entry in manifest.tensors]
    manifest = msgspec.structs.replace(manifest, tensors=entries)
    manifest.check(path, file_bytes, keeps)
    return manifest


def manifest_json(manifest: Manifest) -> bytes:
    """Return the manifest as canonical JSON, without what :func:`read_manifest` derives."""
    entries = [_shortened(manifest.seeding, entry) for entry in manifest.tensors]
    content = msgspec.to_builtins(msgspec.structs.replace(manifest, tensors=entries))
    # The model record spells its defaults out; most networks have nothing else there.
    model = content["model"]
    for field in ("options", "adaptations", "sha256"):
        if not model[field]:
            del model[field]
    return canonical_json(content)


def describe(
    metadata: CheckpointMetadata,
    tensors: Sequence[tuple[TensorEntry, SeedRecord | None]],
    *,
    values: str,
    max_abs_error: float | None,
    chain: bool,
) -> Manifest:
    """Build the manifest of an artifact.

    Args:
        metadata: the checkpoint's.
        tensors: every entry, without its seed, and the seed record that it needs.
        values: as the manifest says it.
        max_abs_error: of rounding.
        chain: whether the format carries the chain of layers.
    """
    seeding = common_seeding((seed, entry.parametrisation) for entry, seed in tensors if seed is not None)
    entries = [
        msgspec.structs.replace(e, seed=exceptions(seeding, e.name, e.shape, e.output_axis, seed))
        if seeding and seed
        else e
        for e, seed in tensors
    ]
    return Manifest(
        model=metadata.model,
        tensors=entries,
        recipe=hashlib.sha256(canonical_json(metadata.recipe)).hexdigest()[:_RECIPE_DIGITS],
        values=values,
        max_abs_error=max_abs_error,
        seeding=seeding,
        chain=metadata.chain if chain else None,
        training=metadata.training,
    )


def _implied_parametrisation(seeding: Seeding | None, entry: TensorEntry) -> str:
    return seeding.parametrisation if seeding is not None and entry.masked else "identity"


def _shortened(seeding: Seeding | None, entry: TensorEntry) -> TensorEntry:
    seed = entry.seed
    if _draws(entry) and seed == SeedException():
        seed = None
    text = "" if entry.parametrisation == _implied_parametrisation(seeding, entry) else entry.parametrisation
    return msgspec.structs.replace(entry, parametrisation=text, seed=seed)


def _expanded(seeding: Seeding | None, entry: TensorEntry) -> TensorEntry:
    text = entry.parametrisation or _implied_parametrisation(seeding, entry)
    named = msgspec.structs.replace(entry, parametrisation=text)
    seed = SeedException() if _draws(named) and entry.seed is None else entry.seed
    return msgspec.structs.replace(named, seed=seed)


def _draws(entry: TensorEntry) -> bool:
    """Tell whether a tensor cannot do without a seed, which then need not be written."""
    if entry.parametrisation in PARAMETRISATIONS or entry.parametrisation not in KINDS:
        return entry.parametrisation != "identity"
    return tuple(sorted(entry.parts)) not in KINDS[entry.parametrisation].unseeded


def _dense(entry: TensorEntry) -> tuple[tuple[int, ...], str]:
    return entry.shape, entry.dtype
