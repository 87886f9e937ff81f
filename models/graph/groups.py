"""Coupled groups: the units of a graph sorted by the layers they run through, scored and selected.

A *unit* is what one decision removes: an output channel of every convolution that is added into the same stage, the
matching rows and columns of all their weights. Units with the same members (the same tensors and axes) form a *group*:
a width of the network that can be chosen freely.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError, unknown_name
from .advice import explained
from .dimensions import Dimensions
from .effects import Contraction
from .layout import Ids
from .rules.convolution import KERNEL
from .weights import Slices, Weights

Scores = npt.NDArray[np.float64]
# Values summed at a time: the largest weight may be most of the model, and is not copied as a whole.
_CHUNK = 1 << 22


@dataclass(frozen=True)
class Member:
    """One axis of one weight that a group runs along.

    Attributes:
        tensor: the initializer.
        axis: its axis.
        output: whether the axis is an output of its layer (a filter) rather than an input.
        indices: index -> position of its unit in the group, or -1 where the index is not in the group.
    """

    tensor: str
    axis: int
    output: bool
    indices: Ids


@dataclass(frozen=True)
class Group:
    """Units with the same members.

    Attributes:
        name: the first weight that the group is an output of.
        units: unit numbers, in order of their first index.
        members: the weights' axes they run along, in graph order.
        pinned: why the group must stay, empty when it may shrink.
    """

    name: str
    units: Ids
    members: tuple[Member, ...]
    pinned: tuple[str, ...]

    @property
    def width(self) -> int:
        """Return the number of units."""
        return int(self.units.size)


def find_groups(dimensions: Dimensions) -> list[Group]:
    """Return the groups of a graph, pinned ones included, in graph order."""
    axes: list[tuple[str, int, Ids, bool]] = []
    holders: dict[int, list[int]] = {}
    for tensor in dimensions.model.graph.initializer:
        layout = dimensions.layouts.get(tensor.name)
        for factor in layout.factors if layout is not None else ():
            line = factor.reshape(-1)
            output = int(line[0]) not in dimensions.input_cells
            axis = next(a for a, extent in enumerate(factor.shape) if extent > 1)
            for unit in np.unique(dimensions.units[line]).tolist():
                holders.setdefault(unit, []).append(len(axes))
            axes.append((tensor.name, axis, dimensions.units[line], output))
    classes: dict[tuple[object, ...], list[int]] = {}
    for unit, held in holders.items():
        classes.setdefault((*held, dimensions.pinned.get(unit)), []).append(unit)
    groups = []
    for key, units in classes.items():
        members = [axes[k] for k in key[:-1] if isinstance(k, int)]
        first = next((member for member in members if member[3]), members[0])
        order = _order(first[2], np.array(units, np.int64))
        reasons = dimensions.pinned.get(units[0], ())
        if reasons == (KERNEL,):
            continue
        place = np.full(dimensions.units.size, -1)
        place[order] = np.arange(order.size)
        found = tuple(Member(name, axis, output, place[labels]) for name, axis, labels, output in members)
        groups.append(Group(_name(found), order, found, reasons))
    contracted = {e.weight: e.node for e in reversed(dimensions.effects) if isinstance(e, Contraction)}
    groups.sort(key=lambda group: min(contracted.get(m.tensor, 1 << 60) for m in group.members))
    return _unique_names(groups)


def _unique_names(groups: list[Group]) -> list[Group]:
    """Number the groups that run through the same first weight (the parts of a concatenated width, say)."""
    seen: dict[str, int] = {}
    named = []
    for group in groups:
        seen[group.name] = seen.get(group.name, 0) + 1
        count = seen[group.name]
        named.append(group if count == 1 else replace(group, name=f"{group.name} ({count})"))
    return named


def _order(labels: Ids, units: Ids) -> Ids:
    """Return units in the order in which they first appear among ``labels``."""
    seen, first = np.unique(labels, return_index=True)
    position = dict(zip(seen.tolist(), first.tolist(), strict=True))
    return np.array(sorted(units.tolist(), key=lambda unit: position[unit]), np.int64)


def _name(members: tuple[Member, ...]) -> str:
    for member in members:
        if member.output and member.tensor.endswith("weight"):
            return member.tensor
    return next((member.tensor for member in members if member.output), members[0].tensor)


def _reduce(array: npt.NDArray[np.floating], axis: int, power: int) -> Scores:
    """Sum the absolute values (or squares) of each slice along ``axis``, some rows at a time."""
    other = tuple(a for a in range(array.ndim) if a != axis)
    step = max(_CHUNK // max(array[:1].size, 1), 1)
    parts = []
    for start in range(0, max(len(array), 1), step):
        rows = array[start : start + step]
        values = np.abs(rows) if power == 1 else np.square(rows, dtype=np.float64)
        parts.append(np.sum(values, axis=other, dtype=np.float64))
    return np.asarray(np.concatenate(parts) if axis == 0 else np.sum(parts, axis=0))


def _norm(group: Group, weights: Weights, power: int) -> Scores:
    """Return the norm of each unit's filters (its output slices in tensors of two axes or more)."""
    chosen = [m for m in group.members if m.output and weights[m.tensor].ndim > 1] or list(group.members)
    total = np.zeros(group.width)
    for member in chosen:
        inside = member.indices >= 0
        norms = _reduce(weights[member.tensor], member.axis, power)
        np.add.at(total, member.indices[inside], norms[inside])
    return total if power == 1 else np.sqrt(total)


