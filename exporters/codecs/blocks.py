"""Positions of an N:M mask: the number of each block's pattern, log2 C(M, N) bits a block and hardly more.

Patterns are ranked in the combinatorial number system (kept places i_1 < i_2 < ... of a block give the rank
sum of C(i_j, j)), and as many ranks as fit are written as the digits of one number of up to 63 bits: 17 blocks of 2:4
take 44 bits, 0.1 % above the entropy bound.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from ...compressor.mask import BoolArray
from ...compressor.structure import NofM, from_blocks, n_of_m_of, to_blocks
from ...errors import FileFormatError
from . import bits
from .base import Layout

Ranks = npt.NDArray[np.int64]


class Blocks:
    """Ranks of N:M patterns, in reduction order (see :func:`~sparsepack.compressor.structure.to_blocks`)."""

    id = "n-of-m"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the stream; None when the structure is no N:M or a block keeps another number."""
        structure = _structure(layout)
        if structure is None:
            return None
        blocks: BoolArray = to_blocks(mask, layout.output_axis, structure.m)
        if not (np.count_nonzero(blocks, axis=1) == structure.n).all():
            return None
        return _pack_digits(_rank(blocks, structure), math.comb(structure.m, structure.n))

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        structure = _structure(layout)
        if structure is None:
            raise FileFormatError(f"an N:M stream does not fit a tensor of structure '{layout.structure}'.")
        count = layout.size // structure.m
        if layout.kept != count * structure.n:
            raise FileFormatError(f"a {structure.text} mask of {layout.size} weights cannot keep {layout.kept}.")
        ranks = _unpack_digits(stream, count, math.comb(structure.m, structure.n))
        mask: BoolArray = from_blocks(_unrank(ranks, structure), layout.shape, layout.output_axis)
        return mask


def _structure(layout: Layout) -> NofM | None:
    """Return the N:M structure when the layout has one whose blocks divide it and whose ranks fit 63 bits."""
    structure = n_of_m_of(layout.structure)
    if structure is None or not layout.shape or layout.size == 0:
        return None
    if (layout.size // layout.shape[layout.output_axis]) % structure.m or _digits(structure)[0] == 0:
        return None
    return structure


def _binomials(structure: NofM) -> npt.NDArray[np.int64]:
    """Return C(place, j) for every place of a block (rows) and j = 0 .. N (columns).

    Numbers beyond 63 bits are cut there; no rank that fits 63 bits ever uses one.
    """
    largest = np.int64(2**63 - 1)
    table = np.zeros((structure.m, structure.n + 1), np.int64)
    table[:, 0] = 1
    for place in range(1, structure.m):
        # Pascal's triangle; the minimum keeps the sum from overflowing.
        table[place, 1:] = table[place - 1, 1:] + np.minimum(table[place - 1, :-1], largest - table[place - 1, 1:])
    return table


def _rank(blocks: BoolArray, structure: NofM) -> Ranks:
    places = np.nonzero(blocks)[1].reshape(-1, structure.n)
    ranks: Ranks = _binomials(structure)[places, np.arange(1, structure.n + 1)].sum(axis=1)
    return ranks


def _unrank(ranks: Ranks, structure: NofM) -> BoolArray:
    blocks = np.zeros((ranks.size, structure.m), np.bool_)
    rows = np.arange(ranks.size)
    binomials = _binomials(structure)
    left = ranks.copy()
    for j in range(structure.n, 0, -1):
        # The largest place whose binomial still fits; columns of Pascal's triangle never fall.
        places = np.searchsorted(binomials[:, j], left, side="right") - 1
        blocks[rows, places] = True
        left -= binomials[places, j]
    return blocks


def _digits(structure: NofM) -> tuple[int, int]:
    return digits_per_word(math.comb(structure.m, structure.n))


def digits_per_word(base: int) -> tuple[int, int]:
    """Return how many digits of ``base`` share a word and the word's bits, for the fewest bits a digit.

    Words have at most 63 bits; the fewest digits win a tie; (0, 0) when not even one digit fits.
    """
    best = (0, 0)
    for count in range(1, 64):
        width = (base**count - 1).bit_length()
        if width > 63:
            break
        # width / count < best width / best count, in whole numbers
        if best[0] == 0 or width * best[0] < best[1] * count:
            best = (count, width)
    return best


def _pack_digits(digits: Ranks, base: int) -> bytes:
    count, width = digits_per_word(base)
    whole = digits.size // count * count
    powers = np.array([base**i for i in range(count)], np.int64)
    words = (digits[:whole].reshape(-1, count) * powers).sum(axis=1)
    rest = digits[whole:]
    tail = int((rest * powers[: rest.size]).sum())
    tail_bits = (base**rest.size - 1).bit_length()
    return bits.pack(words.astype(np.uint64), width).tobytes() + tail.to_bytes((tail_bits + 7) // 8, "little")


def _unpack_digits(stream: bytes, total: int, base: int) -> Ranks:
    count, width = digits_per_word(base)
    words_count, rest = divmod(total, count)
    size = bits.packed_size(words_count, width)
    tail_size = ((base**rest - 1).bit_length() + 7) // 8
    if len(stream) != size + tail_size:
        raise FileFormatError(f"{total} patterns of {base} take {size + tail_size} bytes, not {len(stream)}.")
    words = bits.unpack(stream[:size], words_count, width).astype(np.int64)
    tail = int.from_bytes(stream[size:], "little")
    if (words >= base**count).any() or tail >= base**rest:
        raise FileFormatError("a pattern number is out of range.")
    digits = np.empty(total, np.int64)
    for i in range(count):
        digits[i : words_count * count : count] = words % base
        words //= base
    for i in range(words_count * count, total):
        tail, digits[i] = divmod(tail, base)
    return digits
