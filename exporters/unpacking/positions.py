"""Positions that a graph unpacks: gaps of four bits to two bytes, a bitmap, or a list of whole output units.

    gaps8, gaps16   symbols; the running sum of them up to a symbol is its position. The largest symbol (255, 65535)
                    moves on and marks nothing. Nodes: Cast, CumSum and, where a gap was too long, Less and Compress.
    gaps4 .. gaps7  the same with symbols of so many bits side by side (:mod:`.codes`), filled up with largest ones.
    bitmap          one bit a weight, lowest first. Nodes: BitwiseAnd, Cast, CumSum; the running sum of the bits is
                    a kept weight's number, by which Gather finds its value.
    rows            int64 numbers of the output units (axis 0) that are kept whole. Nodes: none; ScatterND reads them.

Gaps are unpacked at the size of the kept weights, a bitmap at some 23 bytes a weight; the smallest is taken, nodes
included.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ...compressor.mask import BoolArray, pack_bits, unpack_bits
from ...errors import FileFormatError
from ...files import Array
from . import codes
from .emitter import Emitter

# Codec -> bits of a symbol.
GAPS = {"gaps4": 4, "gaps5": 5, "gaps6": 6, "gaps7": 7, "gaps8": 8, "gaps16": 16}
BITMAP, ROWS = "bitmap", "rows"
CODECS = (*GAPS, BITMAP, ROWS)
# What the nodes that take symbols of fewer than eight bits apart add to a file, with names of usual length.
_PACKED_NODES = 1100
# Where a tensor keeps its positions in the graph.
SUFFIX = ":positions"
_INT32_POSITIONS = 2**31


@dataclass(frozen=True)
class Positions:
    """Encoded positions.

    Attributes:
        codec: one of :data:`CODECS`.
        stored: what lies in the file, 1-D (``rows``: [units, 1]).
        kept: the number of kept weights.
    """

    codec: str
    stored: Array
    kept: int

    @property
    def cost(self) -> int:
        """Bytes in the file, with the nodes that others do not need."""
        return self.stored.nbytes + (_PACKED_NODES if GAPS.get(self.codec, 8) < 8 else 0)


def encode(mask: BoolArray, *, bitmap: bool = True, rows: bool = True) -> Positions:
    """Return the smallest encoding of a mask that keeps at least one weight; of equals, the cheapest to unpack.

    Args:
        mask: bool, at least one axis.
        bitmap: whether the graph may use bitwise operators (opset 18).
        rows: whether whole output units may be listed.
    """
    positions = np.flatnonzero(mask)
    distances = np.diff(positions, prepend=0)
    choices = [_gaps(codec, distances) for codec in ("gaps8", "gaps16")]
    choices += [_gaps(codec, distances) for codec, bits in GAPS.items() if bits < 8]
    if bitmap:
        choices.append(Positions(BITMAP, pack_bits(mask), positions.size))
    if rows:
        units = mask.reshape(mask.shape[0], -1)
        if bool((units == units[:, :1]).all()):
            listed = np.flatnonzero(units[:, 0]).reshape(-1, 1).astype(np.int64)
            choices.insert(0, Positions(ROWS, listed, positions.size))
    return min(choices, key=lambda choice: choice.cost)


def _gaps(codec: str, distances: npt.NDArray[np.int64]) -> Positions:
    """Encode distances between positions; the first counts from 0, so that the running sum needs no correction."""
    bits = GAPS[codec]
    escape = (1 << bits) - 1
    escapes, last = np.divmod(distances, escape)
    ends = np.cumsum(escapes + 1)
    symbols = np.full(int(ends[-1]), escape, np.uint16 if bits == 16 else np.uint8)
    symbols[ends - 1] = last
    return Positions(codec, codes.pack(symbols.astype(np.uint8), bits, escape) if bits < 8 else symbols, distances.size)


def decode(codec: str, stored: Array, shape: tuple[int, ...], kept: int) -> BoolArray:
    """Return the mask that :func:`encode` encoded.

    Raises:
        FileFormatError: the positions do not fit the shape or the count.
    """
    size = math.prod(shape)
    wanted = np.dtype(np.int64 if codec == ROWS else np.uint16 if codec == "gaps16" else np.uint8)
    if stored.dtype != wanted:
        raise FileFormatError(f"its positions are of {stored.dtype}, '{codec}' needs {wanted}.")
    if codec == BITMAP:
        mask = unpack_bits(stored, shape)
    elif codec == ROWS:
        chosen = stored.reshape(-1)
        # Compared, not subtracted: the difference of two hostile numbers wraps around.
        ascending = bool((chosen[1:] > chosen[:-1]).all())
        if not shape or not chosen.size or not ascending or chosen[0] < 0 or chosen[-1] >= shape[0]:
            raise FileFormatError(f"the listed output units do not fit the shape {shape}.")
        mask = np.zeros(shape, np.bool_)
        mask[chosen] = True
    else:
        bits = GAPS[codec]
        symbols = codes.unpack(stored, bits) if bits < 8 else stored.reshape(-1)
        entries = symbols != (1 << bits) - 1
        positions = np.cumsum(symbols, dtype=np.int64)[entries]
        ascending = bool((np.diff(positions) > 0).all())
        # Whole groups of eight are filled up with symbols that mark nothing.
        ends = bool(entries[-1 if bits >= 8 else -8 :].any())
        if not positions.size or not ascending or positions[-1] >= size or not ends:
            raise FileFormatError(f"the gaps do not list positions of a tensor of {size} weights.")
        mask = np.zeros(size, np.bool_)
        mask[positions] = True
        mask = mask.reshape(shape)
    if int(np.count_nonzero(mask)) != kept:
        raise FileFormatError(f"the mask keeps {int(np.count_nonzero(mask))} weights, its entry says {kept}.")
    return mask


def emit_indices(emitter: Emitter, name: str, positions: Positions, size: int) -> str:
    """Add the nodes that compute the flat positions [kept], of :func:`index_dtype`, from gaps."""
    bits = GAPS[positions.codec]
    escape = (1 << bits) - 1
    stored = emit_stored(emitter, name, positions)
    escaped = bits < 8 or bool((positions.stored == escape).any())
    if bits < 8:
        stored = codes.emit(emitter, name + ":p", stored, bits)
    dtype = onnx.helper.np_dtype_to_tensor_dtype(index_dtype(size))
    wide = stored
    if bits >= 8 or dtype != onnx.TensorProto.INT32:
        wide = emitter.node("Cast", [stored], name + ":gaps", to=dtype)
    axis = emitter.constant(np.array(0, np.int64))
    sums = emitter.node("CumSum", [wide, axis], name + ":sums")
    if not escaped:
        return sums
    limit = emitter.constant(np.array(escape, index_dtype(size)))
    entries = emitter.node("Less", [wide, limit], name + ":entries")
    chosen = emitter.node("Compress", [sums, entries], name + ":indices", axis=0)
    return emitter.declare(chosen, dtype, (positions.kept,))


def index_dtype(size: int) -> np.dtype[Any]:
    """Return the type of unpacked positions: int64, or int32, which takes half the folding memory, where it can."""
    return np.dtype(np.int64 if size >= _INT32_POSITIONS else np.int32)


def emit_mask(emitter: Emitter, name: str, positions: Positions, shape: tuple[int, ...]) -> str:
    """Add the nodes that compute the mask itself, bool, in the dense shape."""
    size = math.prod(shape)
    if positions.codec == BITMAP:
        return emitter.reshape(_emit_flags(emitter, name, positions, size), shape, name + ":mask")
    if positions.codec == ROWS:
        rows = emit_stored(emitter, name, positions)
        kept = emitter.zeros((positions.stored.size, *shape[1:]), np.dtype(np.bool_), 1)
        return emitter.node("ScatterND", [emitter.zeros(shape, np.dtype(np.bool_)), rows, kept], name + ":mask")
    indices = emit_indices(emitter, name, positions, size)
    ones = emitter.zeros((positions.kept,), np.dtype(np.bool_), 1)
    base = emitter.zeros((size,), np.dtype(np.bool_))
    flat = emitter.node("ScatterElements", [base, indices, ones], name + ":flat", axis=0)
    return emitter.reshape(flat, shape, name + ":mask")


def emit_stored(emitter: Emitter, name: str, positions: Positions) -> str:
    """Add the stored positions themselves and return their name."""
    return emitter.initializer(name + SUFFIX, positions.stored)


def emit_ranks(emitter: Emitter, name: str, positions: Positions, shape: tuple[int, ...]) -> tuple[str, str]:
    """Add the nodes that turn a bitmap into a mask and, for each kept weight, its number among them, from 1.

    Every shape is known beforehand: NonZero would be cheaper, but some runtimes compute it at every inference.
    """
    size = math.prod(shape)
    flags = _emit_flags(emitter, name, positions, size)
    data_type = onnx.helper.np_dtype_to_tensor_dtype(index_dtype(size))
    wide = emitter.node("Cast", [flags], name + ":wide", to=data_type)
    sums = emitter.node("CumSum", [wide, emitter.constant(np.array(0, np.int64))], name + ":sums")
    return emitter.reshape(flags, shape, name + ":mask"), emitter.reshape(sums, shape, name + ":ranks")


def _emit_flags(emitter: Emitter, name: str, positions: Positions, size: int) -> str:
    """Return the bits of a bitmap, bool [size]."""
    column = emitter.reshape(emit_stored(emitter, name, positions), (-1, 1), name + ":bytes")
    powers = emitter.constant(np.array([1, 2, 4, 8, 16, 32, 64, 128], np.uint8))
    bits = emitter.node("BitwiseAnd", [column, powers], name + ":bits")
    flags = emitter.reshape(
        emitter.node("Cast", [bits], name + ":bools", to=onnx.TensorProto.BOOL), (-1,), name + ":row"
    )
    if size % 8 == 0:
        return flags
    begin, end = (emitter.constant(np.array([edge], np.int64)) for edge in (0, size))
    return emitter.node("Slice", [flags, begin, end], name + ":cut")