def l1(group: Group, weights: Weights) -> Scores:
    """Score by the sum of absolute filter weights (Li et al. 2017, section 3.1)."""
    return _norm(group, weights, 1)


def l2(group: Group, weights: Weights) -> Scores:
    """Score by the Euclidean norm of the filter weights."""
    return _norm(group, weights, 2)


def geometric_median(group: Group, weights: Weights) -> Scores:
    """Score by the summed distance to the other filters of the group (He et al. 2019, equation 4)."""
    rows = []
    for member in group.members:
        array = weights[member.tensor]
        if member.output and array.ndim > 1 and (np.bincount(member.indices + 1)[1:] == 1).all():
            flat = np.moveaxis(array, member.axis, 0).reshape(array.shape[member.axis], -1).astype(np.float64)
            rows.append(flat[np.argsort(np.where(member.indices < 0, 1 << 40, member.indices))[: group.width]])
    if not rows:
        return l2(group, weights)
    filters = np.concatenate(rows, axis=1)
    squares = (filters**2).sum(axis=1)
    distances = squares[:, None] + squares[None] - 2.0 * filters @ filters.T
    return np.asarray(np.sqrt(np.maximum(distances, 0.0)).sum(axis=1))


def batch_norm_scale(group: Group, weights: Weights) -> Scores:
    """Score by the absolute BatchNorm scale (Liu et al. 2017); groups without one are scored by L1."""
    scales = {
        node.inputs[1]
        for node in weights.dimensions.nodes
        if node.op in ("BatchNormalization", "InstanceNormalization")
    }
    members = [member for member in group.members if member.tensor in scales]
    if not members:
        return l1(group, weights)
    total = np.zeros(group.width)
    for member in members:
        inside = member.indices >= 0
        np.add.at(total, member.indices[inside], np.abs(weights[member.tensor].astype(np.float64))[inside])
    return total


SCORES: dict[str, Callable[[Group, Weights], Scores]] = {
    "l1": l1,
    "l2": l2,
    "geometric-median": geometric_median,
    "batch-norm-scale": batch_norm_scale,
}


