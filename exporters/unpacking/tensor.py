"""One tensor of a checkpoint: how it is stored in the graph, the nodes that put it together, and the same in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import msgspec
import numpy as np
import onnx

from ...compressor.checkpoint import SparseTensor, TensorRecord, dense_tensor
from ...compressor.mask import BoolArray
from ...errors import FileFormatError
from ...files import Array, numpy_dtype, sha256_array
from ...models.seeding.record import SeedRecord
from ..manifest import TensorEntry
from ..parts import part_of
from . import positions as places
from . import values as coded
from .emitter import Emitter
from .positions import BITMAP, ROWS, Positions
from .seeded import SeededPool, key_bytes

# Masks that need no positions, values that a seed draws, and tensors that stay ordinary initializers.
ALL, NOTHING, SEEDED, DENSE = "all", "none", "seeded", "dense"


@dataclass(frozen=True)
class Packed:
    """One tensor on its way into a graph.

    Attributes:
        entry: its manifest entry, without the seed.
        seed: what the graph draws it from; None for nothing.
        positions: None when all or no weights are kept.
        values: what is stored, in the shape that the graph needs; None when the seed draws all values.
        scales: float32, for ``int8``.
        max_abs_error: of rounding.
    """

    entry: TensorEntry
    seed: SeedRecord | None
    positions: Positions | None
    values: Array | None
    scales: Array | None = None
    max_abs_error: float = 0.0

    @property
    def plain(self) -> bool:
        """Whether nothing is left to unpack."""
        return self.positions is None and self.values is not None and (self.values.dtype.name == self.entry.dtype)

    @property
    def stored(self) -> Array:
        """The stored values, of a tensor that has some."""
        if self.values is None:
            raise ValueError(f"'{self.entry.name}' stores no values.")
        return self.values

    @property
    def drawn_from(self) -> SeedRecord:
        """The seed, of a tensor that has one."""
        if self.seed is None:
            raise ValueError(f"'{self.entry.name}' has no seed.")
        return self.seed

    @property
    def draws(self) -> bool:
        """Whether the graph needs the seeded tensor: not where nothing of it is selected."""
        return self.seed is not None and not (self.entry.parametrisation == "selected" and not self.entry.kept)


def pack(tensor: SparseTensor, values: str, *, bitwise: bool) -> Packed:
    """Return a tensor in its smallest encoding.

    Args:
        tensor: no alias.
        values: ``fp32``, ``fp16`` or ``int8``.
        bitwise: whether the graph has bitwise operators (opset 18).

    Raises:
        UnsupportedError: a value does not fit the value type.
    """
    part = part_of(tensor, "fp16" if values == "fp16" else "fp32")
    entry, mask = part.entry, part.mask
    rounds = values == "int8" and entry.role == "prunable" and entry.dtype == "float32" and part.values is not None
    found, positions = None, None
    if mask is not None and 0 < entry.kept_count < entry.size:
        # ONNX Runtime's Where turns -0.0 into 0.0, and scales of listed rows need units along the first axis.
        bitmap = bitwise and not _has_negative_zero(part.values)
        positions = places.encode(mask, bitmap=bitmap, rows=not rounds or entry.output_axis == 0)
        found = (positions.codec, positions.stored.nbytes)
    elif mask is not None:
        found = (ALL if entry.kept_count else NOTHING, 0)
    seed = part.seed if entry.parametrisation != "identity" else None
    draws = seed is not None and not (part.values is None and not entry.kept_count)
    keys = key_bytes(seed, entry.shape) if seed is not None and draws else 0
    if part.values is None or (mask is not None and not entry.kept_count):
        entry = msgspec.structs.replace(entry, positions=found, values=(SEEDED if seed else NOTHING, keys))
        return Packed(entry, seed, positions, None)
    stored = part.values.reshape(_stored_shape(entry, mask, positions))
    entry = msgspec.structs.replace(entry, positions=found, values=(coded.RAW, stored.nbytes + keys))
    packed = Packed(entry, seed, positions, stored, None, part.max_abs_error)
    return _int8(packed, part.values, mask, tensor.record, keys) if rounds and entry.size else packed


def _has_negative_zero(values: Array | None) -> bool:
    return values is not None and bool((np.signbit(values) & (values == 0)).any())


def _stored_shape(entry: TensorEntry, mask: BoolArray | None, positions: Positions | None) -> tuple[int, ...]:
    if positions is None:
        return entry.shape
    return (positions.stored.size, *entry.shape[1:]) if positions.codec == ROWS else (entry.kept_count,)


def _int8(packed: Packed, values: Array, mask: BoolArray | None, record: TensorRecord, keys: int) -> Packed:
    entry, shape, axis, positions = packed.entry, packed.entry.shape, packed.entry.output_axis, packed.positions
    flat = np.arange(values.size) if mask is None else np.flatnonzero(mask)
    units = coded.units_of(flat, shape, axis)
    codes, scales = coded.quantise_int8(entry.name, values, units, shape[axis] if shape else 1)
    decoded = coded.decode_int8(codes, scales, units)
    error = float(np.abs(decoded - values).max(initial=0.0))
    if positions is None or positions.codec == BITMAP:
        scales = scales.reshape([extent if index == axis else 1 for index, extent in enumerate(shape)])
    elif positions.codec == ROWS:
        scales = scales[positions.stored[:, 0]].reshape(-1, *([1] * (len(shape) - 1)))
    digest = sha256_array(dense_tensor(record, mask, decoded if mask is not None else decoded.reshape(shape)))
    size = codes.nbytes + scales.nbytes + keys
    entry = msgspec.structs.replace(entry, values=(coded.INT8, size), stored="int8", sha256=digest)
    shaped = codes.reshape(_stored_shape(entry, mask, positions))
    return Packed(entry, packed.seed, positions, shaped, scales, error)


def emit(emitter: Emitter, pool: SeededPool, packed: Packed) -> None:
    """Add what computes a tensor under its own name; what it draws from a seed is in ``pool`` already."""
    entry, positions = packed.entry, packed.positions
    name, shape, dtype = entry.name, entry.shape, numpy_dtype(entry.dtype)
    if packed.values is None and not packed.draws:
        emitter.node("Identity", [emitter.zeros(shape, dtype)], name)
    elif positions is None and packed.values is None:
        _emit_seeded(emitter, pool, packed, name)
    elif positions is None:
        _emit_whole(emitter, packed, name)
    elif entry.parametrisation == "selected":
        mask = places.emit_mask(emitter, name, positions, shape)
        drawn = _emit_seeded(emitter, pool, packed, None)
        emitter.node("Where", [mask, drawn, emitter.constant(np.zeros((), dtype))], name)
    elif positions.codec == ROWS:
        units = places.emit_stored(emitter, name, positions)
        kept = _emit_whole(emitter, packed, None)
        emitter.node("ScatterND", [_emit_base(emitter, pool, packed), units, kept], name)
    elif positions.codec == BITMAP:
        mask, ranks = places.emit_ranks(emitter, name, positions, shape)
        gathered = _emit_gathered(emitter, packed, ranks)
        zero = emitter.constant(np.zeros((), dtype))
        rest = _emit_seeded(emitter, pool, packed, None) if packed.seed else zero
        emitter.node("Where", [mask, gathered, rest], name)
    else:
        indices = places.emit_indices(emitter, name, positions, entry.size)
        kept = _emit_kept(emitter, packed, (indices, places.index_dtype(entry.size)))
        base = _emit_base(emitter, pool, packed)
        if packed.seed is not None:
            base = emitter.reshape(base, (-1,), name + ":row")
        flat = emitter.node("ScatterElements", [base, indices, kept], name + ":flat", axis=0)
        emitter.reshape(flat, shape, name)


def _emit_base(emitter: Emitter, pool: SeededPool, packed: Packed) -> str:
    """Return what kept values are written over: the seeded tensor in its shape, or zeros."""
    entry = packed.entry
    if packed.seed is not None:
        return _emit_seeded(emitter, pool, packed, None)
    flat = packed.positions is not None and packed.positions.codec != ROWS
    return emitter.zeros((entry.size,) if flat else entry.shape, numpy_dtype(entry.dtype))


def _emit_seeded(emitter: Emitter, pool: SeededPool, packed: Packed, output: str | None) -> str:
    entry = packed.entry
    dtype = numpy_dtype(entry.dtype)
    drawn = pool.emit_weights(emitter, entry.name, packed.drawn_from, entry.shape)
    if dtype != np.float32:
        data_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
        drawn = emitter.node("Cast", [drawn], entry.name + ":narrow", to=data_type)
    return emitter.node("Identity", [drawn], output) if output else drawn


def _emit_whole(emitter: Emitter, packed: Packed, output: str | None) -> str:
    """Return stored values that need no index: a whole tensor, or whole rows."""
    name = packed.entry.name
    dtype = numpy_dtype(packed.entry.dtype)
    if packed.scales is None:
        return coded.emit_raw(emitter, name, packed.stored, dtype, output)
    return coded.emit_int8_whole(emitter, name, packed.stored, packed.scales, output)


def _emit_kept(emitter: Emitter, packed: Packed, indices: tuple[str, np.dtype[Any]]) -> str:
    entry = packed.entry
    if packed.scales is None:
        return coded.emit_raw(emitter, entry.name, packed.stored, numpy_dtype(entry.dtype))
    return coded.emit_int8(emitter, entry.name, packed.stored, packed.scales, indices, entry.shape, entry.output_axis)


def _emit_gathered(emitter: Emitter, packed: Packed, ranks: str) -> str:
    """Return the kept values at their places, in the dense shape; what stands between them does not matter."""
    entry = packed.entry
    dtype = numpy_dtype(entry.dtype)
    kept = coded.emit_raw(emitter, entry.name, packed.stored, dtype)
    # Weights before the first kept one have the number 0.
    padded = emitter.node("Concat", [emitter.constant(np.zeros(1, dtype)), kept], entry.name + ":padded", axis=0)
    gathered = emitter.node("Gather", [padded, ranks], entry.name + ":gathered", axis=0)
    if packed.scales is None:
        return gathered
    scales = emitter.initializer(entry.name + coded.SCALES, packed.scales)
    return emitter.node("Mul", [gathered, scales], entry.name + ":scaled")


def unpack(entry: TensorEntry, record: TensorRecord, read: Callable[[str], Array]) -> SparseTensor:
    """Return what an artifact stores of a tensor: mask and values; :meth:`SparseTensor.dense` puts them together.

    Args:
        entry: its manifest entry.
        record: the same tensor's record.
        read: gives an initializer by name.

    Raises:
        FileFormatError: what is stored does not fit the entry.
    """
    codec = entry.values[0] if entry.values else ""
    if codec == DENSE:
        return SparseTensor(record, None, _expect(read(entry.name), entry.dtype, entry.shape))
    mask = _mask(entry, read) if entry.masked else None
    shape = entry.shape if mask is None else (entry.kept_count,)
    if codec in (SEEDED, NOTHING):
        drawn = entry.parametrisation == "selected"
        return SparseTensor(record, mask, None if drawn else np.zeros(0, numpy_dtype(entry.dtype)))
    suffix = coded.SUFFIX
    if codec == coded.RAW:
        stored = read(entry.name + suffix)
        decoded = _expect(stored.reshape(-1), entry.stored_dtype, (math.prod(shape),)).astype(numpy_dtype(entry.dtype))
    elif codec == coded.INT8:
        decoded = _decode_int8(entry, mask, read)
    else:
        raise FileFormatError(f"tensor '{entry.name}' names the unknown value codec '{codec}'.")
    return SparseTensor(record, mask, decoded.reshape(shape))


def _decode_int8(entry: TensorEntry, mask: BoolArray | None, read: Callable[[str], Array]) -> Array:
    codes, scales = read(entry.name + coded.SUFFIX), read(entry.name + coded.SCALES)
    if codes.dtype != np.int8 or scales.dtype != np.float32:
        raise FileFormatError(f"tensor '{entry.name}' has codes of {codes.dtype} and scales of {scales.dtype}.")
    if codes.size != entry.kept_count:
        raise FileFormatError(f"tensor '{entry.name}' has {codes.size} codes for {entry.kept_count} values.")
    flat = np.arange(entry.size) if mask is None else np.flatnonzero(mask)
    units = coded.units_of(flat, entry.shape, entry.output_axis)
    if entry.positions is not None and entry.positions[0] == ROWS:
        units = np.unique(units, return_inverse=True)[1]
    if units.size and int(units.max()) >= scales.size:
        raise FileFormatError(f"tensor '{entry.name}' has {scales.size} scales, too few for its output units.")
    return coded.decode_int8(codes.reshape(-1), scales.reshape(-1), units)


def _mask(entry: TensorEntry, read: Callable[[str], Array]) -> BoolArray:
    codec = entry.positions[0] if entry.positions else ""
    if codec in (ALL, NOTHING):
        if entry.kept_count != (entry.size if codec == ALL else 0):
            raise FileFormatError(f"tensor '{entry.name}' keeps {entry.kept_count} weights, its codec is '{codec}'.")
        return np.full(entry.shape, codec == ALL)
    if codec not in places.CODECS:
        raise FileFormatError(f"tensor '{entry.name}' names the unknown position codec '{codec}'.")
    try:
        return places.decode(codec, read(entry.name + places.SUFFIX), entry.shape, entry.kept_count)
    except FileFormatError as error:
        raise FileFormatError(f"tensor '{entry.name}' is corrupt: {error}") from error


def _expect(array: Array, dtype: str, shape: tuple[int, ...]) -> Array:
    if array.dtype != numpy_dtype(dtype) or array.shape != shape:
        raise FileFormatError(f"an array of {array.dtype} {array.shape} stands where {dtype} {shape} should be.")
    return array
