"""Schedules: how sparse the network is at which round or training step; pure functions of numbers.

    one-shot     the whole sparsity at once
    iterative    rounds of training and pruning, each removing a share of what is left (geometric), or the same share in
                 a given number of rounds (exponential)
    gradual      pruned while training, along a cubic

and the cosine that lets the drop fraction of dynamic sparse training fade out.
"""

from __future__ import annotations

import math

from ..errors import UsageError

SCHEDULES = ("one-shot", "iterative", "gradual")


def one_shot(sparsity: float) -> list[float]:
    """Return the one level of one-shot pruning."""
    return [sparsity]


def geometric(sparsity: float, rate: float = 0.2) -> list[float]:
    """Return the sparsity after each round when every round removes ``rate`` of what is left (Frankle & Carbin 2019).

    The levels are 1 - (1 - rate)**k; the last round removes less where that would overshoot, so that the last level is
    ``sparsity`` exactly. Their number is :func:`geometric_rounds`.
    """
    rounds = geometric_rounds(sparsity, rate)
    return [1 - (1 - rate) ** k for k in range(1, rounds)] + [sparsity] * (rounds > 0)


def geometric_rounds(sparsity: float, rate: float = 0.2) -> int:
    """Return how many rounds of removing ``rate`` of what is left reach ``sparsity``: ceil(log(1 - p) / log(1 - rate)).

    Iterative magnitude pruning trains once more than that (Wimmer et al., arXiv 2205.08099, eq. 18).

    Raises:
        UsageError: the rate does not lie in (0, 1).
    """
    if not 0 < rate < 1:
        raise UsageError(f"the rate of iterative pruning is the share that a round removes; {rate} is not in (0, 1).")
    exact = math.log(1 - sparsity) / math.log(1 - rate)
    # 1 - 0.8**3 asks for 3 rounds although the quotient of the logarithms comes out as 3.0000000000000004.
    return math.ceil(exact - 1e-9)


def exponential(sparsity: float, rounds: int) -> list[float]:
    """Return the sparsity after each of ``rounds`` rounds that all remove the same share: 1 - (1 - p)**(k / rounds).

    Source: de Jorge et al. 2021 (FORCE), Tanaka et al. 2020 (SynFlow). The last level is ``sparsity`` exactly.

    Raises:
        UsageError: fewer than one round.
    """
    if rounds < 1:
        raise UsageError(f"iterative pruning needs at least one round, not {rounds}.")
    return [1 - (1 - sparsity) ** (k / rounds) for k in range(1, rounds)] + [sparsity]


def linear(sparsity: float, rounds: int) -> list[float]:
    """Return the sparsity after each of ``rounds`` rounds that all remove equally many weights: p k / rounds.

    Source: de Jorge et al. 2021 (FORCE), the other of its two schedules.

    Raises:
        UsageError: fewer than one round.
    """
    if rounds < 1:
        raise UsageError(f"iterative pruning needs at least one round, not {rounds}.")
    return [sparsity * k / rounds for k in range(1, rounds)] + [sparsity]


def ladder(sparsity: float, rounds: int) -> list[float]:
    """Return p - (p - 1/2) / 2**i for i = 0 .. rounds - 2, then p: the first step removes half of the weights.

    Source: Verdenius et al. 2020 (SNIP-it). Half and less is reached in one step.

    Raises:
        UsageError: fewer than one round.
    """
    if rounds < 1:
        raise UsageError(f"iterative pruning needs at least one round, not {rounds}.")
    if sparsity <= 0.5:
        return one_shot(sparsity)
    return [sparsity - (sparsity - 0.5) / 2**i for i in range(rounds - 1)] + [sparsity]


SPACINGS = {"exponential": exponential, "linear": linear, "ladder": ladder}


def iterative(sparsity: float, rounds: int | None, rate: float = 0.2) -> list[float]:
    """Return the levels of an iterative schedule: exponential when ``rounds`` is given, else geometric at ``rate``."""
    return geometric(sparsity, rate) if rounds is None else exponential(sparsity, rounds)


def cubic(step: int, start: int, end: int, final: float, initial: float = 0.0) -> float:
    """Return the sparsity of gradual pruning at ``step``: s_f + (s_i - s_f) (1 - (t - t0) / (t1 - t0))**3.

    Source: Zhu & Gupta 2017. Before ``start`` it is ``initial``, from ``end`` on ``final`` exactly.
    """
    if step >= end:
        return final
    if step <= start:
        return initial
    remaining = 1 - (step - start) / (end - start)
    return final + (initial - final) * remaining**3


def prunes_at(step: int, start: int, end: int, every: int) -> bool:
    """Return whether gradual pruning updates its mask at ``step``: every ``every`` steps from start, and at the end."""
    return step == end or (start <= step < end and (step - start) % every == 0)


def cosine_drop_fraction(step: int, end: int, initial: float = 0.3) -> float:
    """Return the share of a layer's connections to exchange at ``step``: alpha / 2 (1 + cos(pi t / T_end)).

    Source: Evci et al. 2020 (RigL). Zero from ``end`` on.
    """
    if step >= end:
        return 0.0
    return initial / 2 * (1 + math.cos(math.pi * step / end))


def updates_at(step: int, end: int, every: int) -> bool:
    """Return whether dynamic sparse training updates its masks at ``step``: every ``every`` steps, 0 < step < end."""
    return 0 < step < end and step % every == 0


def never_updates(end: int, every: int) -> list[str]:
    """Return what to tell of a training in which :func:`updates_at` holds at no step; nothing of any other.

    A training without steps moves nothing anyway.
    """
    if end < 1 or every < end:
        return []
    return [
        f"the masks never moved: an exchange comes every {every} steps and before step {end} of this training, so "
        "there was none; lower update_interval or train longer."
    ]
