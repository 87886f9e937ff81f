"""The order-0 bound against brute force: counting symbols one by one."""

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.checkpoint import make_tensor
from sparsepack.compressor.structure import from_blocks
from sparsepack.exporters.bound import entropy_bits, part_bound, position_bits, tensor_bound, total_bound, value_bits
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import SeedRecord

# dtype -> bits of the whole, and of the mantissa
FLOATS = {"float32": (32, 23), "float16": (16, 10), "bfloat16": (16, 7), "float64": (64, 52)}


def shannon(symbols: list[object]) -> float:
    """Bits of an ideal order-0 code, straight from the definition."""
    total = len(symbols)
    return -sum(count * math.log2(count / total) for count in Counter(symbols).values())


@given(st.lists(st.integers(0, 5), max_size=60))
def test_entropy_is_shannons(symbols: list[int]) -> None:
    counts = list(Counter(symbols).values())
    assert entropy_bits([*counts, 0]) == pytest.approx(shannon(list(symbols)))


@pytest.mark.parametrize("dtype", FLOATS)
@given(st.integers(0, 80), st.integers(0, 2**32))
def test_float_values_cost_sign_and_exponent_entropy_plus_mantissa(dtype: str, count: int, seed: int) -> None:
    values = np.random.default_rng(seed).normal(size=count).astype(numpy_dtype(dtype))
    width, mantissa = FLOATS[dtype]
    top = []
    for value in values:
        pattern = int.from_bytes(value.tobytes(), "little")
        top.append(f"{pattern:0{width}b}"[: width - mantissa])
    assert value_bits(values) == pytest.approx(shannon(list(top)) + mantissa * count)


def test_other_values_cost_their_entropy() -> None:
    assert value_bits(np.array([3, 3, 7, 7], np.int64)) == pytest.approx(4.0)
    assert value_bits(np.array(5, np.int64)) == 0.0
    assert value_bits(np.array([True, False, False, False])) == pytest.approx(4 * 0.8112781)


@given(st.integers(0, 40), st.integers(0, 40))
def test_element_positions_cost_the_binary_entropy(kept: int, pruned: int) -> None:
    mask = np.array([True] * kept + [False] * pruned)
    assert position_bits(mask) == pytest.approx(shannon(list(mask.tolist())))


def test_an_n_of_m_block_costs_the_logarithm_of_its_patterns() -> None:
    blocks = np.tile([True, False, False, True], (6, 1))
    mask = from_blocks(blocks, (2, 3, 2, 2), 0)
    assert position_bits(mask, "2:4") == pytest.approx(6 * math.log2(6))
    # One block that breaks the structure: then it is an element mask like any other.
    mask.flat[np.flatnonzero(mask)[0]] = False
    assert position_bits(mask, "2:4") == pytest.approx(shannon(list(mask.reshape(-1).tolist())))
    assert position_bits(from_blocks(blocks, (12, 2), 1), "2:4", 1) == pytest.approx(6 * math.log2(6))


def test_a_channel_mask_costs_one_symbol_a_unit() -> None:
    mask = np.zeros((8, 3, 3), np.bool_)
    mask[[1, 5]] = True
    units = [True] * 2 + [False] * 6
    assert position_bits(mask, "channel") == pytest.approx(shannon(list(units)))
    assert position_bits(np.moveaxis(mask, 0, 1), "channel", 1) == pytest.approx(shannon(list(units)))
    mask[0, 0, 0] = True
    assert position_bits(mask, "channel") == pytest.approx(shannon(list(mask.reshape(-1).tolist())))


def test_tensors_add_up_and_seeded_parts_are_free() -> None:
    rng = np.random.default_rng(0)
    weights: Array = rng.normal(size=(20, 30)).astype(np.float32)
    mask = rng.random(weights.shape) < 0.2
    seed = SeedRecord("keyed-product", 0, "w", "uniform", 0.5)
    positions = shannon(list(mask.reshape(-1).tolist()))
    values = value_bits(weights[mask])
    pruned = make_tensor("w", weights, mask=mask)
    frozen = make_tensor("w", weights, mask=mask, record={"parametrisation": "frozen", "seed": seed})
    selected = make_tensor("w", weights, mask=mask, record={"parametrisation": "selected", "seed": seed})
    whole = make_tensor("w", weights, mask=mask, record={"parametrisation": "frozen"})
    drawn = make_tensor("w", rebuild(seed, (20, 30)), record={"seed": seed})
    trained = make_tensor("w", weights, record={"seed": seed})
    assert tensor_bound(pruned) == pytest.approx((positions + values) / 8)
    assert tensor_bound(frozen) == tensor_bound(pruned)
    assert tensor_bound(selected) == pytest.approx(positions / 8)
    # Frozen at values that no seed draws: all of them are stored, and then no mask is needed.
    assert tensor_bound(whole) == tensor_bound(trained) == pytest.approx(value_bits(weights) / 8)
    assert tensor_bound(drawn) == 0.0
    assert tensor_bound(make_tensor("b", weights, record={"alias_of": "w"})) == 0.0
    assert total_bound([pruned, selected]) == pytest.approx(tensor_bound(pruned) + tensor_bound(selected))
    half = weights[mask].astype(np.float16)
    assert tensor_bound(pruned, "fp16") == pytest.approx((positions + value_bits(half)) / 8)


@pytest.mark.parametrize("shape", [(), (0,), (0, 5), (5, 0), (1,), (2, 0, 3)])
def test_empty_and_scalar_tensors_have_a_bound(shape: tuple[int, ...]) -> None:
    for structure in ("element", "channel", "2:4"):
        assert position_bits(np.ones(shape, np.bool_), structure) == 0.0
    assert part_bound(None, np.ones(shape, np.float32)) == pytest.approx(23 * math.prod(shape) / 8)
