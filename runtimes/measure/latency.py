"""Latency as interleaved pairs: the artifact and its baseline take turns in one process, so that noise hits both.

A measurement is several episodes; each loads both sides afresh, because where a small network happens to lie in memory
changes its time by one to three percent, more than all other noise, and stays for as long as it is loaded. An episode
is many rounds; each round runs both sides, in an order that is drawn for each couple of rounds, so that neither side
leads more often. A side's turn begins with one run that is not counted, because a small network reads slow right after
a large one emptied the caches. A run that another process interrupted says nothing about the network, and on a busy
machine a fifth of them are, so an episode's ratio is that of the times that one run in twenty stays below on either
side; ratios of medians would double or triple the interval's width there (`benchmarks/latency_trust.py`). Medians, p10
and p90 of the times themselves are over all counted runs. Clock and callables are arguments: the tests feed a clock of
their own.
"""

from __future__ import annotations

import gc
import itertools
import math
import random
import statistics
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass

from .statistics import CONFIDENCE, Interval, median_interval, quantile, ratio_interval, settled, unbiased_quantile

Run = Callable[[], object]
Load = Callable[[], Run]
Clock = Callable[[], int]

# The fourth lowest and fourth highest of fifteen episodes enclose the median with 96.5 % probability; of nine, where
# loading is too slow for fifteen, the second lowest and second highest with 96.1 %.
EPISODES = (15, 9)
# The second lowest and second highest of ten rounds enclose it with 97.9 %, when there is only one episode.
MINIMUM_ROUNDS = 10
# When the interval is wider than this share of the speedup there are so many times the episodes: spells in which a
# machine is slower then fill fewer of them. Who looks twice errs twice, so the second interval is one of 99 %: with the
# 3.5 or 3.9 % that the first misses, that makes less than 5 %.
WIDE = 0.04
_MORE = 3
_SECOND_LOOK = 0.99
MAXIMUM_ROUNDS = 4000
_WARMUP_WINDOW = 5
_WARMUP_TOLERANCE = 0.05
_WARMUP_LIMIT = 50
_WARMUP_SHARE = 0.25
# A side of a round lasts about this long, so that the clock's own cost and one late interrupt stay small beside it.
_SIDE_NS = 2_000_000
# The share of an episode's runs below the time that counts in its ratio. Lower would be the fastest run, of which the
# side with more runs has more chances; higher, and a busy machine's interruptions come in.
_UNDISTURBED = 0.05
# Of so many runs in a row the fastest counts in the ratio of rounds, where there is one episode only; on both sides of
# so many, or one would have more chances.
_GROUP = 3
_GROUPS_LIMIT = 7
# Above this a cold cache is no longer visible, and the run that is not counted would only cost time; nor would groups
# help, because something interrupts almost every run.
_SHORT_NS = 20_000_000
# What a machine can do is looked for in so many loadings at first, in stretches of runs that hide a single late one.
_LOADINGS, _MOST_LOADINGS = 3, 12
_STRETCH_RUNS = 3
_STRETCH_MS = 20.0


@dataclass(frozen=True)
class Timing:
    """One side's times of single runs, in milliseconds, and how many runs went before them uncounted."""

    times_ms: tuple[float, ...]
    warmup: int

    @property
    def median_ms(self) -> float:
        """The median time of a run."""
        return statistics.median(self.times_ms)

    @property
    def p10_ms(self) -> float:
        """The time that one run in ten stays below."""
        return quantile(self.times_ms, 0.1)

    @property
    def p90_ms(self) -> float:
        """The time that nine runs in ten stay below."""
        return quantile(self.times_ms, 0.9)


@dataclass(frozen=True)
class PairedTiming:
    """Both sides and the speedup: the baseline's time over the subject's, median with its 95 % interval.

    The interval is over episodes where there are several, and over rounds where loading was too slow to repeat.
    """

    subject: Timing
    baseline: Timing
    speedup: Interval
    episodes: int


