"""Several seeded candidates for each weight of one tensor, drawn one by one (``options`` of a sparse checkpoint).

Candidate 0 of a weight is what :mod:`.rebuild` draws for it, so one seed record serves both. The others go on where the
tensor ends: candidate k of the weight at flat position i (row r, column c of a matrix of C columns and S weights) is

    philox4x32-10   word k * S + i
    keyed-product   row key r times column key k * C + c
    constant        the constant

How many candidates there are changes none of them.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from .keyed_product import column_keys, matrix_shape, row_keys
from .philox import philox4x32, stream_key
from .rebuild import FloatArray, check_record, converter
from .record import PHILOX, REBUILDABLE, SeedRecord

# Positions a chunk: a block of four words is drawn for each.
_CHUNK = 1 << 16


def candidate(record: SeedRecord, shape: tuple[int, ...], number: int) -> FloatArray:
    """Return candidate ``number`` (from 0) of every weight, float32 in ``shape``."""
    size = math.prod(shape)
    return chosen(record, shape, np.arange(size), np.full(size, number)).reshape(shape)


def chosen(
    record: SeedRecord, shape: tuple[int, ...], positions: npt.NDArray[Any], choices: npt.NDArray[Any]
) -> FloatArray:
    """Return the chosen candidate of some weights.

    Args:
        record: how the tensor is drawn.
        shape: its shape.
        positions: flat row-major positions, 1-D.
        choices: the number of the candidate at each, 1-D.

    Returns:
        float32, 1-D, in the order of ``positions``.

    Raises:
        FileFormatError: the record is malformed or from a later release.
    """
    check_record(record, REBUILDABLE)
    out = np.empty(positions.size, np.float32)
    if record.initialiser == "constant":
        out.fill(np.float32(record.bound))
        return out
    convert = converter(record)
    where, numbers = positions.astype(np.int64), choices.astype(np.int64)
    if record.generator == PHILOX:
        for begin in range(0, out.size, _CHUNK):
            piece = slice(begin, begin + _CHUNK)
            index = (numbers[piece] * math.prod(shape) + where[piece]).astype(np.uint64)
            counters = np.zeros((index.size, 4), np.uint32)
            counters[:, 0] = index >> np.uint64(2) & np.uint64(0xFFFFFFFF)
            counters[:, 1] = index >> np.uint64(34)
            blocks = philox4x32(counters, stream_key(record.seed, record.name))
            words = blocks[np.arange(index.size), (index & np.uint64(3)).astype(np.int64)]
            out[piece] = convert(words)
        return out
    rows, columns = matrix_shape(shape)
    last = int(numbers.max()) if numbers.size else 0
    by_row = row_keys(record.seed, record.name, rows)
    by_column = column_keys(record.seed, record.name, (last + 1) * columns)
    for begin in range(0, out.size, _CHUNK):
        piece = slice(begin, begin + _CHUNK)
        row, column = np.divmod(where[piece], columns)
        out[piece] = convert(by_row[row] * by_column[numbers[piece] * columns + column])
    return out
