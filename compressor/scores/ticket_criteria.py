"""Mask criteria of lottery tickets: nine ways to rank a weight by where it began and where training took it.

Source: Zhou et al., Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask, NeurIPS 2019, figure 3.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np

from ...files import Array
from .random import random

_Rule = Callable[[Array, Array], Array]


def _percentile(values: Array) -> Array:
    """Return each entry's rank among the magnitudes of its tensor, in [0, 1)."""
    ranks = np.empty(values.size, np.float64)
    ranks[np.argsort(np.abs(values), axis=None, kind="stable")] = np.arange(values.size) / max(values.size, 1)
    return ranks.reshape(values.shape)


# From the first and the last value of a weight to its score. A quadrant (large_init_large_final) is a corner of the
# plane of both percentiles: the smaller of the two ranks by the corner's size.
CRITERIA: dict[str, _Rule] = {
    "large_final": lambda first, last: np.abs(last),
    "small_final": lambda first, last: -np.abs(last),
    "large_init": lambda first, last: np.abs(first),
    "small_init": lambda first, last: -np.abs(first),
    "large_init_large_final": lambda first, last: np.minimum(_percentile(first), _percentile(last)),
    "small_init_small_final": lambda first, last: -np.maximum(_percentile(first), _percentile(last)),
    "magnitude_increase": lambda first, last: np.abs(last) - np.abs(first),
    "movement": lambda first, last: np.abs(last - first),
}

RANDOM = "random"

# Which weights a criterion ranks at all; the others come last.
CONDITIONS: dict[str, Callable[[Array, Array], Array]] = {
    "any": lambda first, last: np.ones(first.shape, np.bool_),
    "same_sign": lambda first, last: np.sign(first) == np.sign(last),
    "different_sign": lambda first, last: np.sign(first) != np.sign(last),
}


def ticket_criterion(
    first: Mapping[str, Array],
    last: Mapping[str, Array],
    criterion: str,
    condition: str = "any",
    seed: int = 0,
    draw: int = 0,
) -> dict[str, Array]:
    """Return the scores of a criterion, float64.

    Args:
        first: the weights before the first step, by tensor name.
        last: the trained ones.
        criterion: a key of :data:`CRITERIA`, or ``random``, the control.
        condition: a key of :data:`CONDITIONS`; weights that do not meet it rank below all that do.
        seed: the run's, for the control.
        draw: the number of the round.
    """
    scores = {}
    drawn = random({name: array.shape for name, array in last.items()}, seed, draw) if criterion == RANDOM else {}
    for name, trained in last.items():
        initial, final = first[name].astype(np.float64), trained.astype(np.float64)
        score = drawn[name].astype(np.float64) if drawn else CRITERIA[criterion](initial, final)
        scores[name] = np.where(CONDITIONS[condition](initial, final), score, -np.inf)
    return scores
