"""Saliency of coupled units: one score for each from the weights, gradients or element scores of all its layers.

A unit runs through several tensors. Each of its slices is reduced to one number, and the numbers of the layers are
aggregated. Pure numpy; higher = keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from ..errors import UnsupportedError
from ..files import Array
from .scores.random import random

if TYPE_CHECKING:
    from ..models.graph.groups import Member
    from .coupling import Coupling, Width

Scores = npt.NDArray[np.float64]
AGGREGATIONS = ("sum", "mean", "l2", "max")


@dataclass(frozen=True)
class UnitEvidence:
    """What a saliency may look at.

    Attributes:
        scores: the method's element scores of the prunable tensors.
        weights: of every masked tensor, masked entries zero.
        gradients: of the loss with respect to these, where the saliency needs them.
        seed: the run's.
        draw: the number of the pruning round.
        macs: multiply-adds of one sample in each prunable tensor, where they were counted.
    """

    scores: Mapping[str, Array] = field(default_factory=dict)
    weights: Mapping[str, Array] = field(default_factory=dict)
    gradients: Mapping[str, Array] = field(default_factory=dict)
    seed: int = 0
    draw: int = 0
    macs: Mapping[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Saliency:
    """One entry of the table.

    Attributes:
        summary: the formula, and its source.
        score: (coupling, width, evidence, aggregation, pooled) -> one score a unit; ``pooled`` when units of different
            widths compete, which must then be comparable.
        needs_gradients: whether the evidence must hold gradients.
        aggregation: the default.
    """

    summary: str
    score: Callable[[Coupling, Width, UnitEvidence, str, bool], Scores]
    needs_gradients: bool = False
    aggregation: str = "sum"


def unit_scores(
    name: str | None, aggregation: str | None, coupling: Coupling, evidence: UnitEvidence, *, pooled: bool
) -> list[Scores]:
    """Return the scores of all units, one array a width.

    Args:
        name: a key of :data:`SALIENCIES`; None aggregates the method's element scores.
        aggregation: one of :data:`AGGREGATIONS`; None for the saliency's own.
        coupling: the widths.
        evidence: what to score by.
        pooled: whether units of different widths are ranked together.

    Raises:
        UnsupportedError: a score is not a number.
    """
    saliency = SALIENCIES[name or METHOD]
    found = []
    for width in coupling.widths:
        scores = saliency.score(coupling, width, evidence, aggregation or saliency.aggregation, pooled)
        if np.isnan(scores).any():
            raise UnsupportedError(
                f"a unit of '{width.name}' has a score that is not a number (NaN), so nothing can be ranked; look for "
                "a NaN or an infinity in the weights or gradients."
            )
        found.append(scores)
    return found


def aggregate(rows: Scores, sizes: Scores, how: str, pooled: bool) -> Scores:
    """Return one number a unit from those of its layers.

    Args:
        rows: [layers, units].
        sizes: [layers, units], the weights behind each number.
        how: one of :data:`AGGREGATIONS`.
        pooled: weigh means by size, so that units of different size compare.
    """
    weights = sizes if pooled else np.ones_like(sizes)
    result: Scores
    if how == "max":
        result = np.where(sizes > 0, rows, -np.inf).max(axis=0)
    elif how == "l2":
        result = np.sqrt((weights * rows**2).sum(axis=0) / (weights.sum(axis=0) if pooled else 1))
    else:
        total = (weights * rows).sum(axis=0)
        result = total / weights.sum(axis=0) if pooled else total
        if how == "mean" and not pooled:
            result = result / np.maximum((sizes > 0).sum(axis=0), 1)
    return result


def _reduced(
    members: tuple[Member, ...], arrays: Mapping[str, Array], width: Width, power: int, pooled: bool
) -> tuple[Scores, Scores]:
    """Return the sum (or, with power 2, the norm) of each unit's slice of each tensor, and the slices' sizes.

    Pooled, the sums are means and the norms root mean squares.
    """
    rows, sizes = [], []
    for member in members:
        array = arrays[member.tensor]
        other = tuple(axis for axis in range(array.ndim) if axis != member.axis)
        values = np.square(array, dtype=np.float64) if power == 2 else array
        lines = np.asarray(np.sum(values, axis=other, dtype=np.float64))
        inside = member.indices >= 0
        total, size = np.zeros(width.count), np.zeros(width.count)
        np.add.at(total, member.indices[inside], lines[inside])
        np.add.at(size, member.indices[inside], float(array.size // max(array.shape[member.axis], 1)))
        if pooled:
            total = total / np.maximum(size, 1)
        rows.append(np.sqrt(total) if power == 2 else total)
        sizes.append(size)
    return np.array(rows), np.array(sizes)


def _method(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    return aggregate(*_reduced(width.weights, given.scores, width, 1, pooled), how, pooled)


def _l1(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    arrays = {member.tensor: np.abs(given.weights[member.tensor]) for member in width.weights}
    return aggregate(*_reduced(width.weights, arrays, width, 1, pooled), how, pooled)


def _l2(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    return aggregate(*_reduced(width.weights, given.weights, width, 2, pooled), how, pooled)


def _taylor(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    # The sum stands inside the square: what one weight of a unit gains another may lose. Not divided by size: it is
    # the change of the loss itself, which compares between layers.
    members = tuple(m for m in (*width.weights, *width.companions) if m.tensor in given.gradients)
    if not members:
        raise UnsupportedError(f"no gradient reaches '{width.name}', so its units cannot be scored.")
    arrays = {
        m.tensor: np.multiply(given.weights[m.tensor], given.gradients[m.tensor], dtype=np.float64) for m in members
    }
    rows, sizes = _reduced(members, arrays, width, 1, False)
    return np.square(aggregate(np.abs(rows) if how == "max" else rows, sizes, how, False))


def _gate(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    # A gate on what the unit gives out: behind its normalisation where it has one, else behind weights and bias.
    # Both would count the same gate twice.
    scales = {m.tensor for m in width.companions if m.tensor in coupling.normalised}
    shifts = {name.removesuffix("weight") + "bias" for name in scales}
    members = [m for m in width.companions if m.tensor in scales | shifts] or [*width.weights, *width.companions]
    members = [m for m in members if m.tensor in given.gradients]
    if not members:
        raise UnsupportedError(f"no gradient reaches '{width.name}', so its units cannot be scored.")
    arrays = {
        m.tensor: np.multiply(given.weights[m.tensor], given.gradients[m.tensor], dtype=np.float64) for m in members
    }
    rows, _ = _reduced(tuple(members), arrays, width, 1, False)
    total: Scores = np.abs(rows.sum(axis=0))
    return total


def _gate_per_operation(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    missing = [member.tensor for member in width.weights if member.tensor not in given.macs]
    if missing:
        raise UnsupportedError(
            f"the multiply-adds of '{missing[0]}' are not known, so no cost can be given; choose the saliency 'gate'."
        )
    cost = math.fsum(given.macs[m.tensor] * float((m.indices >= 0).mean()) / width.count for m in width.weights)
    scores: Scores = _gate(coupling, width, given, how, pooled) / max(cost, 1.0)
    return scores


def _batch_norm(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    members = tuple(member for member in width.companions if member.tensor in coupling.normalised)
    if not members:
        raise UnsupportedError(
            f"saliency 'batch-norm-scale' ranks channels by the scale of their normalisation, and '{width.name}' has "
            "none; exclude it, or choose another saliency."
        )
    arrays = {member.tensor: np.abs(given.weights[member.tensor]) for member in members}
    rows, sizes = _reduced(members, arrays, width, 1, False)
    return aggregate(rows, sizes, "mean" if pooled and how == "sum" else how, False)


def _geometric_median(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    rows, sizes = [], []
    for member in width.weights:
        array = given.weights[member.tensor]
        filters = np.moveaxis(array, member.axis, 0).reshape(array.shape[member.axis], -1).astype(np.float64)
        order = np.argsort(np.where(member.indices < 0, width.count, member.indices), kind="stable")
        kept = filters[order[: int((member.indices >= 0).sum())]]
        if len(kept) % width.count:
            raise UnsupportedError(
                f"the units of '{width.name}' hold different numbers of filters of '{member.tensor}'."
            )
        kept = kept.reshape(width.count, -1)
        squares = (kept**2).sum(axis=1)
        distances = np.sqrt(np.maximum(squares[:, None] + squares[None] - 2.0 * kept @ kept.T, 0.0)).sum(axis=1)
        # Distances grow with the number of filters and their length: relative to their mean, widths can be compared.
        scale = float(distances.mean()) if pooled else 1.0
        rows.append(distances / scale if scale > 0 else distances)
        sizes.append(np.full(width.count, float(kept.shape[1])))
    return aggregate(np.array(rows), np.array(sizes), how, pooled)


def _random(coupling: Coupling, width: Width, given: UnitEvidence, how: str, pooled: bool) -> Scores:
    drawn = random({width.name: (width.count,)}, given.seed, given.draw)
    return drawn[width.name].astype(np.float64)


METHOD = "method"
SALIENCIES: dict[str, Saliency] = {
    METHOD: Saliency("the sum of the method's scores of a unit's weights", _method),
    "l1": Saliency("sum |w| (Li et al. 2017)", _l1),
    "l2": Saliency("root of sum w^2", _l2, aggregation="l2"),
    "taylor": Saliency("(sum w dL/dw)^2 (Molchanov et al. 2019, eq. 8)", _taylor, needs_gradients=True),
    "gate": Saliency(
        "|dL/dc| of a gate c on the unit (van Amersfoort et al. 2020; Verdenius et al. 2020)",
        _gate,
        needs_gradients=True,
    ),
    "gate-per-operation": Saliency(
        "the same over the multiply-adds of the unit's weights", _gate_per_operation, needs_gradients=True
    ),
    "batch-norm-scale": Saliency("|scale| of the normalisation (Liu et al. 2017)", _batch_norm),
    "geometric-median": Saliency("distance to the other filters (He et al. 2019, eq. 4)", _geometric_median),
    "random": Saliency("uniform in [0, 1), from the seed", _random),
}
