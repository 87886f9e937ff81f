"""The statistics of paired timings: pure functions on lists of numbers, nothing that reads a clock.

The interval of the median ratio comes from order statistics (the sign test turned round): whatever the distribution of
the noise, a sorted sample's k-th lowest and k-th highest values enclose the median with a probability that is a
binomial sum. Machine noise is skewed and heavy-tailed, so nothing here assumes it normal.
"""

from __future__ import annotations

import math
import statistics
from collections.abc import Sequence
from dataclasses import dataclass

CONFIDENCE = 0.95
# Below six pairs no pair of order statistics encloses the median with 95 % probability (2 * 0.5**5 > 0.05).
MINIMUM_PAIRS = 6


@dataclass(frozen=True)
class Interval:
    """A median with its confidence interval, low <= median <= high."""

    median: float
    low: float
    high: float


def quantile(values: Sequence[float], share: float) -> float:
    """Return the value that ``share`` of the sample lies below, linear between neighbours (Hyndman and Fan, type 7)."""
    ordered = sorted(values)
    position = share * (len(ordered) - 1)
    below = math.floor(position)
    above = min(below + 1, len(ordered) - 1)
    return ordered[below] + (position - below) * (ordered[above] - ordered[below])


def unbiased_quantile(values: Sequence[float], share: float) -> float:
    """Return a quantile whose median does not depend on the sample's size (Hyndman and Fan, type 8).

    At the edges it is the least or the greatest value.
    """
    position = (share * (len(values) + 1 / 3) - 2 / 3) / max(1, len(values) - 1)
    return quantile(values, min(1.0, max(0.0, position)))


def interval_rank(count: int, confidence: float = CONFIDENCE) -> int | None:
    """Return the largest k such that the k-th lowest and k-th highest of ``count`` values enclose the median.

    The probability that fewer than k of ``count`` values lie below the median is the binomial sum of k - 1 terms at
    one half; both tails together may take 1 - ``confidence``. None when even the extremes do not reach it.
    """
    # Python's integers keep the sum exact for any count; a float 0.5**count would vanish at 1,075 pairs.
    tail = (1.0 - confidence) / 2.0
    ways, term, rank = 0, 1, 0
    for successes in range(count // 2 + 1):
        ways += term
        if ways / 2**count > tail:
            break
        rank = successes + 1
        term = term * (count - successes) // (successes + 1)
    return rank or None


def median_interval(values: Sequence[float], confidence: float = CONFIDENCE) -> Interval:
    """Return the median of ``values`` with its distribution-free confidence interval.

    Raises:
        ValueError: too few values for the confidence asked for.
    """
    ordered = sorted(values)
    rank = interval_rank(len(ordered), confidence)
    if rank is None:
        raise ValueError(f"{len(ordered)} values cannot give a {confidence:.0%} interval of the median.")
    return Interval(statistics.median(ordered), ordered[rank - 1], ordered[-rank])


def ratios(numerators: Sequence[float], denominators: Sequence[float]) -> list[float]:
    """Return the pairwise ratios.

    Pairs, not medians of either side: what slows the machine down for a while slows both of a pair.

    Raises:
        ValueError: the two have different lengths.
    """
    return [a / b for a, b in zip(numerators, denominators, strict=True)]


def ratio_interval(numerators: Sequence[float], denominators: Sequence[float]) -> Interval:
    """Return the median of the pairwise ratios with its interval.

    Raises:
        ValueError: the two have different lengths, or too few values.
    """
    return median_interval(ratios(numerators, denominators))


def settled(times: Sequence[float], window: int, tolerance: float) -> bool:
    """Return whether warm-up is over: the medians of the last two windows differ by less than ``tolerance``."""
    if len(times) < 2 * window:
        return False
    earlier = statistics.median(times[-2 * window : -window])
    later = statistics.median(times[-window:])
    return abs(later - earlier) <= tolerance * earlier
