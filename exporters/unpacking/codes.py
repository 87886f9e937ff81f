"""Small numbers side by side, lowest bit first (:mod:`..codecs.bits`), and the nodes that take them apart.

Eight numbers of ``bits`` bits take ``bits`` bytes, and none touches more than two of them: each is gathered with its
two bytes, divided and cut, which needs some 30 bytes of memory a number while a runtime folds it.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import onnx

from ...errors import FileFormatError
from ...files import Array
from ..codecs import bits as packing
from .emitter import Emitter

_GROUP = 8


def pack(numbers: npt.NDArray[np.uint8], bits: int, fill: int = 0) -> npt.NDArray[np.uint8]:
    """Return the numbers (1-D, below ``2**bits``) in whole groups of eight, the last one filled up with ``fill``."""
    return packing.pack(np.pad(numbers, (0, -numbers.size % _GROUP), constant_values=fill), bits)


def unpack(stored: Array, bits: int) -> npt.NDArray[np.uint8]:
    """Return all numbers of :func:`pack`, those that fill up the last group included.

    Raises:
        FileFormatError: the bytes are no whole groups.
    """
    if stored.ndim != 1 or stored.dtype != np.uint8 or stored.size % bits:
        raise FileFormatError(f"{stored.size} bytes of {stored.dtype} are no groups of eight numbers of {bits} bits.")
    return packing.unpack(stored.tobytes(), stored.size // bits * _GROUP, bits).astype(np.uint8)


def emit(emitter: Emitter, stem: str, stored: str, bits: int) -> str:
    """Add the nodes that compute what :func:`unpack` returns, as int32.

    Only whole numbers are multiplied and divided: runtimes agree on that, and not on shifts of bytes.

    Args:
        emitter: what is added to.
        stem: what the names of the nodes begin with.
        stored: the name of the bytes.
        bits: of a number, 1 to 7.
    """
    first = np.arange(_GROUP) * bits
    wide = emitter.node("Cast", [stored], stem + ":wide", to=onnx.TensorProto.INT32)
    groups = emitter.reshape(wide, (-1, bits), stem + ":groups")

    def gathered(index: npt.NDArray[np.int64], part: str) -> str:
        return emitter.node("Gather", [groups, emitter.constant(index)], stem + part, axis=1)

    def arithmetic(operator: str, value: str, numbers: npt.ArrayLike, part: str) -> str:
        return emitter.node(operator, [value, emitter.constant(np.array(numbers, np.int32))], stem + part)

    # A number that ends with its byte is cut by the remainder, whatever stands above it.
    above = arithmetic("Mul", gathered(np.minimum(first // 8 + 1, bits - 1), ":next"), 256, ":above")
    pairs = emitter.node("Add", [gathered(first // 8, ":low"), above], stem + ":pairs")
    shifted = arithmetic("Div", pairs, 1 << (first % 8), ":shifted")
    return emitter.reshape(arithmetic("Mod", shifted, 1 << bits, ":cut"), (-1,), stem + ":numbers")