class _Side:
    """One side of one episode; ``fastest`` holds what its turns count with when it is the only one."""

    def __init__(self, run: Run, clock: Clock) -> None:
        self._run = run
        self._clock = clock
        self.times: list[int] = []
        self.fastest: list[float] = []
        self.warmup = 0
        self._typical = 0.0

    def once(self) -> int:
        begin = self._clock()
        self._run()
        # A clock that did not move would divide by zero later; one nanosecond is below its resolution anyway.
        return max(1, self._clock() - begin)

    def warm_up(self, budget_ns: float) -> None:
        """Run until the times settle, a count is reached or the share of the budget is spent."""
        times: list[int] = []
        while len(times) < _WARMUP_LIMIT and not settled(times, _WARMUP_WINDOW, _WARMUP_TOLERANCE):
            times.append(self.once())
            if len(times) >= 2 and sum(times) > budget_ns:
                break
        self.warmup = len(times)
        self._typical = statistics.median(times[-_WARMUP_WINDOW:])

    @property
    def short(self) -> bool:
        """Whether a run is so short that what went before it shows."""
        return self._typical < _SHORT_NS

    def turn(self, group: int) -> None:
        """Take one side of a round: groups of so many runs, whose fastest ones' median counts."""
        if self.short:
            self._run()
            self.warmup += 1
        groups = max(1, min(_GROUPS_LIMIT, math.ceil(_SIDE_NS / (group * self._typical)))) if self.short else 1
        times = [[self.once() for _ in range(group)] for _ in range(groups)]
        self.times += itertools.chain(*times)
        self.fastest.append(statistics.median(map(min, times)))


def _timing(sides: list[_Side]) -> Timing:
    times = tuple(time / 1e6 for side in sides for time in side.times)
    return Timing(times, sum(side.warmup for side in sides))


def time_pair(
    subject: Load, baseline: Load, *, budget: float, clock: Clock = time.perf_counter_ns, seed: int = 0
) -> PairedTiming:
    """Time two callables against each other.

    Args:
        subject: loads the artifact and returns one inference of it; every call loads it again.
        baseline: the same for the baseline.
        budget: seconds of running the pair, up to three times as many while the interval is wider than :data:`WIDE`; at
            least one couple of rounds is run in every episode, and at least :data:`MINIMUM_ROUNDS` in an only one.
            Loading again is spared when it would cost more than the budget.
        clock: a monotonic clock in nanoseconds.
        seed: of the order in which the two take turns.
    """
    order = random.Random(seed)  # noqa: S311 - an order of turns, nothing secret
    begin = clock()
    runs = _load(subject, baseline, order)
    loading = clock() - begin
    episodes = next((count for count in EPISODES if loading * (count - 1) <= budget * 1e9), 1)
    least = 2 if episodes > 1 else MINIMUM_ROUNDS
    played = [_episode(runs, budget / episodes, least, clock, order)]
    for wanted, confidence in ((episodes, CONFIDENCE), (_MORE * episodes, _SECOND_LOOK)):
        while len(played) < wanted:
            # The old pair is alive while the new one is loaded, so that it does not come to lie in the same place.
            runs = _load(subject, baseline, order)
            played.append(_episode(runs, budget / episodes, least, clock, order))
        speedup = _speedup(played, confidence)
        if episodes == 1 or speedup.high - speedup.low <= WIDE * speedup.median:
            break
    mine, other = ([pair[side] for pair in played] for side in (0, 1))
    return PairedTiming(_timing(mine), _timing(other), speedup, len(played))


def _speedup(played: list[tuple[_Side, _Side]], confidence: float) -> Interval:
    if len(played) == 1:
        ((mine, other),) = played
        return ratio_interval(other.fastest, mine.fastest)
    # An episode is one sample: what its rounds have in common, where both sides lie, does not average out in them.
    low = [[unbiased_quantile(side.times, _UNDISTURBED) for side in pair] for pair in played]
    return median_interval([theirs / ours for ours, theirs in low], confidence)


