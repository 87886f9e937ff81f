"""Values that a graph unpacks: as they are, in half precision, as bytes with a scale for each channel, or as codes.

    raw        the kept values in their own type, or in float16 behind a Cast
    int8       value = float32(code) * scale[output unit]; the scales (float32, one a unit) beside the codes
    codebook   value = table[code]; codes of 1 to 8 bits side by side (:mod:`.codes`), of as many as the table needs

Everything is computed at the size of the kept values, never at the size of the tensor. DequantizeLinear would say the
same in one node, but ONNX Runtime keeps it for its own fusions and would run it at every inference.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...errors import FileFormatError
from ...files import Array, numpy_dtype
from ..manifest import TensorEntry
from . import codes
from .emitter import Emitter

RAW = "raw"
SUFFIX, SCALES, TABLE = ":values", ":scales", ":table"
_LARGEST_BOOK = 256


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


def emit_int8(
    emitter: Emitter, entry: TensorEntry, levels: Array, scales: Array, indices: tuple[str, np.dtype[Any]]
) -> str:
    """Add the nodes that turn int8 codes into values [kept] of the tensor's type.

    Args:
        emitter: what is added to.
        entry: the tensor's.
        levels: int8 [kept].
        scales: float32 [units].
        indices: name and type of the flat positions.
    """
    name, shape, axis = entry.name, entry.shape, entry.output_axis
    stored = emitter.initializer(name + SUFFIX, levels)
    table = emitter.initializer(name + SCALES, scales)
    unit, dtype = indices
    inner = math.prod(shape[axis + 1 :])
    if inner > 1:
        unit = emitter.node("Div", [unit, emitter.constant(np.array(inner, dtype))], name + ":outer")
    if axis > 0:
        unit = emitter.node("Mod", [unit, emitter.constant(np.array(shape[axis], dtype))], name + ":units")
    scale = emitter.node("Gather", [table, unit], name + ":scale", axis=0)
    numbers = emitter.node("Cast", [stored], name + ":levels", to=onnx.TensorProto.FLOAT)
    return emit_scaled(emitter, name, numbers, scale, numpy_dtype(entry.dtype))


def emit_int8_whole(
    emitter: Emitter, name: str, levels: Array, scales: Array, dtype: np.dtype[Any], output: str | None = None
) -> str:
    """Add the nodes that scale codes of whole rows or a whole tensor; ``scales`` has a shape that broadcasts."""
    stored = emitter.initializer(name + SUFFIX, levels)
    table = emitter.initializer(name + SCALES, scales)
    numbers = emitter.node("Cast", [stored], name + ":levels", to=onnx.TensorProto.FLOAT)
    return emit_scaled(emitter, name, numbers, table, dtype, output)


def emit_scaled(
    emitter: Emitter, name: str, numbers: str, scales: str, dtype: np.dtype[Any], output: str | None = None
) -> str:
    """Multiply in float32 and cast to ``dtype`` where that is another type."""
    if dtype == np.float32:
        return emitter.node("Mul", [numbers, scales], output or name + ":scaled")
    scaled = emitter.node("Mul", [numbers, scales], name + ":scaled")
    data_type = onnx.helper.np_dtype_to_tensor_dtype(dtype)
    return emitter.node("Cast", [scaled], output or name + ":cast", to=data_type)


def code_bits(table: Array) -> int:
    """Return the bits of a code for a table of 1 to 256 values."""
    return max(1, (table.size - 1).bit_length())


def pack_codes(numbers: npt.NDArray[np.uint8], table: Array) -> npt.NDArray[np.uint8]:
    """Return codes side by side; a byte each where packing saves nothing."""
    bits = code_bits(table)
    packed = codes.pack(numbers, bits) if bits < 8 else numbers
    return packed if packed.size < numbers.size else numbers


def unpack_codes(packed: Array, table: Array, count: int) -> npt.NDArray[np.uint8]:
    """Return the codes [count] that :func:`pack_codes` packed.

    Raises:
        FileFormatError: there are too few of them, or one is not in the table.
    """
    if table.ndim != 1 or not 0 < table.size <= _LARGEST_BOOK:
        raise FileFormatError(f"a table of shape {table.shape} has no codes of 1 to 8 bits.")
    bits = code_bits(table)
    if packed.dtype != np.uint8 or packed.ndim != 1:
        raise FileFormatError(f"the codes are of {packed.dtype}, not one row of bytes.")
    numbers = packed if packed.size == count else codes.unpack(packed, bits)
    if not count <= numbers.size < count + 8:
        raise FileFormatError(f"{packed.size} bytes do not hold {count} codes of {bits} bits.")
    if count and int(numbers[:count].max()) >= table.size:
        raise FileFormatError(f"a code of {int(numbers[:count].max())} is not in a table of {table.size} values.")
    return numbers[:count]


def emit_codebook(emitter: Emitter, name: str, packed: Array, table: Array, count: int) -> str:
    """Add the nodes that turn packed codes into values [count] of the table's type.

    Args:
        emitter: what is added to.
        name: the tensor's name.
        packed: uint8, of :func:`pack_codes`.
        table: the values, 1-D.
        count: how many codes there are.
    """
    index = emitter.initializer(name + SUFFIX, packed)
    if packed.size == count:
        index = emitter.node("Cast", [index], name + ":index", to=onnx.TensorProto.INT32)
    else:
        index = codes.emit(emitter, name + ":v", index, code_bits(table))
        if count % 8:
            begin, end = (emitter.constant(np.array([edge], np.int64)) for edge in (0, count))
            index = emitter.node("Slice", [index, begin, end], name + ":first")
    return emitter.node("Gather", [emitter.initializer(name + TABLE, table), index], name + ":decoded", axis=0)
