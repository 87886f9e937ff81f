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
from ..interspace import in_interspace
from ..mask import BoolArray
from .cops import controlled, mixed
from .gates import gate_sensitivity, jacobian_sensitivity, weights_and_units
from .gradient import saliency
from .layer_adaptive import layer_adaptive_magnitude
from .magnitude import magnitude
from .products import gradient_norm_preservation, grasp, loss_preservation, path_norm, synflow
from .random import random
from .relevance import accumulated_sensitivity, relevance
from .second_order import kronecker_basis, kronecker_obs, obd, obs
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
        select: from scores to the masks that they would give now; for scores that weigh a whole mask.
        axes: the axis of output units by tensor name, where the structure removes them as a whole; empty where weights
            stand alone.
    """

    weights: Mapping[str, Array]
    evidence: Mapping[str, Mapping[str, Array]] = field(default_factory=dict)
    seed: int = 0
    draw: int = 0
    options: Mapping[str, Any] = field(default_factory=dict)
    select: Callable[[Mapping[str, Array]], Mapping[str, BoolArray]] | None = None

    def masks_of(self, scores: Mapping[str, Array]) -> Mapping[str, BoolArray]:
        """Return the masks that ``scores`` would give."""
        if self.select is None:
            raise ValueError("this score weighs whole masks and needs a way to select")
        return self.select(scores)

    axes: Mapping[str, int] = field(default_factory=dict)


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


def _cops(given: ScoreInputs) -> dict[str, Array]:
    first = saliency(given.weights, given.evidence["gradients"])
    second = grasp(given.weights, given.evidence["hessian-gradient"])
    if given.options["control"] == 0:
        return mixed(first, second, given.options["mix"])
    return controlled(first, second, given.options["control"], given.masks_of)


def _interspace(given: ScoreInputs) -> dict[str, Array]:
    basis = (given.options["basis"], given.options["sharing"], given.seed)
    return saliency(in_interspace(given.weights, *basis), in_interspace(given.evidence["gradients"], *basis))


SCORES: dict[str, Score] = {
    "magnitude": Score(
        lambda given: magnitude(given.weights, given.options.get("norm", "l1"), given.axes), (), "|w|, or a unit's norm"
    ),
    "gradient": Score(
        lambda given: saliency(given.weights, given.evidence["gradients"]),
        ("gradients",),
        "|w dL/dw| / sum |w dL/dw|",
    ),
    "interspace-gradient": Score(
        _interspace, ("gradients",), "|c dL/dc| / sum, c the coefficients of filters in the first basis"
    ),
    "layer-adaptive-magnitude": Score(
        lambda given: layer_adaptive_magnitude(given.weights), (), "w^2 / sum of the w^2 of its layer not below it"
    ),
    "ticket-criterion": Score(
        lambda given: ticket_criterion(
            given.evidence["initial-weights"],
            given.weights,
            given.options["criterion"],
            given.options["condition"],
            given.seed,
            given.draw,
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
    "force": Score(
        lambda given: saliency(given.evidence["initial-weights"], given.evidence["gradients"]),
        ("initial-weights", "gradients"),
        "|w_0 dL/dw| / sum |w_0 dL/dw|, gradients of the masked network and weights of the dense one",
    ),
    "synflow": Score(
        lambda given: synflow(given.weights, given.evidence["flow"]),
        ("flow",),
        "|w| dR/d|w|, R the output of the network of absolute values on ones",
    ),
    "path-norm": Score(
        lambda given: path_norm(given.weights, given.evidence["squared-flow"]),
        ("squared-flow",),
        "w^2 dR/d(w^2), R the output of the network of squares on ones",
    ),
    "grasp": Score(
        lambda given: grasp(given.weights, given.evidence["hessian-gradient"]),
        ("hessian-gradient",),
        "w Hg / sum |w Hg|, signed",
    ),
    "gradient-norm-preservation": Score(
        lambda given: gradient_norm_preservation(given.weights, given.evidence["hessian-gradient"], given.axes),
        ("hessian-gradient",),
        "|w Hg| / sum |w Hg|; of a unit |sum w Hg|",
    ),
    "loss-preservation": Score(
        lambda given: loss_preservation(given.weights, given.evidence["gradients"]),
        ("gradients",),
        "|dL/dw| w^2 / sum",
    ),
    "prospr": Score(
        lambda given: gate_sensitivity(given.evidence["unrolled-gates"]), ("unrolled-gates",), "|dL_M/dc| / sum"
    ),
    "walks": Score(lambda given: dict(given.evidence["walks"]), ("walks",), "1 on the walks, 0 elsewhere"),
    "temporal-jacobian": Score(
        lambda given: jacobian_sensitivity(
            given.weights, given.evidence["temporal-jacobian"], normalise=given.options["normalise"]
        ),
        ("temporal-jacobian",),
        "|w d||J 1||/dw|, over the mean |d||J 1||/dw| of its tensor",
    ),
    "weights-and-units": Score(
        lambda given: weights_and_units(given.weights, given.evidence["gradients"], given.evidence["unit-gates"]),
        ("gradients", "unit-gates"),
        "min(|w dL/dw|, |dL/dc| of its output unit) / sum",
    ),
    "cops": Score(_cops, ("gradients", "hessian-gradient"), "mix of the scores of snip and grasp"),
    "relevance": Score(
        lambda given: relevance(given.weights, given.evidence["gradients"]), ("gradients",), "-w dL/dw, signed"
    ),
    "accumulated-sensitivity": Score(
        lambda given: accumulated_sensitivity(
            given.weights, given.evidence["initial-weights"], given.evidence["update-squares"]
        ),
        ("initial-weights", "update-squares"),
        "sum_t (dw_t)^2 / eta_t * w_f / (w_f - w_0)",
    ),
    "taylor": Score(
        lambda given: dict(given.evidence["taylor-terms"]), ("taylor-terms",), "mean over batches of (sum g w)^2"
    ),
    "taylor-second-order": Score(
        lambda given: dict(given.evidence["taylor-second-order-terms"]),
        ("taylor-second-order-terms",),
        "mean over batches of (sum g w - 1/2 w (H w))^2",
    ),
    "fisher": Score(
        lambda given: dict(given.evidence["curvature"]), ("curvature",), "the diagonal of the Fisher information"
    ),
    "obd": Score(
        lambda given: obd(given.weights, given.evidence["curvature"], given.options["damp"]),
        ("curvature",),
        "1/2 h w^2",
    ),
    "obs": Score(
        lambda given: obs(
            given.weights, given.evidence["gradient-samples"], given.options["damp"], given.options["block_size"]
        ),
        ("gradient-samples",),
        "w^2 / (2 [F^-1]_qq)",
    ),
    "kronecker-obs": Score(
        lambda given: kronecker_obs(given.weights, given.evidence["kronecker-factors"], given.options["damp"]),
        ("kronecker-factors",),
        "w_ij^2 / (2 [A^-1]_jj [S^-1]_ii)",
    ),
    "kronecker-basis": Score(
        lambda given: kronecker_basis(given.weights, given.evidence["kronecker-factors"]),
        ("kronecker-factors",),
        "1/2 (Q_S^T W Q_A)^2 lambda_S lambda_A, given back to the weights",
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
