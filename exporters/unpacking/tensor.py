"""One tensor of a checkpoint: how it is stored in the graph, the nodes that put it together, and the same in numpy."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import msgspec
import numpy as np
import onnx

from ...compressor.checkpoint import SparseTensor, TensorRecord
from ...compressor.mask import BoolArray
from ...errors import FileFormatError
from ...files import Array, numpy_dtype
from ...models.seeding.record import SeedRecord
from ..manifest import TensorEntry
from ..parts import part_of, stored_units
from ..quantise import Coded
from ..value_types import CODEBOOK, INT8
from . import positions as places
from . import values as coded
from .emitter import Emitter
from .positions import BITMAP, ROWS, Positions
from .reduced import few_values, reduced
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
        table: scales or codebook of coded values.
        max_abs_error: of rounding.
    """

    entry: TensorEntry
    seed: SeedRecord | None
    positions: Positions | None
    values: Array | None
    table: Array | None = None
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
    def codec(self) -> str:
        """How the values are stored."""
        return self.entry.values[0] if self.entry.values else ""

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
        values: ``fp32``, ``fp16``, ``int8`` or ``codebook:BITS``.
        bitwise: whether the graph has bitwise operators (opset 18).

    Raises:
        UnsupportedError: a value does not fit the value type.
    """
    part = part_of(reduced(tensor), values)
    if part.values is not None and part.coded is None and part.entry.stored is None:
        part = replace(part, coded=few_values(tensor, part.values))
    entry, mask = part.entry, part.mask
    found, positions = None, None
    if mask is not None and 0 < entry.kept_count < entry.size:
        # ONNX Runtime's Where turns -0.0 into 0.0, and scales of listed rows need units along the first axis.
        int8 = part.coded is not None and part.coded.kind == INT8
        rows = not int8 or entry.output_axis == 0
        positions = places.encode(mask, bitmap=bitwise and not _has_negative_zero(part.values), rows=rows)
        found = (positions.codec, positions.stored.nbytes)
    elif mask is not None:
        found = (ALL if entry.kept_count else NOTHING, 0)
    seed = part.seed if entry.parametrisation != "identity" else None
    draws = seed is not None and not (part.values is None and not entry.kept_count)
    keys = key_bytes(seed, entry.shape) if seed is not None and draws else 0
    if part.values is None or (mask is not None and not entry.kept_count):
        entry = msgspec.structs.replace(entry, positions=found, values=(SEEDED if seed else NOTHING, keys))
        return Packed(entry, seed, positions, None)
    codec, stored, table = coded.RAW, part.values, None
    shape = _stored_shape(entry, mask, positions)
    if part.coded is not None:
        codec, table = part.coded.kind, part.coded.table
        if codec == INT8:
            stored, table = part.coded.codes.reshape(shape), _shaped_scales(table, entry, positions)
        else:
            stored = coded.pack_codes(part.coded.codes, table)
    else:
        stored = stored.reshape(shape)
    size = stored.nbytes + keys + (0 if table is None else table.nbytes)
    entry = msgspec.structs.replace(entry, positions=found, values=(codec, size))
    return Packed(entry, seed, positions, stored, table, part.max_abs_error)


def _has_negative_zero(values: Array | None) -> bool:
    return values is not None and bool((np.signbit(values) & (values == 0)).any())


def _stored_shape(entry: TensorEntry, mask: BoolArray | None, positions: Positions | None) -> tuple[int, ...]:
    if mask is None or positions is None:
        return entry.shape
    return (positions.stored.size, *entry.shape[1:]) if positions.codec == ROWS else (entry.kept_count,)


def _shaped_scales(scales: Array, entry: TensorEntry, positions: Positions | None) -> Array:
    """Return the scales of the output units so that they broadcast with what they scale."""
    if positions is None or positions.codec == BITMAP:
        axis = entry.output_axis
        return scales.reshape([extent if index == axis else 1 for index, extent in enumerate(entry.shape)])
    if positions.codec == ROWS:
        return scales[positions.stored[:, 0]].reshape(-1, *([1] * (len(entry.shape) - 1)))
    return scales


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
    entry = packed.entry
    name, dtype = entry.name, numpy_dtype(entry.dtype)
    if packed.table is None:
        return coded.emit_raw(emitter, name, packed.stored, dtype, output)
    if packed.codec == CODEBOOK:
        kept = coded.emit_codebook(emitter, name, packed.stored, packed.table, entry.kept_count)
        return emitter.reshape(kept, (-1, *entry.shape[1:]) if entry.shape else (), output or name + ":whole")
    return coded.emit_int8_whole(emitter, name, packed.stored, packed.table, dtype, output)


def _emit_kept(emitter: Emitter, packed: Packed, indices: tuple[str, np.dtype[Any]]) -> str:
    entry = packed.entry
    dtype = numpy_dtype(entry.dtype)
    if packed.table is None:
        return coded.emit_raw(emitter, entry.name, packed.stored, dtype)
    if packed.codec == CODEBOOK:
        return coded.emit_codebook(emitter, entry.name, packed.stored, packed.table, entry.kept_count)
    return coded.emit_int8(emitter, entry, packed.stored, packed.table, indices)


def _emit_gathered(emitter: Emitter, packed: Packed, ranks: str) -> str:
    """Return the kept values at their places, in the dense shape; what stands between them does not matter."""
    entry = packed.entry
    dtype = numpy_dtype(entry.dtype)
    int8 = packed.codec == INT8 and packed.table is not None
    if packed.codec == CODEBOOK and packed.table is not None:
        kept = coded.emit_codebook(emitter, entry.name, packed.stored, packed.table, entry.kept_count)
    else:
        kept = coded.emit_raw(emitter, entry.name, packed.stored, np.dtype(np.float32) if int8 else dtype)
    # Weights before the first kept one have the number 0.
    zero = emitter.constant(np.zeros(1, np.float32 if int8 else dtype))
    padded = emitter.node("Concat", [zero, kept], entry.name + ":padded", axis=0)
    gathered = emitter.node("Gather", [padded, ranks], entry.name + ":gathered", axis=0)
    if packed.table is None or not int8:
        return gathered
    scales = emitter.initializer(entry.name + coded.SCALES, packed.table)
    return coded.emit_scaled(emitter, entry.name, gathered, scales, dtype)


# Hostile scales and values may overflow; the hash of what comes out tells.
@np.errstate(over="ignore", invalid="ignore")
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
    elif codec == INT8:
        decoded = _decode_int8(entry, mask, read).astype(numpy_dtype(entry.dtype), copy=False)
    elif codec == CODEBOOK:
        table = read(entry.name + coded.TABLE)
        decoded = table[stored_codes(entry, mask, read)]
        if table.dtype != numpy_dtype(entry.dtype):
            raise FileFormatError(f"tensor '{entry.name}' of {entry.dtype} has a table of {table.dtype}.")
    else:
        raise FileFormatError(f"tensor '{entry.name}' names the unknown value codec '{codec}'.")
    return SparseTensor(record, mask, decoded.reshape(shape))


def _decode_int8(entry: TensorEntry, mask: BoolArray | None, read: Callable[[str], Array]) -> Array:
    codes, scales = read(entry.name + coded.SUFFIX), read(entry.name + coded.SCALES)
    if codes.dtype != np.int8 or scales.dtype != np.float32:
        raise FileFormatError(f"tensor '{entry.name}' has codes of {codes.dtype} and scales of {scales.dtype}.")
    count = entry.size if mask is None else int(np.count_nonzero(mask))
    if codes.size != count:
        raise FileFormatError(f"tensor '{entry.name}' has {codes.size} codes for {count} values.")
    units = stored_units(entry, mask)
    if entry.positions is not None and entry.positions[0] == ROWS:
        units = np.unique(units, return_inverse=True)[1]
    if units.size and int(units.max()) >= scales.size:
        raise FileFormatError(f"tensor '{entry.name}' has {scales.size} scales, too few for its output units.")
    return Coded(INT8, codes.reshape(-1), scales.reshape(-1)).decode(units)


def stored_codes(entry: TensorEntry, mask: BoolArray | None, read: Callable[[str], Array]) -> Array:
    """Return the codes of a tensor with a codebook, uint8.

    Raises:
        FileFormatError: they fit neither the entry nor the codebook.
    """
    count = entry.size if mask is None else entry.kept_count
    try:
        return coded.unpack_codes(read(entry.name + coded.SUFFIX), read(entry.name + coded.TABLE), count)
    except FileFormatError as error:
        raise FileFormatError(f"tensor '{entry.name}' is corrupt: {error}") from error


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
