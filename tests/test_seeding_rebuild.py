"""Seed records: hand-computed weights, numpy against torch bit for bit, slices, and the keyed product's statistics."""

from __future__ import annotations

import math
from unittest import mock

import msgspec
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sparsepack.errors import FileFormatError, UnsupportedError
from sparsepack.models.seeding import keyed_product, philox, philox_torch
from sparsepack.models.seeding.keyed_product import column_keys, matrix_shape, row_keys
from sparsepack.models.seeding.philox import words
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import GENERATORS, KEYED_PRODUCT, PHILOX, REBUILDABLE, SeedRecord

SHAPES = st.lists(st.integers(0, 7), max_size=4).map(tuple)


def make(generator: str = PHILOX, initialiser: str = "uniform", **changes: object) -> SeedRecord:
    fields = {"seed": 0, "name": "", "bound": 1.0} | changes
    # Fields drawn by name.
    return SeedRecord(generator=generator, initialiser=initialiser, **fields)  # type: ignore[arg-type]


def test_uniform_under_philox_by_hand() -> None:
    # Random123's answer for key 0, counter 0, without the lowest byte: 6627e8, e169c5, bc57ac, 9b00db.
    expected = [(u - 2**23) / 2**23 for u in (0x6627E8, 0xE169C5, 0xBC57AC, 0x9B00DB)]
    assert rebuild(make(), (2, 2)).tolist() == [expected[:2], expected[2:]]
    assert rebuild(make(bound=0.25), (4,)).tolist() == [value / 4 for value in expected]


def test_signed_constant_under_philox_is_positive_where_the_top_bit_is_set() -> None:
    assert rebuild(make(initialiser="signed-constant", bound=0.5), (4,)).tolist() == [-0.5, 0.5, 0.5, 0.5]


def test_a_uniform_weight_is_rounded_once() -> None:
    bound = np.float32(1 / math.sqrt(300))
    drawn = words(9, "fc1.weight", 0, 5000)
    weights = rebuild(make(seed=9, name="fc1.weight", bound=float(bound)), (5000,))
    exact = ((drawn >> 8).astype(np.float64) - 2**23) * (float(bound) * 2.0**-23)
    # The double product of a 24-bit integer and a 24-bit float is exact, so its rounding is the only one.
    assert np.array_equal(weights, exact.astype(np.float32))
    assert np.abs(weights).max() <= bound


def plain_keys(candidates: list[int], count: int) -> list[int]:
    taken: list[int] = []
    for word in candidates:
        key = word | 1
        if key not in taken and (2**32 - key) not in taken:
            taken.append(key)
    return taken[:count]


@settings(deadline=None)
@given(seed=st.integers(0, 2**32 - 1), name=st.text(max_size=8), rows=st.integers(1, 6), columns=st.integers(1, 6))
def test_keyed_product_equals_plain_python(seed: int, name: str, rows: int, columns: int) -> None:
    by_row = plain_keys(words(seed, name, 0, 20).tolist(), rows)
    by_column = plain_keys(words(seed, name, 2**32, 20).tolist(), columns)
    products = [[(r * c + 2**31) % 2**32 - 2**31 for c in by_column] for r in by_row]
    bound = float(np.float32(0.07))
    uniform = rebuild(make(KEYED_PRODUCT, seed=seed, name=name, bound=bound), (rows, columns))
    expected = np.array(products, np.int32).astype(np.float32) * np.float32(bound * 2.0**-31)
    assert np.array_equal(uniform, expected)
    signs = rebuild(make(KEYED_PRODUCT, "signed-constant", seed=seed, name=name, bound=bound), (rows, columns))
    assert np.array_equal(signs > 0, np.array(products) > 0)
    assert np.all(np.abs(signs) == np.float32(bound))


def test_keys_are_redrawn_until_unique_also_against_their_negatives(monkeypatch: pytest.MonkeyPatch) -> None:
    # As odd keys: 3, 3, -3, 5, -5, 7, 5, 9; then -7, 11 on the second, longer look.
    stream = [2, 3, 2**32 - 3, 4, 2**32 - 5, 6, 5, 8, 2**32 - 7, 10, *range(100, 200)]
    monkeypatch.setattr(keyed_product, "words", lambda _seed, _name, start, count: np.array(stream[:count], np.uint32))
    assert row_keys(0, "w", 3).tolist() == [3, 5, 7] == plain_keys(stream, 3)
    assert row_keys(0, "w", 40).tolist() == plain_keys(stream, 40)


