"""Philox4x32-10, the counter-based generator behind every random number of the project.

In: a seed, a tensor's name and a range of positions. Out: the 32-bit words at these positions. Word ``i`` of a tensor
depends on (seed, name, i) alone, so any slice can be drawn without the rest, in any order, on any machine.

Source: Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3", SC 2011 (Random123).
"""

from __future__ import annotations

import operator
import zlib
from collections.abc import Iterator

import numpy as np
import numpy.typing as npt

from ...errors import UsageError

Words = npt.NDArray[np.uint32]

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
_LOW = np.uint64(0xFFFFFFFF)
_HALF = np.uint64(32)
# Blocks a chunk: six scratch arrays of this many 64-bit numbers stay in a core's second-level cache.
_CHUNK = 1 << 13


def check_seed(seed: int) -> int:
    """Return ``seed`` when it is a whole number in [0, 2**32).

    Raises:
        UsageError: it is not; half of the generator's 64-bit key is the seed.
    """
    try:
        value = operator.index(seed)
    except TypeError as error:
        raise UsageError(f"a seed is a whole number from 0 to {2**32 - 1}, not {seed!r}.") from error
    if not 0 <= value < 2**32:
        raise UsageError(f"the seed {value} is out of range; choose a whole number from 0 to {2**32 - 1}.")
    return value


def stream_key(seed: int, name: str) -> tuple[int, int]:
    """Return the generator's key for one tensor: (seed, CRC-32 of the name's UTF-8 bytes)."""
    return check_seed(seed), zlib.crc32(name.encode())


def philox4x32(counter: npt.ArrayLike, key: tuple[int, int]) -> Words:
    """Return the Philox4x32-10 blocks of some counters under one key.

    Args:
        counter: uint32 array [..., 4], lowest word first.
        key: two 32-bit words, lowest first.

    Returns:
        uint32 array of the counter's shape.
    """
    counters = np.asarray(counter, dtype=np.uint32)
    if counters.shape[-1:] != (4,):
        raise ValueError(f"a Philox4x32 counter has 4 words in its last axis, not the shape {counters.shape}.")
    lanes = [counters[..., i].reshape(-1).astype(np.uint64) for i in range(4)]
    out = np.empty((lanes[0].size, 4), np.uint32)
    _encrypt(lanes, key, out)
    return out.reshape(counters.shape)


def words(seed: int, name: str, start: int, count: int) -> Words:
    """Return words ``start`` to ``start + count`` of the tensor ``name``.

    Word ``i`` is word ``i & 3`` of the block whose counter is ``i >> 2`` (in the counter's low 64 bits) under the key
    of :func:`stream_key`.

    Returns:
        uint32 array [count].
    """
    out = np.empty(count, np.uint32)
    for position, chunk in word_chunks(seed, name, start, count):
        out[position : position + chunk.size] = chunk
    return out


def word_chunks(seed: int, name: str, start: int, count: int) -> Iterator[tuple[int, Words]]:
    """Yield the words of :func:`words` piece by piece, so that a large tensor needs no second array of its size.

    Yields:
        the piece's offset from ``start`` and its words; the array is overwritten by the next piece.
    """
    key = stream_key(seed, name)
    if start < 0 or count < 0 or start + count > 2**66:
        raise ValueError(f"words {start} to {start + count} are outside the stream of 2**66 words.")
    first, last = start >> 2, (start + count + 3) >> 2
    buffer = np.empty((min(_CHUNK, last - first), 4), np.uint32)
    for block in range(first, last, _CHUNK):
        blocks = min(_CHUNK, last - block)
        index = np.arange(blocks, dtype=np.uint64) + np.uint64(block)
        zero = np.zeros(blocks, np.uint64)
        _encrypt([index & _LOW, index >> _HALF, zero, zero.copy()], key, buffer[:blocks])
        begin = max(start, block * 4)
        end = min(start + count, (block + blocks) * 4)
        yield begin - start, buffer[:blocks].reshape(-1)[begin - block * 4 : end - block * 4]


def _encrypt(lanes: list[npt.NDArray[np.uint64]], key: tuple[int, int], out: Words) -> None:
    """Run the ten rounds on four lanes (one 32-bit word in each 64-bit number); the lanes are overwritten.

    Args:
        lanes: four uint64 arrays [blocks], each value below 2**32.
        key: two 32-bit words.
        out: uint32 [blocks, 4], filled.
    """
    c0, c1, c2, c3 = lanes
    product0, product1 = np.empty_like(c0), np.empty_like(c0)
    k0, k1 = key
    m0, m1 = (np.uint64(m) for m in MULTIPLIERS)
    for _ in range(ROUNDS):
        np.multiply(c0, m0, out=product0)
        np.multiply(c2, m1, out=product1)
        np.right_shift(product1, _HALF, out=c0)
        np.bitwise_xor(c0, c1, out=c0)
        np.bitwise_xor(c0, np.uint64(k0), out=c0)
        np.bitwise_and(product1, _LOW, out=c1)
        np.right_shift(product0, _HALF, out=c2)
        np.bitwise_xor(c2, c3, out=c2)
        np.bitwise_xor(c2, np.uint64(k1), out=c2)
        np.bitwise_and(product0, _LOW, out=c3)
        k0, k1 = (k0 + KEY_STEPS[0]) & 0xFFFFFFFF, (k1 + KEY_STEPS[1]) & 0xFFFFFFFF
    for column, lane in enumerate((c0, c1, c2, c3)):
        out[:, column] = lane
