"""Huffman-only deflate of our own: zlib inflates it, no code is better, and it is never longer than zlib's by much."""

import itertools
import math
import zlib
from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.exporters.codecs.huffman import code_lengths, counted_size, cut, encode, estimate, size
from sparsepack.files import Array


def inflated(stream: bytes) -> bytes:
    decoder = zlib.decompressobj(-15)
    data = decoder.decompress(stream) + decoder.flush()
    assert decoder.eof
    assert not decoder.unused_data
    return data


def whole(parts: Sequence[Array]) -> bytes:
    return b"".join(part.tobytes() for part in parts)


@st.composite
def rows(draw: st.DrawFn) -> Array:
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    count = draw(st.sampled_from([0, 1, 2, 3, 7, 100, 1000, 70_000]))
    kind = draw(st.sampled_from(["noise", "constant", "geometric", "few", "steep"]))
    if kind == "steep":
        # Frequencies that double: an unlimited code would be deeper than 15 bits.
        return np.minimum(np.floor(-np.log2(1 - rng.random(count))), 255).astype(np.uint8)
    drawn = {
        "noise": rng.integers(0, 256, count),
        "constant": np.full(count, 200),
        "geometric": np.minimum(rng.geometric(0.2, count), 255),
        "few": rng.choice([0, 255], count),
    }
    return drawn[kind].astype(np.uint8)


@given(st.lists(rows(), max_size=4))
def test_zlib_inflates_what_was_written(parts: list[Array]) -> None:
    stream = encode(parts)
    assert inflated(stream) == whole(parts)
    assert len(stream) == size(parts)
    for part in parts:
        assert counted_size(np.bincount(part, minlength=256)) == len(encode([part]))
        assert whole(cut(part)) == part.tobytes()
        assert inflated(encode(cut(part))) == part.tobytes()


def best_depths(weights: Sequence[int]) -> int:
    """The oracle: the cheapest of all lengths that satisfy Kraft's inequality, by trying them."""
    depths = range(1, len(weights))
    return min(
        sum(weight * depth for weight, depth in zip(weights, lengths, strict=True))
        for lengths in itertools.product(depths, repeat=len(weights))
        if sum(2.0**-depth for depth in lengths) <= 1
    )


@given(st.lists(st.integers(1, 50), min_size=2, max_size=5))
def test_no_code_is_shorter(weights: list[int]) -> None:
    lengths = code_lengths(weights, 15)
    assert sum(2.0**-length for length in lengths) == 1
    assert int((np.array(weights) * lengths).sum()) == best_depths(weights)


@pytest.mark.parametrize("most", [5, 7, 15])
def test_codes_are_no_deeper_than_they_may_be(most: int) -> None:
    fibonacci = [1, 1]
    while len(fibonacci) < 30:
        fibonacci.append(fibonacci[-1] + fibonacci[-2])
    lengths = code_lengths([*fibonacci, 0], most)
    assert lengths.max() == most
    assert lengths[-1] == 0
    assert sum(2.0**-length for length in lengths[:-1]) <= 1


def test_one_block_is_shorter_than_zlibs_many() -> None:
    rng = np.random.default_rng(0)
    data = np.minimum(rng.geometric(0.1, 400_000) - 1, 255).astype(np.uint8)
    coder = zlib.compressobj(9, zlib.DEFLATED, -15, 9, zlib.Z_HUFFMAN_ONLY)
    by_zlib = len(coder.compress(data.tobytes()) + coder.flush())
    counts = np.bincount(data)
    entropy = float((counts * np.log2(data.size / np.maximum(counts, 1))).sum()) / 8
    assert entropy < len(encode([data])) < min(by_zlib, 1.012 * entropy)
    assert math.isclose(estimate(data), len(encode([data])), rel_tol=0.02)


def test_a_block_follows_a_distribution_that_changes() -> None:
    low, high = (np.random.default_rng(n).integers(16 * n, 16 * n + 4, 50_000).astype(np.uint8) for n in (0, 9))
    assert len(cut(np.concatenate([low, high]))) > 1
    # Four symbols and the end mark: codes of 2, 2, 2, 3 and 3 bits, and two small tables.
    assert size([low, high]) < 100_000 * 2.25 / 8 + 100
    noise = np.random.default_rng(0).integers(0, 256, 100_000).astype(np.uint8)
    assert len(cut(noise)) == 1


def test_very_short_rows_need_no_table() -> None:
    assert len(encode([np.array([7, 7, 9], np.uint8)])) <= 5
    assert inflated(encode([])) == b""