def test_keys_of_a_large_axis_are_odd_and_unique() -> None:
    keys = row_keys(1, "embedding.weight", 120_000).astype(np.int64)
    # Two equal classes are expected for every 149 candidates squared; at 120,000 about seven redraws happened.
    assert np.all(keys % 2 == 1)
    assert np.unique(np.minimum(keys, 2**32 - keys)).size == keys.size
    drawn = words(1, "embedding.weight", 0, 120_000) | np.uint32(1)
    assert not np.array_equal(keys, drawn) and np.array_equal(keys[:1000], drawn[:1000])


def test_an_axis_with_more_keys_than_the_generator_has_is_refused() -> None:
    with pytest.raises(UnsupportedError, match="at most 268435456"):
        column_keys(0, "w", 2**28 + 1)


@pytest.mark.parametrize(
    ("shape", "expected"), [((), (1, 1)), ((5,), (5, 1)), ((4, 3), (4, 3)), ((8, 3, 2, 2), (8, 12)), ((0, 3), (0, 3))]
)
def test_a_tensor_is_seen_as_output_units_by_the_rest(shape: tuple[int, ...], expected: tuple[int, int]) -> None:
    assert matrix_shape(shape) == expected


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("initialiser", REBUILDABLE)
@settings(deadline=None)
@given(shape=SHAPES, seed=st.integers(0, 2**32 - 1), name=st.text(max_size=8), bound=st.floats(0, 4, width=32))
def test_numpy_and_torch_agree_bit_for_bit(
    generator: str, initialiser: str, shape: tuple[int, ...], seed: int, name: str, bound: float
) -> None:
    record = make(generator, initialiser, seed=seed, name=name, bound=bound)
    drawn = rebuild(record, shape)
    assert drawn.shape == shape and drawn.dtype == np.float32
    other = philox_torch.rebuild(record, shape).numpy()
    assert other.shape == shape and drawn.tobytes() == other.tobytes()


@pytest.mark.parametrize("generator", GENERATORS)
def test_numpy_and_torch_agree_on_a_tensor_of_many_chunks(generator: str) -> None:
    record = make(generator, seed=11, name="conv.weight", bound=float(np.float32(0.0147)))
    shape = (300, 128, 3, 3)
    assert rebuild(record, shape).tobytes() == philox_torch.rebuild(record, shape).numpy().tobytes()


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("initialiser", REBUILDABLE)
@settings(deadline=None)
@given(data=st.data(), shape=st.sampled_from([(), (1,), (9,), (5, 7), (3, 2, 4), (60, 12), (2, 90), (41, 3, 1)]))
def test_any_slice_can_be_drawn_alone(
    generator: str, initialiser: str, data: st.DataObject, shape: tuple[int, ...]
) -> None:
    record = make(generator, initialiser, seed=8, name="w", bound=0.5)
    total = math.prod(shape)
    start = data.draw(st.integers(0, total))
    count = data.draw(st.one_of(st.none(), st.integers(0, total - start)))
    end = total if count is None else start + count
    expected = rebuild(record, shape).reshape(-1)[start:end]
    # Small pieces, so that slices begin and end inside, between and across them.
    with mock.patch.object(philox, "_CHUNK", 5), mock.patch.object(keyed_product, "_CHUNK", 40):
        assert np.array_equal(rebuild(record, shape, start, count).reshape(-1), expected)


def test_a_slice_that_leaves_the_tensor_is_refused() -> None:
    with pytest.raises(ValueError, match=r"outside the shape \(3, 4\)"):
        rebuild(make(), (3, 4), 10, 3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"generator": "mt19937"}, "unknown generator 'mt19937'"),
        ({"initialiser": "kaiming-normal"}, "initialiser 'kaiming-normal', which no seed rebuilds"),
        ({"seed": 2**32}, "the seed 4294967296, outside 32 bits"),
        ({"seed": -1}, "the seed -1, outside 32 bits"),
        ({"bound": math.inf}, "the bound inf, no finite float32"),
        ({"bound": math.nan}, "the bound nan, no finite float32"),
        ({"bound": 1e39}, "no finite float32"),
    ],
)
def test_a_malformed_record_is_refused(changes: dict[str, object], message: str) -> None:
    record = msgspec.structs.replace(make(name="fc1.weight"), **changes)
    with pytest.raises(FileFormatError, match=message):
        rebuild(record, (2, 2))
    with pytest.raises(FileFormatError, match=r"'fc1\.weight'"):
        philox_torch.rebuild(record, (2, 2))


# The keyed product's statistics. Bounds are five standard errors of the same statistic of independent numbers.

