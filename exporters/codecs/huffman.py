"""Huffman-only deflate with blocks where they pay: as long as the data, or cut where its distribution changes.

zlib starts a block, and pays for its code table, every 32,767 symbols; RFC 1951 asks for no such thing. What is written
here is ordinary raw deflate that any inflate reads, one block with one dynamic code for each part.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from .bits import Writer

Bytes = npt.NDArray[np.uint8]
Counts = npt.NDArray[np.int64]
Widths = npt.NDArray[np.int64]
_END = 256
_MAX_BITS = 15
# RFC 1951, 3.2.7: the order in which the lengths of the code length code stand.
_ORDER = (16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15)
_MAX_LENGTH_BITS = 7
# (code, extra bits, smallest run) of the codes for runs.
_REPEAT, _ZEROS, _MANY_ZEROS = (16, 2, 3), (17, 3, 3), (18, 7, 11)
# RFC 1951, 3.2.6: the code that needs no table; it has codes for lengths, too, which are never used here.
_FIXED = np.repeat(np.array([8, 9, 7, 8], np.int64), [144, 112, 24, 8])
_FIXED_BLOCK, _DYNAMIC_BLOCK = 1, 2
# Symbols whose bits are joined at a time.
_CHUNK = 2**16
# About what a symbol's length costs in a table.
_TABLE_BITS = 3.0
# Where the distribution wanders, blocks of this many symbols follow it.
_CUT = 2**15


def encode(parts: Sequence[Bytes]) -> bytes:
    """Return raw deflate of all parts, one after the other, each coded by a Huffman code of its own."""
    blocks = [part for part in parts if part.size] or [np.empty(0, np.uint8)]
    plans = [_plan(_counts(part)) for part in blocks]
    writer = Writer(sum(plan.bits for plan in plans))
    for number, (part, plan) in enumerate(zip(blocks, plans, strict=True)):
        last = number == len(blocks) - 1
        writer.write(*_columns([(int(last), 1), *plan.header()]))
        codes = _codes(plan.lengths)
        for begin in range(0, part.size, _CHUNK):
            symbols = part[begin : begin + _CHUNK]
            writer.write(codes[symbols], plan.lengths[symbols])
        writer.write(codes[_END : _END + 1], plan.lengths[_END : _END + 1])
    return writer.finish()


def size(parts: Sequence[Bytes]) -> int:
    """Return the bytes that :func:`encode` takes, without coding anything."""
    blocks = [part for part in parts if part.size] or [np.empty(0, np.uint8)]
    return (sum(_plan(_counts(part)).bits for part in blocks) + 7) // 8


def counted_size(counts: Counts) -> int:
    """Return the bytes that :func:`encode` takes for one part whose bytes have these counts [256]."""
    return (_plan(np.append(counts, 1)).bits + 7) // 8


def estimate(data: Bytes) -> float:
    """Return about how many bytes ``data`` takes in one block: its entropy, a bit a symbol at least, and a table."""
    return float(estimates(_counts(data)[None, :_END])[0])


def cut(data: Bytes) -> list[Bytes]:
    """Return ``data`` whole, or in blocks of equal length where they probably take fewer bytes."""
    count = -(-data.size // _CUT)
    if count < 2:
        return [data]
    keys = np.arange(data.size, dtype=np.int64)
    keys //= _CUT
    keys *= _END
    keys += data
    counts = np.bincount(keys, minlength=count * _END).reshape(count, _END)
    if estimates(counts).sum() < estimates(counts.sum(axis=0, keepdims=True)).sum():
        return [data[begin : begin + _CUT] for begin in range(0, data.size, _CUT)]
    return [data]


def estimates(counts: Counts) -> npt.NDArray[np.float64]:
    """Return about how many bytes blocks take whose bytes have these counts [blocks, 256], as :func:`estimate`."""
    totals = np.maximum(counts.sum(axis=1, keepdims=True), 1)
    ideal = np.log2(totals / np.maximum(counts, 1))
    bits = (counts * np.maximum(ideal, 1.0)).sum(axis=1) + _TABLE_BITS * np.count_nonzero(counts, axis=1)
    return np.asarray(bits / 8, np.float64)


class _Plan(NamedTuple):
    """How a block is coded: its code lengths, its table (for a dynamic code), and its bits."""

    lengths: Widths
    table: _Table | None
    bits: int

    def header(self) -> list[tuple[int, int]]:
        """Return what stands between the first bit and the symbols, as (number, bits)."""
        return [(_FIXED_BLOCK, 2)] if self.table is None else [(_DYNAMIC_BLOCK, 2), *self.table.header()]


class _Table(NamedTuple):
    """Code lengths as they are written: coded runs, the code that they are coded by, and how much of it is listed."""

    runs: list[tuple[int, int, int]]
    inner: Widths
    listed: int

    @property
    def bits(self) -> int:
        """The bits that it takes."""
        return 14 + 3 * self.listed + sum(int(self.inner[symbol]) + width for symbol, _, width in self.runs)

    def header(self) -> list[tuple[int, int]]:
        """Return the table as (number, bits)."""
        lengths = [(int(self.inner[symbol]), 3) for symbol in _ORDER[: self.listed]]
        header = [(0, 5), (0, 5), (self.listed - 4, 4), *lengths]
        codes = _codes(self.inner)
        for symbol, extra, width in self.runs:
            header.append((int(codes[symbol]), int(self.inner[symbol])))
            if width:
                header.append((extra, width))
        return header


def _plan(counts: Counts) -> _Plan:
    lengths = code_lengths(counts, _MAX_BITS)
    # One distance code of no bits: there are no distances.
    runs = _runs([*lengths.tolist(), 0])
    inner = code_lengths(np.bincount([run[0] for run in runs], minlength=19), _MAX_LENGTH_BITS)
    listed = max(4, 1 + max(place for place, symbol in enumerate(_ORDER) if inner[symbol]))
    table = _Table(runs, inner, listed)
    dynamic = _Plan(lengths, table, 3 + table.bits + int(counts @ lengths))
    fixed = _Plan(_FIXED, None, 3 + int(counts @ _FIXED[: counts.size]))
    return min(dynamic, fixed, key=lambda plan: plan.bits)


def _counts(part: Bytes) -> Counts:
    return np.append(np.bincount(part, minlength=_END), 1)


def code_lengths(counts: npt.ArrayLike, most: int) -> npt.NDArray[np.int64]:
    """Return the lengths of a Huffman code, none longer than ``most`` bits; 0 for symbols that do not occur.

    A single symbol has one bit. Where the code is too deep, rare symbols are counted as more frequent than they are
    until it is not.
    """
    frequencies = np.asarray(counts, np.int64)
    lengths = np.zeros(frequencies.size, np.int64)
    present = np.flatnonzero(frequencies)
    if present.size <= 1:
        lengths[present] = 1
        return lengths
    weights = np.sort(frequencies[present])
    order = present[np.argsort(frequencies[present], kind="stable")]
    floor = 1
    while True:
        depths = _depths(np.maximum(weights, floor).tolist())
        if max(depths) <= most:
            lengths[order] = depths
            return lengths
        floor *= 2


def _depths(weights: list[int]) -> list[int]:
    """Return the depth of each leaf of a Huffman tree; weights rise, so that two queues do without a heap."""
    count = len(weights)
    nodes = [*weights, *[0] * (count - 1)]
    parents = [0] * (2 * count - 1)
    leaf, inner = 0, count
    for node in range(count, 2 * count - 1):
        total = 0
        for _ in range(2):
            if leaf < count and (inner >= node or nodes[leaf] <= nodes[inner]):
                chosen, leaf = leaf, leaf + 1
            else:
                chosen, inner = inner, inner + 1
            total += nodes[chosen]
            parents[chosen] = node
        nodes[node] = total
    depths = [0] * (2 * count - 1)
    for node in range(2 * count - 3, -1, -1):
        depths[node] = depths[parents[node]] + 1
    return depths[:count]


def _codes(lengths: npt.NDArray[np.int64]) -> Widths:
    """Return canonical codes (RFC 1951, 3.2.2), first bit lowest."""
    codes = np.zeros(lengths.size, np.int64)
    code, previous = 0, 0
    for symbol in np.lexsort((np.arange(lengths.size), lengths)):
        length = int(lengths[symbol])
        if length:
            code <<= length - previous
            codes[symbol] = int(f"{code:0{length}b}"[::-1], 2)
            code, previous = code + 1, length
    return codes


def _runs(lengths: list[int]) -> list[tuple[int, int, int]]:
    """Return code lengths as (code, extra number, its bits): RFC 1951, 3.2.7."""
    coded: list[tuple[int, int, int]] = []
    place = 0
    while place < len(lengths):
        length = lengths[place]
        count = 1
        while place + count < len(lengths) and lengths[place + count] == length:
            count += 1
        place += count
        if length:
            coded.append((length, 0, 0))
            count -= 1
        while count >= 3:
            code, width, least = _REPEAT if length else (_MANY_ZEROS if count >= _MANY_ZEROS[2] else _ZEROS)
            run = min(count, least + (1 << width) - 1)
            coded.append((code, run - least, width))
            count -= run
        coded += [(length, 0, 0)] * count
    return coded


def _columns(header: Sequence[tuple[int, int]]) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]]:
    numbers, widths = zip(*header, strict=True)
    return np.array(numbers, np.int64), np.array(widths, np.int64)
