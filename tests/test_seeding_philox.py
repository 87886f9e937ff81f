"""The generator against Random123's published answers, against plain Python, and against itself in slices and torch."""

from __future__ import annotations

import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepack.errors import UsageError
from sparsepack.models.seeding import philox, philox_torch
from sparsepack.models.seeding.philox import check_seed, philox4x32, words
from sparsepack.models.seeding.shuffle import integers, permutation

# Random123, tests/kat_vectors, "philox4x32 10".
KNOWN = [
    ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
]


def plain_block(counter: tuple[int, ...], key: tuple[int, int]) -> list[int]:
    """Philox4x32-10 from the paper's text, on Python integers."""
    c, (k0, k1) = list(counter), key
    for _ in range(10):
        p0, p1 = 0xD2511F53 * c[0], 0xCD9E8D57 * c[2]
        c = [(p1 >> 32) ^ c[1] ^ k0, p1 % 2**32, (p0 >> 32) ^ c[3] ^ k1, p0 % 2**32]
        k0, k1 = (k0 + 0x9E3779B9) % 2**32, (k1 + 0xBB67AE85) % 2**32
    return c


def plain_word(seed: int, name: str, index: int) -> int:
    block = index >> 2
    return plain_block((block % 2**32, block >> 32, 0, 0), (seed, zlib.crc32(name.encode())))[index & 3]


@pytest.mark.parametrize(("counter", "key", "expected"), KNOWN)
def test_known_answers_of_random123(counter: tuple[int, ...], key: tuple[int, int], expected: tuple[int, ...]) -> None:
    assert tuple(philox4x32(counter, key).tolist()) == expected
    assert tuple(plain_block(counter, key)) == expected


def test_blocks_keep_the_shape_of_their_counters() -> None:
    counters = np.arange(24, dtype=np.uint32).reshape(2, 3, 4)
    blocks = philox4x32(counters, (7, 8))
    assert blocks.shape == (2, 3, 4) and blocks.dtype == np.uint32
    assert blocks[1, 2].tolist() == plain_block((20, 21, 22, 23), (7, 8))
    assert counters[1, 2].tolist() == [20, 21, 22, 23]
    with pytest.raises(ValueError, match="4 words"):
        philox4x32([1, 2, 3], (0, 0))


def test_the_empty_name_has_key_zero_so_the_stream_starts_with_the_known_answer() -> None:
    assert zlib.crc32(b"") == 0
    assert words(0, "", 0, 4).tolist() == list(KNOWN[0][2])


@settings(deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    name=st.text(max_size=12),
    start=st.one_of(st.integers(0, 50), st.integers(2**34 - 9, 2**34 + 9), st.integers(0, 2**40)),
    count=st.integers(0, 23),
)
def test_any_slice_equals_plain_python(seed: int, name: str, start: int, count: int) -> None:
    expected = [plain_word(seed, name, index) for index in range(start, start + count)]
    assert words(seed, name, start, count).tolist() == expected
    assert philox_torch.words(seed, name, start, count).tolist() == expected


def test_slices_across_chunks_equal_the_whole() -> None:
    chunk = 4 * philox._CHUNK
    whole = words(5, "layer.weight", 0, 3 * chunk + 5)
    assert np.array_equal(words(5, "layer.weight", chunk - 3, chunk + 6), whole[chunk - 3 : 2 * chunk + 3])
    assert np.array_equal(words(5, "layer.weight", 2 * chunk, chunk + 5), whole[2 * chunk :])
    assert np.array_equal(philox_torch.words(5, "layer.weight", 0, whole.size).numpy(), whole.astype(np.int64))


def test_seed_and_name_both_change_the_stream() -> None:
    first = words(0, "a", 0, 64)
    assert not np.array_equal(first, words(1, "a", 0, 64))
    assert not np.array_equal(first, words(0, "b", 0, 64))


def test_words_are_evenly_spread() -> None:
    drawn = words(3, "spread", 0, 1 << 18)
    bits = np.unpackbits(drawn.view(np.uint8)).reshape(-1, 8).mean(axis=0)
    # Standard error of a bit's mean is 0.5 / sqrt(2**20) = 0.0005.
    assert np.abs(bits - 0.5).max() < 0.0025
    buckets = np.bincount(drawn >> 24, minlength=256)
    chi_square = ((buckets - 1024.0) ** 2 / 1024.0).sum()
    # 255 degrees of freedom: mean 255, standard deviation 22.6.
    assert 155 < chi_square < 355


@pytest.mark.parametrize("seed", [-1, 2**32, 2**40])
def test_a_seed_outside_32_bits_is_refused(seed: int) -> None:
    with pytest.raises(
        UsageError, match=f"the seed {seed} is out of range; choose a whole number from 0 to 4294967295"
    ):
        words(seed, "a", 0, 1)


@pytest.mark.parametrize("seed", [0.5, "1", None])
def test_a_seed_that_is_no_whole_number_is_refused(seed: object) -> None:
    with pytest.raises(UsageError, match="a seed is a whole number"):
        check_seed(seed)  # type: ignore[arg-type]  # the point of the test


def test_the_ends_of_the_seed_range_and_numpy_integers_are_seeds() -> None:
    assert check_seed(np.int64(7)) == 7  # type: ignore[arg-type]  # the point of the test
    assert words(2**32 - 1, "a", 0, 1).tolist() == [plain_word(2**32 - 1, "a", 0)]


def test_a_negative_position_is_refused() -> None:
    with pytest.raises(ValueError, match="outside the stream"):
        words(0, "a", -1, 2)
    with pytest.raises(ValueError, match="outside what"):
        philox_torch.words(0, "a", -1, 2)


@settings(max_examples=30, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), n=st.integers(0, 300))
def test_a_permutation_holds_each_index_once_in_the_order_of_the_keys(seed: int, n: int) -> None:
    order = permutation(seed, "epoch-0", n)
    assert order.dtype == np.int64 and sorted(order.tolist()) == list(range(n))
    drawn = words(seed, "epoch-0", 0, 2 * n).tolist()
    keys = [high << 32 | low for high, low in zip(drawn[::2], drawn[1::2], strict=True)]
    assert order.tolist() == sorted(range(n), key=lambda i: (keys[i], i))


def test_permutations_of_two_epochs_differ() -> None:
    assert not np.array_equal(permutation(0, "epoch-0", 100), permutation(0, "epoch-1", 100))


@pytest.mark.parametrize("below", [1, 2, 9, 2**31])
def test_integers_stay_below_their_end_and_any_slice_is_the_same(below: int) -> None:
    drawn = integers(4, "crop", 0, 2000, below)
    assert drawn.min() >= 0 and drawn.max() < below
    assert drawn[11] == plain_word(4, "crop", 11) * below >> 32
    assert np.array_equal(integers(4, "crop", 501, 99, below), drawn[501:600])
    if below == 9:
        assert np.bincount(drawn).min() > 150
    with pytest.raises(ValueError, match="upper end"):
        integers(0, "crop", 0, 1, 0)
