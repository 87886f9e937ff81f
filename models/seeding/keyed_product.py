"""The keyed product: a random matrix as the wrapped product of row keys and column keys.

In: a tensor's seed, name and shape. Out: one int32 for each weight, the product of an odd 32-bit row key and an odd
32-bit column key modulo 2**32. An ONNX graph rebuilds it with three operators (Mul, Cast, Mul) from M + N stored keys;
Philox itself would need some two hundred. Products of odd keys are odd, so none is zero, and a row times a fixed odd
column key is a bijection, so equal rows or columns come only from equal keys: keys are redrawn until unique.

The tensor is seen as rows (axis 0, torch's output units) by columns (the other axes, row-major); a vector is one
column. Row-key candidates are words 0, 1, 2, ... of the tensor's Philox stream with the lowest bit set; column-key
candidates are words 2**32, 2**32 + 1, ... with the lowest bit set. In this order a candidate is taken unless it, or its
negative modulo 2**32, was taken before for the same axis.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError
from .philox import Words, words

_COLUMN_STREAM = 2**32
# There are 2**30 odd keys up to sign; a quarter of them still comes out of the stream quickly.
_MOST_KEYS = 2**28
# Products a chunk (whole rows), so that a large tensor needs no second array of its size.
_CHUNK = 1 << 18


def matrix_shape(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return the rows and columns that a tensor's shape is seen as."""
    if not shape:
        return 1, 1
    columns = 1
    for extent in shape[1:]:
        columns *= extent
    return shape[0], columns


def row_keys(seed: int, name: str, rows: int) -> Words:
    """Return the odd row keys of a tensor, uint32 [rows], unique also against their negatives."""
    return _unique_keys(seed, name, 0, rows)


def column_keys(seed: int, name: str, columns: int) -> Words:
    """Return the odd column keys of a tensor, uint32 [columns], unique also against their negatives."""
    return _unique_keys(seed, name, _COLUMN_STREAM, columns)


def _unique_keys(seed: int, name: str, start: int, count: int) -> Words:
    if count > _MOST_KEYS:
        raise UnsupportedError(
            f"tensor '{name}' needs {count} distinct keys on one axis; the keyed-product generator gives at most "
            f"{_MOST_KEYS}. Choose the generator philox4x32-10."
        )
    drawn = count + count // 8 + 8
    while True:
        candidates = words(seed, name, start, drawn) | np.uint32(1)
        # A key and its negative give rows that differ in sign alone; their smaller one stands for both.
        classes = np.minimum(candidates, np.uint32(0) - candidates)
        first = np.sort(np.unique(classes, return_index=True)[1])
        if first.size >= count:
            return candidates[first[:count]]
        drawn *= 2


def product_chunks(
    seed: int, name: str, shape: tuple[int, ...], start: int, count: int
) -> Iterator[tuple[int, npt.NDArray[np.int32]]]:
    """Yield the products at flat positions ``start`` to ``start + count``, piece by piece.

    Yields:
        the piece's offset from ``start`` and its int32 products.
    """
    rows, columns = matrix_shape(shape)
    if not 0 <= start <= start + count <= rows * columns:
        raise ValueError(f"weights {start} to {start + count} are outside the shape {shape}.")
    if count == 0:
        return
    by_row, by_column = row_keys(seed, name, rows), column_keys(seed, name, columns)
    step = max(1, _CHUNK // columns)
    last = -(-(start + count) // columns)
    for row in range(start // columns, last, step):
        row_end = min(row + step, last)
        begin, end = max(start, row * columns), min(start + count, row_end * columns)
        outer = np.multiply.outer(by_row[row:row_end], by_column).reshape(-1)
        yield begin - start, outer[begin - row * columns : end - row * columns].view(np.int32)
