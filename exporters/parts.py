"""What a checkpoint's tensor becomes in a file: its mask, its stored values, its seed, and a manifest entry.

Guaranteed: for ``fp32`` nothing is rounded and the hash is the checkpoint's; for every other value type the hash is
that of the tensor that the file decodes to, and the entry says by how much it differs. A tensor that is frozen at
values that no seed rebuilds is stored whole, and its mask, which nothing needs to decode it, is dropped.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterator
from dataclasses import dataclass, field

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, dense_tensor
from ..compressor.mask import BoolArray
from ..compressor.parametrisations import Parts
from ..compressor.parametrisations.masks import MASKS
from ..files import Array, numpy_dtype, sha256_array
from ..models.seeding.rebuild import rebuild
from ..models.seeding.record import SeedRecord
from .codecs.floats import FLOATS
from .manifest import TensorEntry
from .manifest_checks import PARAMETRISATIONS
from .materialise import plain, plain_checkpoint
from .quantise import Coded, Units, codebook, encode_codebook, quantise_int8, require_finite, rounded, units_of
from .value_types import BF16, CODEBOOKS, FP16, FP32, INT8, ValueType, parse_values

# Every way to store values.
VALUES = (FP32, FP16, BF16, INT8, CODEBOOKS)
_PROBE = 1024
# From here on half precision rounds to infinity.
_LARGEST_HALF = 65520.0


@dataclass(frozen=True)
class Part:
    """One tensor on its way into a file.

    Attributes:
        entry: its manifest entry, without seed and codecs.
        mask: bool, dense shape; None when every weight is stored.
        values: the stored values, 1-D in row-major order, in the stored dtype (coded ones: decoded, in the tensor's
            own); None when the seed draws them all.
        seed: what the decoder needs; for any other tensor, what drew it before it was trained: values may be told from
            there, or be the very ones (see :func:`drawn`). None for neither.
        max_abs_error: of rounding; 0.0 when nothing was rounded.
        coded: the values as codes; None unless the value type has codes and the tensor is a weight.
        parts: what is stored besides, by name; arrays that belong to another tensor (``shares``) included.
    """

    entry: TensorEntry
    mask: BoolArray | None
    values: Array | None
    seed: SeedRecord | None
    max_abs_error: float = 0.0
    coded: Coded | None = None
    parts: Parts = field(default_factory=dict)


def check_values(values: str) -> None:
    """Raise :class:`UnknownNameError` unless ``values`` is one of :data:`VALUES`."""
    parse_values(values, VALUES)


def parts(checkpoint: SparseCheckpoint, values: str, keeps: Collection[str] = PARAMETRISATIONS) -> Iterator[Part]:
    """Yield every tensor of a checkpoint, in order, as it will be stored.

    Small tensors share a codebook where their own ones together would have more entries.

    Args:
        checkpoint: a sparse checkpoint.
        values: one of :data:`VALUES`.
        keeps: the parametrisations that the format stores; others become values.

    Raises:
        UnsupportedError: a value is too large for half precision, or not finite and to be coded.
    """
    kind = parse_values(values, VALUES)
    checkpoint = plain_checkpoint(checkpoint, keeps)
    pool = _pool(checkpoint, kind)
    for tensor in checkpoint.tensors.values():
        yield part_of(tensor, values, pool, keeps)


def part_of(
    tensor: SparseTensor, values: str, pool: Array | None = None, keeps: Collection[str] = PARAMETRISATIONS
) -> Part:
    """Return one tensor as it will be stored; see :func:`parts`.

    Args:
        tensor: of a checkpoint.
        values: one of :data:`VALUES`.
        pool: the codebook that small tensors share; None: each has its own.
        keeps: the parametrisations that the format stores; others become values.
    """
    kind = parse_values(values, VALUES)
    tensor = plain(tensor, keeps)
    record = tensor.record
    if record.parametrisation not in PARAMETRISATIONS and record.alias_of is None:
        return _whole_part(tensor)
    entry = TensorEntry(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        role=record.role,
        parametrisation="identity",
        output_axis=record.output_axis,
        alias_of=record.alias_of,
    )
    if record.alias_of is not None:
        return Part(entry, None, None, None)
    seeded = record.parametrisation != "identity" and record.seed is not None
    mask = tensor.mask
    if record.masked:
        entry = msgspec.structs.replace(entry, kept=tensor.kept, structure=record.structure)
    if record.parametrisation == "frozen" and not seeded:
        mask = None
    elif record.masked:
        entry = msgspec.structs.replace(entry, masked=True, parametrisation=record.parametrisation)
    stored = None if tensor.values is None else np.ascontiguousarray(tensor.values).reshape(-1)
    error, digest, coded = 0.0, record.sha256, None
    if mask is None and record.seed is not None and not kind.lossless and drawn(Part(entry, None, stored, record.seed)):
        # What a seed draws takes no bytes at all, so there is nothing to gain by rounding it.
        return Part(msgspec.structs.replace(entry, sha256=digest), None, stored, record.seed)
    if stored is not None and codes(tensor, kind):
        coded = _coded(tensor, mask, stored, kind, pool)
        decoded = coded.decode(stored_units(entry, mask) if kind.kind == INT8 else None)
        decoded = decoded.astype(numpy_dtype(record.dtype), copy=False)
        error = float(np.abs(decoded.astype(np.float64) - stored.astype(np.float64)).max())
        entry = msgspec.structs.replace(entry, stored=INT8 if kind.kind == INT8 else None)
        stored = decoded
    elif stored is not None and kind.rounded and rounds(record.role, record.dtype) and _fits(stored, kind):
        stored, error = rounded(record.name, stored, kind.rounded)
        entry = msgspec.structs.replace(entry, stored=kind.rounded)
    if stored is not None and (coded is not None or entry.stored is not None):
        decoded = stored.astype(numpy_dtype(record.dtype), copy=False)
        digest = sha256_array(dense_tensor(record, mask, decoded) if mask is not None else decoded)
        entry = msgspec.structs.replace(entry, error=_upward(error))
    seed = record.seed if seeded or coded is None else None
    return Part(msgspec.structs.replace(entry, sha256=digest), mask, stored, seed, error, coded)


def _whole_part(tensor: SparseTensor) -> Part:
    """Return a tensor of a parametrisation with parts: nothing of it is rounded, whatever the value type."""
    record = tensor.record
    entry = TensorEntry(
        name=record.name,
        shape=record.shape,
        dtype=record.dtype,
        role=record.role,
        parametrisation=record.parametrisation,
        masked=record.masked,
        kept=tensor.kept if record.masked else None,
        structure=record.structure,
        output_axis=record.output_axis,
        sha256=record.sha256,
        count=record.count,
        task=record.task,
        shares=record.shares,
    )
    values = None if tensor.values is None else np.ascontiguousarray(tensor.values).reshape(-1)
    # Masks are a part of their own where there is one a task.
    mask = None if MASKS in record.parts else tensor.mask
    return Part(entry, mask, values, record.seed, parts=tensor.parts)


def codes(tensor: SparseTensor, kind: ValueType) -> bool:
    """Tell whether a value type turns this tensor into codes: prunable weights of a float type, if there are any."""
    record = tensor.record
    if not kind.coded or record.role != "prunable" or record.alias_of is not None or tensor.values is None:
        return False
    if record.parts:
        return False
    return record.dtype in FLOATS and bool(tensor.values.size)


def stored_units(entry: TensorEntry, mask: BoolArray | None) -> Units:
    """Return the output unit of each stored value, in row-major order."""
    flat = np.arange(entry.size) if mask is None else np.flatnonzero(mask)
    return units_of(flat, entry.shape, entry.output_axis)


def drawn(part: Part) -> bool:
    """Tell whether the seed of an unmasked tensor draws every stored value, bit for bit: none need be stored."""
    if part.mask is not None or part.values is None or part.seed is None or part.entry.stored is not None:
        return False
    dtype = part.values.dtype
    for count in (min(part.values.size, _PROBE), part.values.size):
        # Trained tensors differ at once; only a promising one is drawn whole.
        again = rebuild(part.seed, part.entry.shape, 0, count).astype(dtype, copy=False)
        if again.tobytes() != part.values[:count].tobytes():
            return False
    return True


def rounds(role: str, dtype: str) -> bool:
    """Tell whether ``fp16`` and ``bf16`` round a tensor; statistics of normalisation layers stay as they are."""
    return role != "buffer" and dtype in ("float32", "float64")


def half(name: str, values: Array) -> tuple[Array, float]:
    """Round to IEEE half precision; see :func:`.quantise.rounded`."""
    return rounded(name, values, "float16")


def _coded(tensor: SparseTensor, mask: BoolArray | None, values: Array, kind: ValueType, pool: Array | None) -> Coded:
    record = tensor.record
    if kind.kind == INT8:
        units = record.shape[record.output_axis] if record.shape else 1
        flat = np.arange(values.size) if mask is None else np.flatnonzero(mask)
        return quantise_int8(record.name, values, units_of(flat, record.shape, record.output_axis), units)
    require_finite(record.name, values)
    if pool is not None and _is_small(values.size, kind.bits) and pool.dtype == values.dtype:
        return encode_codebook(record.name, values, pool, pooled=True)
    return encode_codebook(record.name, values, codebook(values, kind.bits))


def _is_small(count: int, bits: int) -> bool:
    """Tell whether a codebook of 4-byte entries would take more bytes than the codes."""
    return 32 << bits > count * bits


def _pool(checkpoint: SparseCheckpoint, kind: ValueType) -> Array | None:
    """Return the codebook of all small float32 weights together; None where their own ones have no more entries."""
    if not kind.bits:
        return None
    small: list[Array] = []
    for name, tensor in checkpoint.tensors.items():
        coded = codes(tensor, kind) and tensor.record.dtype == "float32"
        if coded and tensor.values is not None and _is_small(tensor.values.size, kind.bits):
            require_finite(name, tensor.values)
            small.append(tensor.values.reshape(-1))
    if len(small) < 2:
        return None
    shared = codebook(np.concatenate(small), kind.bits)
    return shared if shared.size < sum(codebook(values, kind.bits).size for values in small) else None


def _fits(values: Array, kind: ValueType) -> bool:
    """Tell whether values are to be rounded: what accompanies coded weights is not where half precision overflows."""
    return not kind.coded or bool((np.abs(values[np.isfinite(values)]) < _LARGEST_HALF).all())


def _upward(error: float) -> float:
    """Return an error in three significant digits, rounded up: a short number that still bounds it."""
    if error == 0.0:
        return 0.0
    unit = 10.0 ** (math.floor(math.log10(error)) - 2)
    if unit == 0.0:
        # Among the smallest float64 there are no three digits to round to.
        return error
    short = float(f"{math.ceil(error / unit) * unit:.3g}")
    return short if short >= error else float(f"{short + unit:.3g}")
