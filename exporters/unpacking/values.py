"""Values that a graph unpacks: as they are, in half precision, as bytes with a scale for each channel, or as codes.

    raw        the kept values in their own type, or in float16 behind a Cast
    int8       value = float32(code) * scale[output unit]; the scales (float32, one a unit) beside the codes
    codebook   value = table[code]; codes of 1 to 8 bits side by side, lowest bit first

Everything is computed at the size of the kept values, never at the size of the tensor. DequantizeLinear would say the
same in one node, but ONNX Runtime keeps it for its own fusions and would run it at every inference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...errors import FileFormatError, UnsupportedError
from ...files import Array
from .emitter import Emitter

RAW, INT8, CODEBOOK = "raw", "int8", "codebook"
SUFFIX, SCALES, TABLE = ":values", ":scales", ":table"
_INT8_LIMIT = 127


def emit_raw(emitter: Emitter, name: str, stored: Array, dtype: np.dtype[Any], output: str | None = None) -> str:
    """Add stored values, cast to ``dtype`` where they are of another type.

    Args:
        emitter: what is added to.
        name: the tensor's name.
        stored: the values, in the shape that is wanted.
        dtype: the type that is wanted.
        output: name of the result, for a tensor that is nothing but its values.
    """
    if stored.dtype == dtype:
        return emitter.initializer(output or name + SUFFIX, stored)
    kept = emitter.initializer(name + SUFFIX, stored)
    data_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return emitter.node("Cast", [kept], output or name + ":cast", to=data_type)


def quantise_int8(
    name: str, values: Array, units: npt.NDArray[np.int64], count: int
) -> tuple[npt.NDArray[np.int8], npt.NDArray[np.float32]]:
    """Round values to 255 steps, symmetric about zero, with one scale for each output unit.

    Args:
        name: the tensor's, for the error.
        values: float32 [kept].
        units: int64 [kept], the output unit of each value.
        count: how many units there are.

    Returns:
        int8 codes [kept] in [-127, 127] and float32 scales [count]; 1 for a unit without values.

    Raises:
        UnsupportedError: a value is infinite or no number.
    """
    if not bool(np.isfinite(values).all()):
        raise UnsupportedError(f"tensor '{name}' holds values that are not finite; export it with --values fp32.")
    largest = np.zeros(count, np.float32)
    np.maximum.at(largest, units, np.abs(values))
    scales = largest / np.float32(_INT8_LIMIT)
    # The smallest scale that is a normal number; below it the quotient would lose its meaning.
    scales[scales < np.finfo(np.float32).tiny] = 1.0
    codes = np.clip(np.rint(values / scales[units]), -_INT8_LIMIT, _INT8_LIMIT).astype(np.int8)
    return codes, scales


def decode_int8(codes: Array, scales: Array, units: npt.NDArray[np.int64]) -> npt.NDArray[np.float32]:
    """Return the values of int8 codes: one product each, rounded once."""
    values: npt.NDArray[np.float32] = codes.astype(np.float32) * scales[units]
    return values


def units_of(positions: npt.NDArray[np.int64], shape: tuple[int, ...], axis: int) -> npt.NDArray[np.int64]:
    """Return the index along ``axis`` of each flat position."""
    return positions // math.prod(shape[axis + 1 :]) % (shape[axis] if shape else 1)


def emit_int8(
    emitter: Emitter,
    name: str,
    codes: Array,
    scales: Array,
    indices: tuple[str, np.dtype[Any]],
    shape: tuple[int, ...],
    axis: int,
) -> str:
    """Add the nodes that turn int8 codes into float32 values [kept].

    Args:
        emitter: what is added to.
        name: the tensor's name.
        codes: int8 [kept].
        scales: float32 [units].
        indices: name and type of the flat positions.
        shape: the dense shape.
        axis: of the output units.
    """
    stored = emitter.initializer(name + SUFFIX, codes)
    table = emitter.initializer(name + SCALES, scales)
    unit, dtype = indices
    inner = math.prod(shape[axis + 1 :])
    if inner > 1:
        unit = emitter.node("Div", [unit, emitter.constant(np.array(inner, dtype))], name + ":outer")
    if axis > 0:
        unit = emitter.node("Mod", [unit, emitter.constant(np.array(shape[axis], dtype))], name + ":units")
    scale = emitter.node("Gather", [table, unit], name + ":scale", axis=0)
    numbers = emitter.node("Cast", [stored], name + ":levels", to=onnx.TensorProto.FLOAT)
    return emitter.node("Mul", [numbers, scale], name + ":scaled")


def emit_int8_whole(emitter: Emitter, name: str, codes: Array, scales: Array, output: str | None = None) -> str:
    """Add the nodes that scale codes of whole rows or a whole tensor; ``scales`` has a shape that broadcasts."""
    stored = emitter.initializer(name + SUFFIX, codes)
    table = emitter.initializer(name + SCALES, scales)
    numbers = emitter.node("Cast", [stored], name + ":levels", to=onnx.TensorProto.FLOAT)
    return emitter.node("Mul", [numbers, table], output or name + ":scaled")


def emit_codebook(emitter: Emitter, name: str, packed: Array, bits: int, table: Array, count: int) -> str:
    """Add the nodes that turn packed codes into values [count] of the table's type.

    Eight codes take ``bits`` bytes, and none of them touches more than two: each is gathered with its two bytes as
    ``low + 256 * high``, shifted by a division and cut by a remainder.

    Args:
        emitter: what is added to.
        name: the tensor's name.
        packed: uint8, codes side by side (:mod:`..codecs.bits`).
        bits: of a code, 1 to 8.
        table: the values, 1-D, at most ``2**bits``.
        count: how many codes there are.
    """
    whole = -(-count // 8)
    padded = np.zeros(whole * bits, np.uint8)
    padded[: packed.size] = packed
    stored = emitter.initializer(name + SUFFIX, padded)
    codes = emitter.node("Cast", [stored], name + ":codes", to=onnx.TensorProto.INT32)
    if bits < 8:
        codes = _emit_unpacked(emitter, name, codes, bits)
    if whole * 8 != count or bits == 8:
        begin, end = (emitter.constant(np.array([edge], np.int64)) for edge in (0, count))
        codes = emitter.node("Slice", [codes, begin, end], name + ":cut")
    return emitter.node("Gather", [emitter.initializer(name + TABLE, table), codes], name + ":decoded", axis=0)


def _emit_unpacked(emitter: Emitter, name: str, codes: str, bits: int) -> str:
    first = np.arange(8) * bits
    groups = emitter.reshape(codes, (-1, bits), name + ":groups")

    def columns(index: npt.NDArray[np.int64], part: str) -> str:
        return emitter.node("Gather", [groups, emitter.constant(index.astype(np.int64))], name + part, axis=1)

    def arithmetic(operator: str, value: str, numbers: npt.ArrayLike, part: str) -> str:
        return emitter.node(operator, [value, emitter.constant(np.array(numbers, np.int32))], name + part)

    low = columns(first // 8, ":low")
    # A code that ends with its byte is cut by the remainder, whatever stands above it.
    high = arithmetic("Mul", columns(np.minimum(first // 8 + 1, bits - 1), ":next"), 256, ":high")
    pairs = emitter.node("Add", [low, high], name + ":pairs")
    shifted = arithmetic("Div", pairs, 1 << (first % 8), ":shifted")
    return emitter.reshape(arithmetic("Mod", shifted, 1 << bits, ":single"), (-1,), name + ":unpacked")


def decode_codebook(packed: Array, bits: int, table: Array, count: int) -> Array:
    """Return the values that packed codes stand for.

    Raises:
        FileFormatError: there are too few codes, or one is not in the table.
    """
    numbers = np.unpackbits(packed, bitorder="little")[: count * bits]
    if numbers.size != count * bits:
        raise FileFormatError(f"{packed.size} bytes do not hold {count} codes of {bits} bits.")
    codes = numbers.reshape(count, bits).astype(np.int64) @ (1 << np.arange(bits))
    if count and int(codes.max()) >= table.size:
        raise FileFormatError(f"a code of {int(codes.max())} is not in a table of {table.size} values.")
    return table[codes]
