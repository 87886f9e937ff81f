"""Allocation: how much of each tensor stays, given how much of the whole space goes.

In: a space, a structure, a sparsity. Out: a quota: either one number (``global``: the weights that stay in all, chosen
by comparing scores across tensors) or one number of weights for each tensor. Totals are exact: ideal fractional counts
are rounded by largest remainder so that they add up to the same number that ``global`` would keep.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from fnmatch import fnmatchcase
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UsageError, near_miss, unknown_name
from .mask import BoolArray
from .smart_ratio import smart_ratio
from .structure import Element, Groups, NofM, Structure

if TYPE_CHECKING:
    from ..models.prunable import PrunableTensor
    from .space import Space

# What selection works to: weights kept in the whole space, or weights kept in each tensor by name.
Quota = int | dict[str, int]
# What a recipe may write: a name, or a density for each tensor (names or globs).
Allocation = str | Mapping[str, float]

ALLOCATIONS = ("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "smart-ratio", "smart-ratio-vgg")


def kept_count(total: int, sparsity: float) -> int:
    """Return how many of ``total`` weights stay: total - round(sparsity * total), halves to even.

    The pruned ones are what is rounded, as in ``torch.nn.utils.prune``; SNIP rounds the kept ones, which differs at
    exact halves only.
    """
    return total - round(sparsity * total)


def allocate(
    allocation: Allocation,
    space: Space,
    structure: Structure,
    sparsity: float,
    *,
    keep_alive: bool = False,
    limits: Mapping[str, int] | None = None,
) -> Quota:
    """Divide what stays among the tensors.

    Args:
        allocation: one of :data:`ALLOCATIONS`, or densities by name or glob; densities are reached at the sparsity that
            they imply (:func:`implied_sparsity`), and for a lower one every tensor's sparsity is scaled alike, so that
            schedules can approach them.
        space: the tensors.
        structure: what is pruned together; counts are multiples of its group size, and where that cannot give the
            exact total, fewer weights stay, never more.
        sparsity: the share of the space's weights to remove, 0 <= sparsity < 1.
        keep_alive: at least one group of every tensor stays.
        limits: the most weights that may stay, by name: what an earlier round has left.

    Returns:
        The weights to keep: an int for ``global``, else a dict by name in the space's order.

    Raises:
        UsageError: an unknown allocation, a name in no table, a sparsity that cannot be had.
    """
    if reason := structure.reachable(sparsity):
        raise UsageError(f"{reason}.")
    if isinstance(structure, NofM):
        # Every block keeps N of M, so every tensor has the same density whatever the allocation.
        return {t.name: structure.n * structure.groups(t).count for t in space.tensors}
    total = kept_count(space.total, sparsity)
    if allocation == "global":
        return total
    found = densities(allocation, space, sparsity)
    groups = {tensor.name: structure.groups(tensor) for tensor in space.tensors}
    return round_to_total(
        found, total, groups, elastic=isinstance(structure, Element), keep_alive=keep_alive, limits=limits or {}
    )


def without_share(
    space: Space,
    structure: Structure,
    share: float,
    within: Mapping[str, BoolArray] | None,
    *,
    keep_alive: bool = False,
) -> dict[str, int]:
    """Return the weights of each tensor once it has lost ``share`` of its groups: n - round(share n), halves to even.

    Each tensor for itself, so that a small one stops losing groups: of two, a fifth rounds to none. Source: On
    Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020, section 3 (20 % of what
    remains in each layer and round).

    Args:
        space: the tensors.
        structure: what a group is.
        share: to remove, in (0, 1).
        within: present masks by name; None: everything is there.
        keep_alive: every tensor that has a group keeps at least one.
    """
    quota = {}
    for tensor in space.tensors:
        groups = structure.groups(tensor)
        left = groups.count
        if within is not None:
            left = int(np.count_nonzero(structure.group_scores(within[tensor.name], tensor)))
        stay = left - round(share * left)
        quota[tensor.name] = groups.size * (max(stay, min(1, left)) if keep_alive else stay)
    return quota


def densities(allocation: Allocation, space: Space, sparsity: float) -> dict[str, float]:
    """Return each tensor's ideal (fractional) density under a per-tensor allocation.

    Raises:
        UsageError: ``global`` (which has none before scores are known), an unknown name, or explicit densities that
            are incomplete, out of range, or already sparser than ``sparsity`` asks.
    """
    if isinstance(allocation, str):
        if allocation not in _DENSITIES:
            raise unknown_name("per-tensor allocation", allocation, _DENSITIES)
        return dict(zip(space.names, _DENSITIES[allocation](space.tensors, sparsity), strict=True))
    given = _explicit(allocation, space)
    implied = implied_sparsity(allocation, space)
    if sparsity > implied + 0.5 / space.total:
        raise UsageError(
            f"the densities given by layer imply a sparsity of {implied:.6g}, less than the {sparsity:.6g} asked for; "
            f"leave sparsity out or lower the densities."
        )
    share = sparsity / implied if implied > 0 else 0.0
    return {name: 1 - (1 - density) * share for name, density in given.items()}


def implied_sparsity(allocation: Mapping[str, float], space: Space) -> float:
    """Return the sparsity of the whole space that explicit densities amount to."""
    given = _explicit(allocation, space)
    removed = math.fsum((1 - given[t.name]) * t.size for t in space.tensors)
    return removed / space.total


def erdos_renyi(shapes: Sequence[tuple[int, ...]], sparsity: float, *, kernel: bool) -> tuple[float, list[float]]:
    """Return epsilon and the densities of Erdos-Renyi allocation (Mocanu et al. 2018; with kernel: Evci et al. 2020).

    density = epsilon * (n_in + n_out [+ k_h + k_w]) / (n_in * n_out [* k_h * k_w]); tensors that this would fill more
    than once stay dense, and epsilon is solved again for the rest until all fit.

    Args:
        shapes: weight shapes, the two channel axes first (either order), kernel axes after them.
        sparsity: of all tensors together.
        kernel: count the kernel axes too.
    """
    sizes = [math.prod(shape) for shape in shapes]
    counted = [shape if kernel else shape[:2] for shape in shapes]
    raw = [sum(shape) / math.prod(shape) for shape in counted]
    dense: set[int] = set()
    while True:
        open_ = [i for i in range(len(shapes)) if i not in dense]
        budget = (1 - sparsity) * sum(sizes) - sum(sizes[i] for i in dense)
        if not open_ or sparsity == 0:
            return math.inf, [1.0] * len(shapes)
        epsilon = budget / math.fsum(raw[i] * sizes[i] for i in open_)
        top = max(raw[i] for i in open_)
        if epsilon * top <= 1:
            return epsilon, [1.0 if i in dense else epsilon * raw[i] for i in range(len(shapes))]
        # One value of raw at a time, as the authors' code does: filling a tensor lowers epsilon for the others.
        dense.update(i for i in open_ if raw[i] == top)


def _uniform(tensors: Sequence[PrunableTensor], sparsity: float) -> list[float]:
    return [1 - sparsity] * len(tensors)


def _er(tensors: Sequence[PrunableTensor], sparsity: float) -> list[float]:
    return erdos_renyi([t.shape for t in tensors], sparsity, kernel=False)[1]


def _erk(tensors: Sequence[PrunableTensor], sparsity: float) -> list[float]:
    return erdos_renyi([t.shape for t in tensors], sparsity, kernel=True)[1]


def _smart(tensors: Sequence[PrunableTensor], sparsity: float) -> list[float]:
    return smart_ratio([t.kind for t in tensors], [t.size for t in tensors], sparsity, vgg=False)


def _smart_vgg(tensors: Sequence[PrunableTensor], sparsity: float) -> list[float]:
    return smart_ratio([t.kind for t in tensors], [t.size for t in tensors], sparsity, vgg=True)


_DENSITIES: dict[str, Callable[[Sequence[PrunableTensor], float], list[float]]] = {
    "uniform": _uniform,
    "erdos-renyi": _er,
    "erdos-renyi-kernel": _erk,
    "smart-ratio": _smart,
    "smart-ratio-vgg": _smart_vgg,
}


def _explicit(allocation: Mapping[str, float], space: Space) -> dict[str, float]:
    for pattern, density in allocation.items():
        if not any(fnmatchcase(name, pattern) for name in space.names):
            raise UsageError(
                f"allocation: '{pattern}' matches no tensor of the space.{near_miss(pattern, space.names)} "
                f"Choose from: {', '.join(space.names)}."
            )
        if not 0 <= density <= 1:
            raise UsageError(f"allocation: the density of '{pattern}' is {density}; it must lie in [0, 1].")
    found: dict[str, float] = {}
    for name in space.names:
        # An exact name beats a glob; among globs the first that matches.
        patterns = [name] if name in allocation else [p for p in allocation if fnmatchcase(name, p)]
        if not patterns:
            raise UsageError(f"allocation: no density is given for '{name}'; add it, or '*' for all the rest.")
        found[name] = allocation[patterns[0]]
    return found


def round_to_total(
    ideal: Mapping[str, float],
    total: int,
    groups: Mapping[str, Groups],
    *,
    elastic: bool = False,
    keep_alive: bool = False,
    limits: Mapping[str, int],
) -> dict[str, int]:
    """Round densities to whole groups by largest remainder, within bounds, never above ``total`` weights.

    Args:
        ideal: densities by name.
        total: weights that stay in all.
        groups: number and size of the groups under each name.
        elastic: where limits bind, the others take what is left, so that the total stays exact.
        keep_alive: at least one group under each name stays.
        limits: the most weights that may stay, by name.

    Returns:
        Weights to keep, by name.
    """
    size = {name: group.size for name, group in groups.items()}
    high = {
        name: min(group.count, limits.get(name, group.count * group.size) // group.size)
        for name, group in groups.items()
    }
    low = {name: min(1, high[name]) if keep_alive else 0 for name in high}
    if sum(low[name] * size[name] for name in low) > total:
        raise UsageError(
            f"keeping every layer alive needs at least {sum(low[name] * size[name] for name in low)} weights, the "
            f"sparsity leaves {total}; lower it or drop keep_alive."
        )
    wanted = {name: ideal[name] * group.count for name, group in groups.items()}
    # A density of 0.3 times a count of 10 must floor to 3 although floating point says 2.9999999999999996.
    down = {name: math.floor(value * (1 + 1e-12) + 1e-9) for name, value in wanted.items()}
    count = {name: min(max(down[name], low[name]), high[name]) for name in wanted}
    left = total - sum(count[name] * size[name] for name in count)
    while left < 0:
        name = min((n for n in count if count[n] > low[n]), key=lambda n: wanted[n] - count[n])
        count[name] -= 1
        left += size[name]
    caps = [{name: min(high[name], down[name] + 1) for name in high}]
    if elastic:
        # For single weights only: what a few large groups leave would fill the tensors of small groups far beyond
        # their share.
        caps.append(high)
    for cap in caps:
        while candidates := [n for n in count if count[n] < cap[n] and size[n] <= left]:
            share = max(1, left // sum(size[n] for n in candidates))
            for name in sorted(candidates, key=lambda n: count[n] - wanted[n]):
                more = min(share, cap[name] - count[name], left // size[name])
                count[name] += more
                left -= more * size[name]
    return {name: count[name] * size[name] for name in count}