def _load(subject: Load, baseline: Load, order: random.Random) -> tuple[Run, Run]:
    if order.randrange(2):
        first = baseline()
        return subject(), first
    return subject(), baseline()


def _episode(
    runs: tuple[Run, Run], budget: float, least: int, clock: Clock, order: random.Random
) -> tuple[_Side, _Side]:
    sides = (_Side(runs[0], clock), _Side(runs[1], clock))
    begin = clock()
    with _no_collection():
        for side in sides:
            side.warm_up(budget * 1e9 * _WARMUP_SHARE / 2)
        group = _GROUP if all(side.short for side in sides) else 1
        first = 0
        while _goes_on(len(sides[0].fastest), least, clock() - begin, budget):
            # Couples of rounds hold one of each order; which comes first is drawn.
            first = order.randrange(2) if len(sides[0].fastest) % 2 == 0 else 1 - first
            sides[first].turn(group)
            sides[1 - first].turn(group)
    return sides


def time_alone(subject: Load, *, budget: float, clock: Clock = time.perf_counter_ns) -> Timing:
    """Time one callable that has no baseline, loaded once; arguments as for :func:`time_pair`."""
    side = _Side(subject(), clock)
    begin = clock()
    with _no_collection():
        side.warm_up(budget * 1e9 * _WARMUP_SHARE)
        while _goes_on(len(side.fastest), MINIMUM_ROUNDS, clock() - begin, budget):
            side.turn(_GROUP if side.short else 1)
    return _timing([side])


def time_undisturbed(subject: Load, *, budget: float, clock: Clock = time.perf_counter_ns) -> Timing:
    """Time one callable loaded several times, and return the stretch of runs with the smallest median.

    Other work on a machine, or on the host of a virtual one, makes it slower for anything between milliseconds and
    minutes, never faster; even a slow minute is mostly a quick succession of slow and fast stretches. This is for what
    a machine can do, as predictions take it; what it did is :func:`time_alone`.

    Args:
        subject: as for :func:`time_pair`.
        budget: seconds of running it; up to four times as much while no two loadings agree on how fast it can be.
        clock: a monotonic clock in nanoseconds.
    """
    fastest: list[Timing] = []
    while len(fastest) < _LOADINGS or (len(fastest) < _MOST_LOADINGS and not _agreed(fastest)):
        timing = time_alone(subject, budget=budget / _LOADINGS, clock=clock)
        fastest.append(min(_stretches(timing), key=_median))
    return min(fastest, key=_median)


def _median(timing: Timing) -> float:
    return timing.median_ms


def _agreed(fastest: list[Timing]) -> bool:
    first, second = sorted(map(_median, fastest))[:2]
    return second <= first * (1 + _WARMUP_TOLERANCE)


def _stretches(timing: Timing) -> list[Timing]:
    """Cut the runs into stretches of so many runs and so much time at least; all in one where they take less."""
    stretches = []
    first, total = 0, 0.0
    for number, milliseconds in enumerate(timing.times_ms, 1):
        total += milliseconds
        if number - first >= _STRETCH_RUNS and total >= _STRETCH_MS:
            stretches.append(Timing(timing.times_ms[first:number], timing.warmup))
            first, total = number, 0.0
    return stretches or [timing]


def _goes_on(rounds: int, least: int, elapsed_ns: int, budget: float) -> bool:
    # Only whole couples of rounds, so that either side has led equally often.
    return rounds < least or rounds % 2 == 1 or (rounds < MAXIMUM_ROUNDS and elapsed_ns < budget * 1e9)


@contextmanager
def _no_collection() -> Iterator[None]:
    """Keep Python's garbage collector from running in the middle of a timed run."""
    enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if enabled:
            gc.enable()
