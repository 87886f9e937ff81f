"""The statistics of paired timing on synthetic clocks: what was planted comes out, and nothing else does."""

import numpy as np
import pytest
from scipy.stats import binom

from sparsepack.runtimes.measure.latency import (
    EPISODES,
    MINIMUM_ROUNDS,
    Load,
    Run,
    time_alone,
    time_pair,
    time_undisturbed,
)
from sparsepack.runtimes.measure.statistics import (
    interval_rank,
    median_interval,
    quantile,
    ratio_interval,
    settled,
    unbiased_quantile,
)


class FakeMachine:
    """A clock that only moves when something runs: skewed noise, slow drift, rare long interruptions, and placement.

    ``placement`` is the spread of what every loading adds to or takes from a network's time for as long as it lives,
    ``interrupted`` the share of runs in whose midst another process has its turn.
    """

    def __init__(
        self, seed: int, noise: float = 0.03, placement: float = 0.0, loading: float = 0.0, interrupted: float = 0.02
    ) -> None:
        self.now = 0
        self.runs = 0
        self.loads = 0
        self._random = np.random.default_rng(seed)
        self._noise = noise
        self._placement = placement
        self._loading = loading
        self._interrupted = interrupted

    def clock(self) -> int:
        return self.now

    def network(self, milliseconds: float) -> Load:
        def load() -> Run:
            self.loads += 1
            self.now += round(self._loading * 1e9)
            return self.work(milliseconds * (1 + self._random.normal(0.0, self._placement)))

        return load

    def work(self, milliseconds: float) -> Run:
        def run() -> None:
            self.runs += 1
            factor = 1 + self._random.exponential(self._noise) if self._noise else 1.0
            if self._noise and self._random.random() < self._interrupted:
                factor += 1
            # The whole machine slows down by a tenth and recovers, several times within one measurement.
            drift = 1 + 0.1 * (self.now // 300_000_000 % 2) if self._noise else 1.0
            self.now += round(milliseconds * 1e6 * factor * drift)

        return run


@pytest.mark.parametrize("count", [6, 7, 10, 11, 50, 101, 1500])
def test_the_rank_is_the_largest_that_the_binomial_law_allows(count: int) -> None:
    rank = interval_rank(count)
    assert rank is not None
    assert 1 - 2 * binom.cdf(rank - 1, count, 0.5) >= 0.95
    assert 1 - 2 * binom.cdf(rank, count, 0.5) < 0.95


def test_five_values_cannot_give_a_95_percent_interval() -> None:
    assert interval_rank(5) is None
    with pytest.raises(ValueError, match="5 values cannot give a 95% interval"):
        median_interval([1.0, 2.0, 3.0, 4.0, 5.0])


def test_the_interval_covers_the_true_median_of_a_skewed_law_at_least_95_percent_of_the_time() -> None:
    generator = np.random.default_rng(0)
    samples = generator.exponential(size=(2000, 25))
    hits = sum(i.low <= np.log(2) <= i.high for i in (median_interval(row.tolist()) for row in samples))
    # 25 values: rank 8, exact coverage 95.7 %; three standard deviations of the count are 27.
    assert hits >= 2000 * 0.957 - 28


def test_quantiles_equal_numpy() -> None:
    values = np.random.default_rng(1).random(37).tolist()
    for share in (0.0, 0.1, 0.5, 0.9, 1.0):
        assert quantile(values, share) == pytest.approx(np.quantile(values, share))


def test_unbiased_quantiles_equal_numpy() -> None:
    for count in (1, 2, 5, 12, 84):
        values = np.random.default_rng(count).random(count).tolist()
        for share in (0.0, 0.05, 0.1, 0.5, 0.95, 1.0):
            expected = np.quantile(values, share, method="median_unbiased")
            assert unbiased_quantile(values, share) == pytest.approx(expected)


def test_ratios_are_paired() -> None:
    slow_day = [10.0, 1.0, 5.0, 2.0, 8.0, 4.0, 3.0]
    assert ratio_interval([2 * t for t in slow_day], slow_day).low == 2.0
    with pytest.raises(ValueError, match="argument 2 is"):
        ratio_interval([1.0], slow_day)


def test_warm_up_ends_when_two_windows_agree() -> None:
    assert not settled([9, 5, 3, 2], 3, 0.05)
    assert not settled([9, 9, 9, 1, 1, 1], 3, 0.05)
    assert settled([9, 9, 9, 1, 1, 1, 1, 1, 1], 3, 0.05)


@pytest.mark.parametrize("placement", [0.0, 0.02])
def test_the_same_thing_on_both_sides_gives_one(placement: float) -> None:
    covered = 0
    for seed in range(50):
        machine = FakeMachine(seed, placement=placement)
        pair = time_pair(machine.network(1.0), machine.network(1.0), budget=2.0, clock=machine.clock, seed=seed)
        covered += pair.speedup.low <= 1.0 <= pair.speedup.high
        assert pair.episodes in (EPISODES[0], 3 * EPISODES[0])
        assert pair.speedup.high - pair.speedup.low < 0.03 + 2 * placement
    assert covered >= 45


@pytest.mark.parametrize("placement", [0.02, 0.03])
def test_looking_twice_at_a_wide_interval_keeps_its_promise(placement: float) -> None:
    covered, longer = 0, 0
    for seed in range(200):
        machine = FakeMachine(seed, placement=placement)
        pair = time_pair(machine.network(1.0), machine.network(1.0), budget=0.2, clock=machine.clock, seed=seed)
        covered += pair.speedup.low <= 1.0 <= pair.speedup.high
        longer += pair.episodes > EPISODES[0]
        assert pair.episodes == EPISODES[0] or machine.now < 1.2e9
    assert covered >= 0.95 * 200
    assert 20 < longer < 200


def test_a_spell_that_fills_the_time_budget_is_waited_out() -> None:
    """One side is slow, by a part that changes from episode to episode, for as long as fifteen of them take."""

    def width(until: float) -> float:
        machine = FakeMachine(5, noise=0.0)
        drawn = np.random.default_rng(0)

        def load() -> Run:
            slow = machine.work(1.0 + drawn.random() / 2)
            fast = machine.work(1.0)
            return lambda: slow() if machine.now < until else fast()

        speedup = time_pair(load, machine.network(1.0), budget=1.0, clock=machine.clock).speedup
        return speedup.high - speedup.low

    assert width(1e9) == 0
    assert width(3e9) > 0.04


def test_a_planted_slowdown_of_five_percent_is_found() -> None:
    found = 0
    for seed in range(50):
        machine = FakeMachine(seed, placement=0.01)
        pair = time_pair(machine.network(1.05), machine.network(1.0), budget=2.0, clock=machine.clock, seed=seed)
        found += pair.speedup.high < 1.0
        assert pair.speedup.median == pytest.approx(1 / 1.05, rel=0.03)
    assert found >= 45


def test_a_busy_machine_that_interrupts_every_third_run_hardly_widens_the_interval() -> None:
    found, widths = 0, []
    for seed in range(20):
        machine = FakeMachine(seed, placement=0.01, interrupted=0.35)
        pair = time_pair(machine.network(1.05), machine.network(1.0), budget=2.0, clock=machine.clock, seed=seed)
        found += pair.speedup.high < 1.0
        widths.append(pair.speedup.high - pair.speedup.low)
    assert found >= 18
    assert np.median(widths) < 0.04


def test_the_faster_side_has_no_more_chances_of_an_undisturbed_run() -> None:
    speedups = []
    for seed in range(10):
        machine = FakeMachine(seed, noise=0.1)
        pair = time_pair(machine.network(0.1), machine.network(1.9), budget=2.0, clock=machine.clock, seed=seed)
        speedups.append(pair.speedup.median)
    # The least of three runs is 3 % above the undisturbed time, that of the twenty that fit one side's turn 0.5 %.
    assert np.median(speedups) == pytest.approx(19.0, rel=0.01)


def test_a_single_loading_would_mistake_placement_for_a_difference() -> None:
    covered = 0
    for seed in range(50):
        machine = FakeMachine(seed, placement=0.02, loading=10.0)
        pair = time_pair(machine.network(1.0), machine.network(1.0), budget=2.0, clock=machine.clock, seed=seed)
        covered += pair.speedup.low <= 1.0 <= pair.speedup.high
        assert pair.episodes == 1
    # Why the episodes exist: with one, the interval knows nothing of what both sides keep for as long as they live.
    assert covered < 35


def test_without_noise_every_number_is_exact() -> None:
    machine = FakeMachine(0, noise=0.0)
    pair = time_pair(machine.network(30.0), machine.network(60.0), budget=0.2, clock=machine.clock)
    assert (pair.speedup.low, pair.speedup.median, pair.speedup.high) == (2.0, 2.0, 2.0)
    assert pair.subject.median_ms == 30.0
    assert pair.baseline.p90_ms == 60.0


def test_slow_loading_is_not_repeated_and_a_slow_network_still_gets_its_minimum_of_rounds() -> None:
    machine = FakeMachine(0, loading=3.0)
    slow = time_pair(machine.network(500.0), machine.network(700.0), budget=0.5, clock=machine.clock)
    assert machine.loads == 2
    assert len(slow.subject.times_ms) == len(slow.baseline.times_ms) == MINIMUM_ROUNDS


def test_a_fast_network_keeps_to_the_budget() -> None:
    machine = FakeMachine(0, loading=0.01)
    time_pair(machine.network(0.1), machine.network(0.1), budget=1.0, clock=machine.clock)
    assert machine.loads == 2 * EPISODES[0]
    assert machine.now < 1.1e9 + machine.loads * 0.01e9


def test_every_run_is_counted_once() -> None:
    machine = FakeMachine(3)
    timing = time_alone(machine.network(0.7), budget=0.3, clock=machine.clock)
    assert machine.runs == len(timing.times_ms) + timing.warmup
    assert timing.p10_ms <= timing.median_ms <= timing.p90_ms
    machine = FakeMachine(3)
    pair = time_pair(machine.network(0.7), machine.network(0.9), budget=0.3, clock=machine.clock)
    counted = sum(len(side.times_ms) + side.warmup for side in (pair.subject, pair.baseline))
    assert machine.runs == counted


def test_a_slow_spell_does_not_count_in_what_a_machine_can_do() -> None:
    machine = FakeMachine(0, noise=0.0)

    def slow_at_first() -> Run:
        fast, slow = machine.work(0.7), machine.work(1.1)
        return lambda: slow() if machine.now < 200_000_000 else fast()

    assert time_alone(slow_at_first, budget=0.1, clock=machine.clock).median_ms == pytest.approx(1.1)
    machine.now = 0
    assert time_undisturbed(slow_at_first, budget=0.4, clock=machine.clock).median_ms == pytest.approx(0.7)


@pytest.mark.parametrize("milliseconds", [0.02, 0.7, 90.0])
def test_short_slow_stretches_hide_nothing_of_what_a_machine_can_do(milliseconds: float) -> None:
    """Two thirds of the time the machine is slow: the median of all runs is a slow one's, that of a stretch is not."""
    machine = FakeMachine(0, noise=0.0)
    period = round(30e6 * max(1.0, milliseconds / 5))

    def load() -> Run:
        fast, slow = machine.work(milliseconds), machine.work(1.5 * milliseconds)
        return lambda: fast() if machine.now // period % 3 == 0 else slow()

    assert time_alone(load, budget=0.4, clock=machine.clock).median_ms == pytest.approx(1.5 * milliseconds)
    machine.now = 0
    assert time_undisturbed(load, budget=0.4, clock=machine.clock).median_ms == pytest.approx(milliseconds)


def test_a_machine_that_was_fast_only_once_is_asked_again() -> None:
    """Three loadings that disagree are followed by others, up to twelve in all, and the fastest counts."""
    machine = FakeMachine(0, noise=0.0)
    speeds = iter([1.5, 1.4, 1.0, 1.3, 1.01, 9.0])
    loads = 0

    def load() -> Run:
        nonlocal loads
        loads += 1
        return machine.work(0.5 * next(speeds))

    assert time_undisturbed(load, budget=0.1, clock=machine.clock).median_ms == pytest.approx(0.5)
    assert loads == 5
    speeds = iter([1.5**-number for number in range(20)])
    loads = 0
    time_undisturbed(load, budget=0.1, clock=machine.clock)
    assert loads == 12


def leaders(seed: int) -> str:
    """Return which side, a or b, led each round of a measurement of one episode."""
    machine = FakeMachine(0, noise=0.0, loading=10.0)
    log: list[str] = []

    def side(letter: str) -> Load:
        def load() -> Run:
            machine.now += 10_000_000_000
            work = machine.work(25.0)

            def run() -> None:
                log.append(letter)
                work()

            return run

        return load

    time_pair(side("a"), side("b"), budget=2.0, clock=machine.clock, seed=seed)
    # Both sides settle after two windows of five runs; a side this slow then runs once a turn.
    return "".join(log[20::2])


def test_neither_side_leads_more_often_and_the_seed_fixes_the_order() -> None:
    assert leaders(1) == leaders(1)
    assert leaders(1) != leaders(2)
    order = leaders(1)
    assert all({first, second} == {"a", "b"} for first, second in zip(order[::2], order[1::2], strict=True))


def test_a_clock_of_poor_resolution_divides_by_nothing() -> None:
    # One tick a call: every run takes one nanosecond, and the limit of rounds ends it.
    ticks = iter(range(10**9))
    pair = time_pair(lambda: lambda: None, lambda: lambda: None, budget=1e-5, clock=lambda: next(ticks))
    assert pair.speedup.median == 1.0
