"""Schedules against the published level tables and closed forms."""

import itertools
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.schedule import (
    cosine_drop_fraction,
    cubic,
    exponential,
    geometric,
    geometric_rounds,
    iterative,
    one_shot,
    prunes_at,
    updates_at,
)
from sparsepack.errors import UsageError


def test_lottery_ticket_levels_are_the_papers_labels() -> None:
    published = [80, 64, 51.2, 41, 32.8, 26.2, 21, 16.8, 13.4, 10.7, 8.6, 6.9, 5.5, 4.4, 3.5, 2.8, 2.3, 1.8, 1.4, 1.2]
    levels = geometric(1 - 0.8**20)
    assert len(levels) == 20
    assert [100 * (1 - level) for level in levels] == pytest.approx(published, abs=0.06)


def test_lottery_ticket_levels_with_the_output_layer_at_half_rate() -> None:
    # LeNet-300-100: 265,200 weights lose 20 % a round, the 1,000 of the output layer 10 % (Frankle & Carbin 2019).
    published = [
        80.04, 64.06, 51.28, 41.05, 32.87, 26.32, 21.07, 16.88, 13.52, 10.83,
        8.68, 6.95, 5.57, 4.47, 3.58, 2.87, 2.31, 1.85, 1.49, 1.19,
    ]  # fmt: skip
    hidden, output = geometric(1 - 0.8**20, 0.2), geometric(1 - 0.9**20, 0.1)
    kept = [100 * (265_200 * (1 - h) + 1_000 * (1 - o)) / 266_200 for h, o in zip(hidden, output, strict=True)]
    assert kept == pytest.approx(published, abs=0.006)


@pytest.mark.parametrize(("sparsity", "trainings"), [(0.9, 12), (0.95, 15), (0.99, 22)])
def test_rounds_of_iterative_magnitude_pruning(sparsity: float, trainings: int) -> None:
    assert geometric_rounds(sparsity) + 1 == trainings


@given(rounds=st.integers(1, 40), rate=st.floats(0.05, 0.5))
def test_a_level_of_the_ladder_takes_its_own_number_of_rounds(rounds: int, rate: float) -> None:
    # 1 - (1 - rate)**rounds loses digits near 1, so the round trip is exact to rounding only.
    assert geometric_rounds(1 - (1 - rate) ** rounds, rate) in (rounds, rounds + 1)
    assert geometric_rounds(1 - 0.8**3) == 3
    assert geometric_rounds(0.2) == 1
    assert geometric_rounds(0.0) == 0


@given(sparsity=st.floats(0.001, 0.999), rate=st.floats(0.05, 0.9))
def test_geometric_levels_rise_and_end_exactly(sparsity: float, rate: float) -> None:
    levels = geometric(sparsity, rate)
    assert levels[-1] == sparsity
    assert levels == sorted(levels)
    left = [1 - level for level in [0.0, *levels]]
    assert all(after >= before * (1 - rate) - 1e-12 for before, after in itertools.pairwise(left))


def test_exponential_levels_share_one_factor() -> None:
    levels = exponential(0.99, 4)
    assert [1 - level for level in levels] == pytest.approx([0.01**0.25, 0.1, 0.01**0.75, 0.01])
    assert levels[-1] == 0.99
    assert exponential(0.9, 1) == [0.9] == one_shot(0.9)
    assert iterative(0.9, 3) == exponential(0.9, 3)
    assert iterative(0.9, None) == geometric(0.9)


def test_impossible_rounds_are_refused() -> None:
    with pytest.raises(UsageError, match="at least one round, not 0"):
        exponential(0.9, 0)
    with pytest.raises(UsageError, match=r"1\.0 is not in \(0, 1\)"):
        geometric(0.9, 1.0)


def test_cubic_values() -> None:
    values = [cubic(step, 0, 100, 0.9) for step in (10, 25, 50, 75)]
    assert values == pytest.approx([0.2439, 0.5203, 0.7875, 0.8859], abs=5e-5)
    assert cubic(0, 0, 100, 0.9) == 0.0
    assert cubic(99, 100, 200, 0.9, 0.1) == 0.1
    assert cubic(100, 0, 100, 0.9) == cubic(10_000, 0, 100, 0.9) == 0.9
    assert cubic(5, 5, 5, 0.9) == 0.9


@given(start=st.integers(0, 50), length=st.integers(0, 200), every=st.integers(1, 30))
def test_gradual_pruning_begins_and_ends_on_time(start: int, length: int, every: int) -> None:
    end = start + length
    steps = [step for step in range(end + 50) if prunes_at(step, start, end, every)]
    assert steps[0] == start
    assert steps[-1] == end
    assert len(steps) == math.ceil(length / every) + 1


def test_cosine_drop_fraction_at_the_quarters() -> None:
    values = [cosine_drop_fraction(step, 100) for step in (0, 25, 50, 75, 100)]
    assert values == pytest.approx([0.3, 0.2561, 0.15, 0.0439, 0.0], abs=5e-5)
    assert cosine_drop_fraction(1_000, 100) == 0.0


def test_masks_are_exchanged_between_the_first_step_and_the_end() -> None:
    assert [step for step in range(1_000) if updates_at(step, 300, 100)] == [100, 200]