ROWS, COLUMNS = 384, 512


@pytest.fixture(scope="module", params=[(0, "fc1.weight"), (1, "layer3.0.conv2.weight"), (2**32 - 1, "head.weight")])
def matrix(request: pytest.FixtureRequest) -> np.ndarray:
    seed, name = request.param
    record = make(KEYED_PRODUCT, seed=seed, name=name, bound=1.0)
    return rebuild(record, (ROWS, COLUMNS)).astype(np.float64)


def test_keyed_product_moments_are_those_of_the_uniform_distribution(matrix: np.ndarray) -> None:
    error = 1 / math.sqrt(matrix.size)
    assert abs(matrix.mean()) < 5 * math.sqrt(1 / 3) * error
    assert abs((matrix**2).mean() - 1 / 3) < 5 * math.sqrt(4 / 45) * error
    assert abs((matrix**3).mean()) < 5 * math.sqrt(1 / 7) * error
    # Kurtosis of the uniform distribution is 9/5: (1/5) / (1/3)**2.
    assert abs((matrix**4).mean() / (matrix**2).mean() ** 2 - 9 / 5) < 0.03
    counts = np.histogram(matrix, bins=64, range=(-1, 1))[0]
    expected = matrix.size / 64
    assert ((counts - expected) ** 2 / expected).sum() < 63 + 5 * math.sqrt(2 * 63)


def test_keyed_product_neighbours_are_uncorrelated(matrix: np.ndarray) -> None:
    for left, right in [
        (matrix[:, :-1], matrix[:, 1:]),
        (matrix[:-1], matrix[1:]),
        (matrix[:-1, :-1], matrix[1:, 1:]),
    ]:
        assert abs(3 * (left * right).mean()) < 5 / math.sqrt(left.size)
        assert abs((np.sign(left) * np.sign(right)).mean()) < 5 / math.sqrt(left.size)
        assert abs(np.corrcoef(np.abs(left).ravel(), np.abs(right).ravel())[0, 1]) < 5 / math.sqrt(left.size)


def test_keyed_product_rows_and_columns_are_uncorrelated(matrix: np.ndarray) -> None:
    for view in (matrix, matrix.T):
        length = view.shape[1]
        off_diagonal = np.corrcoef(view)[np.triu_indices(view.shape[0], 1)]
        # Independent rows: standard deviation 1/sqrt(length); the largest of 10**5 such is below six of them.
        assert np.abs(off_diagonal).max() < 6 / math.sqrt(length)
        assert abs(off_diagonal.std() * math.sqrt(length) - 1) < 0.02
        assert np.abs(view.mean(axis=1)).max() < 5 * math.sqrt(1 / 3 / length)


def test_keyed_product_has_no_rectangle_parity(matrix: np.ndarray) -> None:
    # r1 c1 * r2 c2 = r1 c2 * r2 c1 holds modulo 2**32; the signs must not show it.
    sign = np.sign(matrix)
    parity = sign[:-1, :-1] * sign[1:, 1:] * sign[:-1, 1:] * sign[1:, :-1]
    assert abs(parity.mean()) < 5 / math.sqrt(parity.size)


def test_keyed_product_has_no_more_duplicates_than_independent_numbers(matrix: np.ndarray) -> None:
    magnitudes = np.abs(matrix).astype(np.float32).ravel()
    independent = np.abs(np.random.default_rng(0).integers(-(2**31), 2**31, magnitudes.size).astype(np.float32))
    doubles, expected = (array.size - np.unique(array).size for array in (magnitudes, independent))
    assert doubles < 1.3 * expected + 50
    assert np.unique(matrix, axis=0).shape[0] == ROWS and np.unique(matrix, axis=1).shape[1] == COLUMNS


def test_keyed_product_has_the_singular_values_of_a_random_matrix(matrix: np.ndarray) -> None:
    spectrum = np.linalg.svd(matrix, compute_uv=False)
    generator = np.random.default_rng(0)
    independent = np.array([np.linalg.svd(generator.uniform(-1, 1, matrix.shape), compute_uv=False) for _ in range(6)])
    middle, spread = independent.mean(axis=0), independent.std(axis=0, ddof=1).max()
    assert np.abs(spectrum - middle).max() < 5 * spread
    # The edge of Marchenko and Pastur: sigma (sqrt(m) + sqrt(n)).
    assert spectrum[0] == pytest.approx((math.sqrt(ROWS) + math.sqrt(COLUMNS)) / math.sqrt(3), rel=0.02)
