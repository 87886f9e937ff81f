"""The order-0 entropy bound: the fewest bytes that a code without memory could spend on what a tensor stores.

    positions   element: size * H(kept / size); N:M: log2 C(M, N) a block; channel: units * H(kept units / units), and
                block: blocks * H(kept blocks / blocks),
                where H(p) = -p log2 p - (1 - p) log2 (1 - p); nothing for a tensor that is kept whole
    values      floats: empirical entropy of sign and exponent together, plus the raw mantissa bits;
                other types: empirical entropy of the values; codes: their empirical entropy (the table is not
                counted: it is overhead that the codec must earn back)
    seeded      nothing: neither a seeded value nor a frozen rest is stored

Fewer bytes are possible where order helps (values that repeat, mantissas that lean to one side); a file may end up
below the bound, and says so.
"""

from __future__ import annotations

import math
from collections.abc import Iterable

import numpy as np
import numpy.typing as npt

from ..compressor.block import block_of
from ..compressor.checkpoint import SparseTensor, TensorRecord
from ..compressor.mask import BoolArray, unpack_bits
from ..compressor.parametrisations import PARAMETRISATIONS, Parts
from ..compressor.parametrisations.masks import MASKS
from ..compressor.parametrisations.options import CHOICES
from ..compressor.parametrisations.signs import SIGNS
from ..compressor.structure import n_of_m_of, to_blocks
from ..files import Array
from .codecs.floats import FLOATS
from .codecs.tiles import kept_tiles
from .parts import drawn, part_of


def entropy_bits(counts: npt.ArrayLike) -> float:
    """Return the bits of an ideal order-0 code for symbols with these counts: sum of count * log2(total / count)."""
    present = np.asarray(counts, np.float64)
    present = present[present > 0]
    return float((present * np.log2(present.sum() / present)).sum()) if present.size else 0.0


def position_bits(mask: BoolArray, structure: str = "element", output_axis: int = 0) -> float:
    """Return the bound of a mask, in bits.

    Args:
        mask: bool, in the dense shape.
        structure: what it was selected as; a mask that does not have this structure is bounded as ``element``.
        output_axis: the axis of the output units.
    """
    if mask.size == 0:
        return 0.0
    shape = mask.shape or (1,)
    units = np.moveaxis(mask.reshape(shape), output_axis, 0).reshape(shape[output_axis], -1)
    if structure == "channel" and (units == units[:, :1]).all():
        kept = int(np.count_nonzero(units[:, 0]))
        return entropy_bits([kept, units.shape[0] - kept])
    tiles = block_of(structure, shape, output_axis)
    if tiles is not None and (whole := kept_tiles(mask.reshape(shape), tiles, output_axis)) is not None:
        kept = int(np.count_nonzero(whole))
        return entropy_bits([kept, whole.size - kept])
    blocks = n_of_m_of(structure)
    if blocks is not None and units.shape[1] % blocks.m == 0:
        rows = to_blocks(mask.reshape(shape), output_axis, blocks.m)
        if (np.count_nonzero(rows, axis=1) == blocks.n).all():
            return float(rows.shape[0]) * math.log2(math.comb(blocks.m, blocks.n))
    kept = int(np.count_nonzero(mask))
    return entropy_bits([kept, mask.size - kept])


def value_bits(values: Array) -> float:
    """Return the bound of stored values, in bits; any shape, any dtype."""
    if values.size == 0:
        return 0.0
    flat = np.ascontiguousarray(values).reshape(-1)
    words = flat.view(f"<u{flat.dtype.itemsize}")
    layout = FLOATS.get(flat.dtype.name)
    if layout is None:
        return entropy_bits(np.unique(words, return_counts=True)[1])
    return (
        entropy_bits(np.bincount((words >> words.dtype.type(layout.mantissa)).astype(np.int64)))
        + layout.mantissa * flat.size
    )


def part_bound(mask: BoolArray | None, values: Array | None, structure: str = "element", output_axis: int = 0) -> float:
    """Return the bound in bytes of a mask (None: no positions) and of values or codes (None: a seed draws them)."""
    bits = 0.0 if mask is None else position_bits(mask, structure, output_axis)
    return (bits + (0.0 if values is None else value_bits(values))) / 8


def parts_bound(record: TensorRecord, parts: Parts) -> float:
    """Return the bound of a tensor's parts, in bytes; one that another tensor stores takes nothing.

    Signs and choices: their empirical entropy; masks of tasks: as positions; rows of numbers: as values.
    """
    bits = 0.0
    for name, array in parts.items():
        if record.shares is not None and name in PARAMETRISATIONS[record.parametrisation].shared:
            continue
        if name == SIGNS:
            # Unused bits of the last byte are zero, and belong to no weight: they change next to nothing.
            negative = int(np.unpackbits(array).sum())
            bits += entropy_bits([negative, 8 * array.size - negative])
        elif name == CHOICES:
            bits += entropy_bits(np.bincount(array.reshape(-1)))
        elif name == MASKS:
            bits += sum(
                position_bits(unpack_bits(row, record.shape), record.structure, record.output_axis) for row in array
            )
        else:
            bits += value_bits(array)
    return bits / 8


def tensor_bound(tensor: SparseTensor, values: str = "fp32") -> float:
    """Return the bound of one checkpoint tensor, in bytes; an alias stores nothing.

    Args:
        tensor: the tensor.
        values: how its values would be stored (``fp32``, ``fp16``, ``bf16``, ``int8``, ``codebook:BITS``).
    """
    part = part_of(tensor, values, keeps=PARAMETRISATIONS)
    if drawn(part):
        return 0.0
    stored = part.values if part.coded is None else part.coded.codes
    bound = part_bound(part.mask, stored, part.entry.structure, part.entry.output_axis)
    return bound + parts_bound(tensor.record, part.parts)


def total_bound(tensors: Iterable[SparseTensor], values: str = "fp32") -> float:
    """Return the bound of all tensors together, in bytes."""
    return sum(tensor_bound(tensor, values) for tensor in tensors)