def taylor(gradients: Mapping[str, npt.NDArray[np.floating]]) -> Callable[[Group, Weights], Scores]:
    """Return a score by first-order Taylor expansion (Molchanov et al. 2019, equation 8).

    Args:
        gradients: initializer -> gradient of the loss, of the same shape.
    """

    def score(group: Group, weights: Weights) -> Scores:
        total = np.zeros(group.width)
        for member in group.members:
            if member.output and member.tensor in gradients:
                product = weights[member.tensor].astype(np.float64) * gradients[member.tensor]
                other = tuple(a for a in range(product.ndim) if a != member.axis)
                inside = member.indices >= 0
                np.add.at(total, member.indices[inside], product.sum(axis=other)[inside])
        return np.asarray(total**2)

    return score


def random_score(seed: int) -> Callable[[Group, Weights], Scores]:
    """Return a random score: the control that any other must beat."""
    generator = np.random.default_rng(seed)
    return lambda group, weights: generator.random(group.width)


def score_named(name: str) -> Callable[[Group, Weights], Scores]:
    """Return the score of that name.

    Raises:
        UnknownNameError: there is none.
    """
    if name not in SCORES:
        raise unknown_name("score", name, SCORES)
    return SCORES[name]


def select(
    groups: list[Group],
    scores: Mapping[str, Scores],
    ratio: float | Mapping[str, float],
    *,
    across: bool = False,
    round_to: int = 1,
) -> frozenset[int]:
    """Choose the units to remove: the lowest scores go, ties to the lower index, and at least one unit stays.

    Args:
        groups: all groups; pinned ones are left alone.
        scores: group name -> one score a unit; higher = keep.
        ratio: share of units to remove, for all groups or by group name.
        across: rank all groups together, each score divided by its group's mean, instead of group by group.
        round_to: keep a multiple of so many units in every group (as far as it has that many).

    Raises:
        UnsupportedError: every group is pinned.
    """
    free = [group for group in groups if not group.pinned and group.width > 1]
    if not free:
        reasons = [why for why, _ in explained(reason for group in groups for reason in group.pinned)]
        raise UnsupportedError(
            f"nothing in this graph can be removed: {'; '.join(reasons[:5]) or 'it has no weights'}. Every "
            f"dimension is fixed by what it is coupled to."
        )
    given = ratio if isinstance(ratio, Mapping) else {group.name: ratio for group in free}
    ranked: list[int] | None = None
    if across and not isinstance(ratio, Mapping):
        ranked = _ranked_across([scores[group.name] for group in free], ratio)
    removed: list[int] = []
    for position, group in enumerate(free):
        if ranked is not None:
            count = ranked[position]
        else:
            # The kept share is rounded down (Li et al. 2017: 14 of 16 stay at 10 %).
            count = group.width - int(group.width * (1.0 - given.get(group.name, 0.0)) + 1e-9)
        kept = max(group.width - count, 1)
        kept = min(-(-kept // round_to) * round_to, group.width)
        order = np.argsort(scores[group.name], kind="stable")
        removed.extend(group.units[order[: group.width - kept]].tolist())
    return frozenset(removed)


def _ranked_across(scores: list[Scores], ratio: float) -> list[int]:
    """Return how many units each group loses when the lowest share of all units goes; ties to the earlier group."""
    owner = np.repeat(np.arange(len(scores)), [len(group) for group in scores])
    order = np.argsort(np.concatenate([_relative(group) for group in scores]), kind="stable")
    lost = owner[order[: int(order.size * ratio)]]
    return [int(count) for count in np.bincount(lost, minlength=len(scores))]


def _relative(scores: Scores) -> Scores:
    mean = float(scores.mean())
    return scores / mean if mean > 0 else scores


def slices_of(groups: list[Group], units: frozenset[int]) -> Slices:
    """Return the slices of initializers that belong to ``units``: initializer -> (axis, indices)."""
    slices: dict[str, list[tuple[int, Ids]]] = {}
    for group in groups:
        chosen = np.isin(group.units, np.fromiter(units, np.int64, len(units)))
        if not chosen.any():
            continue
        for member in group.members:
            inside = np.where(member.indices >= 0, chosen[member.indices], False)
            slices.setdefault(member.tensor, []).append((member.axis, np.flatnonzero(inside)))
    return slices
