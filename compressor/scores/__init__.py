"""Scores: what a weight is worth; higher = keep.

In: weights, and the evidence that a score needs beside them. Out: one score for each weight, in the tensors' shapes.
Pure functions on arrays; the table names what each takes.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ...errors import unknown_name
from ...files import Array
from .gradient import saliency
from .layer_adaptive import layer_adaptive_magnitude
from .magnitude import magnitude
from .random import random
from .ticket_criteria import ticket_criterion

__all__ = ["SCORES", "Score", "ScoreInputs", "find_score", "magnitude", "random", "saliency"]


@dataclass(frozen=True)
class ScoreInputs:
    """Everything that a score may look at.

    Attributes:
        weights: by tensor name, masked ones zero; in the space's order.
        evidence: what was gathered beside them, by kind (entries of ``EVIDENCE``), each by tensor name.
        seed: the run's seed.
        draw: the number of the pruning round.
        options: the method's own settings.
    """

    weights: Mapping[str, Array]
    evidence: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    seed: int = 0
    draw: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Score:
    """One entry of the table.

    Attributes:
        compute: from the inputs to scores by tensor name.
        evidence: the kinds that it looks at.
        summary: the formula.
    """

    compute: Callable[[ScoreInputs], dict[str, Array]]
    evidence: tuple[str, ...]
    summary: str


SCORES: dict[str, Score] = {
    "magnitude": Score(lambda given: magnitude(given.weights), (), "|w|"),
    "gradient": Score(
        lambda given: saliency(given.weights, given.evidence["gradients"]),
        ("gradients",),
        "|w dL/dw| / sum |w dL/dw|",
    ),
    "layer-adaptive-magnitude": Score(
        lambda given: layer_adaptive_magnitude(given.weights), (), "w^2 / sum of the w^2 of its layer not below it"
    ),
    "ticket-criterion": Score(
        lambda given: ticket_criterion(
            given.evidence["initial-weights"], given.weights, given.options["criterion"], given.options["condition"]
        ),
        ("initial-weights",),
        "option criterion, of w_0 and w_T",
    ),
    "sanity-check": Score(
        lambda given: (
            ticket_criterion(given.weights, given.weights, "small_final")
            if given.options["check"] == "invert"
            else magnitude(given.weights)
        ),
        (),
        "|w|; -|w| where the option check is invert",
    ),
    "random": Score(
        lambda given: random({name: w.shape for name, w in given.weights.items()}, given.seed, given.draw),
        (),
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
