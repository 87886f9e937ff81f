"""Scores: what a weight is worth; higher = keep.

In: weights, and what a score needs beside them. Out: one score for each weight, in the tensors' shapes. Pure functions
on arrays; the table names what each takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

from ...errors import unknown_name
from ...files import Array
from .gradient import saliency
from .magnitude import magnitude
from .random import random

__all__ = ["SCORES", "Score", "ScoreInputs", "find_score", "magnitude", "random", "saliency"]


@dataclass(frozen=True)
class ScoreInputs:
    """Everything that a score may look at.

    Attributes:
        weights: by tensor name, masked ones zero; in the space's order.
        gradients: of the loss with respect to them, summed over batches; empty unless the score needs them.
        seed: the run's seed.
        draw: the number of the pruning round.
    """

    weights: Mapping[str, Array]
    gradients: Mapping[str, Array] = field(default_factory=dict)
    seed: int = 0
    draw: int = 0


@dataclass(frozen=True)
class Score:
    """One entry of the table.

    Attributes:
        compute: from the inputs to scores by tensor name.
        needs_gradients: whether ``gradients`` must be filled.
        summary: the formula.
    """

    compute: Callable[[ScoreInputs], dict[str, Array]]
    needs_gradients: bool
    summary: str


SCORES: dict[str, Score] = {
    "magnitude": Score(lambda given: magnitude(given.weights), False, "|w|"),
    "gradient": Score(lambda given: saliency(given.weights, given.gradients), True, "|w dL/dw| / sum |w dL/dw|"),
    "random": Score(
        lambda given: random({name: w.shape for name, w in given.weights.items()}, given.seed, given.draw),
        False,
        "uniform in [0, 1), from the seed",
    ),
}


def find_score(name: str) -> Score:
    """Return the score called ``name``.

    Raises:
        UnknownNameError: there is none; the near miss is suggested.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name]
