"""Coupled widths: the channels, neurons or heads of a network that one decision removes from every tensor at once.

In: the coupled groups that :mod:`sparsepack.models.graph` finds, and the prunable tensors. Out: the widths that a
structure may shrink, with what each of their units holds: prunable weights (counted and masked), and the biases and
norm entries that have to go with them (masked, not counted), without which a masked channel would still be a constant.
"""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

import numpy as np

from ..errors import UnsupportedError
from .mask import BoolArray
from .space import NOTHING_PRUNABLE, Space, excluded_names
from .structure import Channel, Groups

if TYPE_CHECKING:
    from ..models.graph.coupled import CoupledGraph
    from ..models.graph.groups import Group, Member
    from ..models.prunable import PrunableTensor


@dataclass(frozen=True)
class Network:
    """What is known of a network before anything is chosen.

    Attributes:
        graph: its coupled groups.
        parameters: shapes of the tensors that may be masked, by name; statistics are not among them.
    """

    graph: CoupledGraph
    parameters: Mapping[str, tuple[int, ...]]


@dataclass(frozen=True)
class Width:
    """Units that can be kept or removed one by one.

    Attributes:
        name: the first weight that they are outputs of.
        count: how many there are.
        size: prunable weights that each holds.
        weights: the prunable tensors' axes that they run along.
        companions: the same of biases, norm scales and shifts, and other parameters that are outputs.
    """

    name: str
    count: int
    size: int
    weights: tuple[Member, ...]
    companions: tuple[Member, ...]


@dataclass(frozen=True)
class Coupling:
    """The widths that a structure may shrink.

    Attributes:
        widths: in graph order; ties are broken in this order.
        space: the prunable tensors that they run through.
        shapes: of every tensor that is masked: those of the space, then the companions.
        normalised: scales of batch and instance normalisations among the companions.
        fixed: weights of the space that belong to no width and always stay.
    """

    widths: tuple[Width, ...]
    space: Space
    shapes: dict[str, tuple[int, ...]]
    normalised: frozenset[str] = field(default_factory=frozenset)
    fixed: int = 0

    @property
    def groups(self) -> dict[str, Groups]:
        """Number and size of the units of each width, by its name."""
        return {width.name: Groups(width.count, width.size) for width in self.widths}

    def expand(self, chosen: Sequence[BoolArray]) -> dict[str, BoolArray]:
        """Return the element masks of a choice of units.

        Args:
            chosen: one array a width, True where a unit stays.

        Returns:
            Bool masks by name, in the order of :attr:`shapes`.
        """
        masks = {name: np.ones(shape, np.bool_) for name, shape in self.shapes.items()}
        for width, keep in zip(self.widths, chosen, strict=True):
            for member in (*width.weights, *width.companions):
                gone = (member.indices >= 0) & np.logical_not(keep[member.indices])
                masks[member.tensor][(slice(None),) * member.axis + (gone,)] = False
        return masks

    def alive(self, masks: Mapping[str, BoolArray]) -> list[BoolArray]:
        """Return which units some masks keep; the inverse of :meth:`expand`."""
        found = []
        for width in self.widths:
            keep = np.zeros(width.count, np.bool_)
            for member in width.weights:
                mask = masks[member.tensor]
                rows = np.moveaxis(mask, member.axis, 0).reshape(mask.shape[member.axis], -1)
                lines = np.asarray(rows.any(axis=1), np.bool_)
                inside = member.indices >= 0
                np.logical_or.at(keep, member.indices[inside], lines[inside])
            found.append(keep)
        return found


def couple(
    network: Network,
    prunable: Sequence[PrunableTensor],
    structure: Channel,
    exclude: Collection[str] = (),
) -> Coupling:
    """Find the widths that a structure may shrink.

    Args:
        network: its coupled groups and parameters.
        prunable: every prunable tensor, in the model's order.
        structure: which part of the network: ``channel`` is every width, ``neuron`` those of linear layers alone,
            ``head`` those of attention heads.
        exclude: names or globs of prunable tensors that are never pruned, nor what is coupled to them.

    Raises:
        UsageError: a pattern matches no prunable tensor.
        UnsupportedError: nothing is left to prune, with the reasons.
    """
    graph, shapes = network.graph, network.parameters
    tensors = {tensor.name: tensor for tensor in prunable}
    excluded = excluded_names(exclude, list(tensors))
    widths: list[Width] = []
    reasons: dict[str, str] = {}
    for group in graph.groups:
        weights = tuple(m for m in group.members if m.tensor in tensors and m.axis == tensors[m.tensor].output_axis)
        reason = _refusal(group, weights, tensors, structure, graph.heads, excluded)
        if reason is None:
            companions = tuple(m for m in group.members if m.output and m not in weights and m.tensor in shapes)
            widths += _by_size(group, weights, companions, tensors)
        else:
            for member in weights:
                reasons.setdefault(member.tensor, reason)
    inside = {member.tensor for width in widths for member in width.weights}
    unfit = {
        name: reasons.get(name, "the graph that the model lowers to does not hold it as an output of a layer")
        for name in tensors
        if name not in inside and name not in excluded
    }
    space = Space(tuple(t for t in prunable if t.name in inside), excluded, unfit)
    if not widths:
        why = " ".join(space.warnings) if prunable else NOTHING_PRUNABLE
        raise UnsupportedError(f"no tensor can be pruned with structure {structure.text}. {why}")
    beside = dict.fromkeys(member.tensor for width in widths for member in width.companions)
    masked = {t.name: t.shape for t in space.tensors} | {name: tuple(shapes[name]) for name in beside}
    fixed = space.total - sum(width.count * width.size for width in widths)
    return Coupling(tuple(widths), space, masked, graph.normalised & masked.keys(), fixed)


def _refusal(
    group: Group,
    weights: tuple[Member, ...],
    tensors: Mapping[str, PrunableTensor],
    structure: Channel,
    heads: frozenset[int],
    excluded: Collection[str],
) -> str | None:
    """Return why a structure leaves a group alone, or None; a group of no prunable weight has an empty reason."""
    if not weights:
        return ""
    if group.pinned:
        return group.pinned[0]
    if group.width < 2:
        return "its width is one unit"
    for member in weights:
        if member.tensor in excluded:
            return f"it is coupled to '{member.tensor}', which is excluded"
    part = "channel" if any(tensors[member.tensor].kind == "conv" for member in weights) else "neuron"
    if not heads.isdisjoint(group.units.tolist()):
        part = "head"
    if structure.part in ("channel", part):
        return None
    return f"its output units are {part}s, and the structure is {structure.text}"


def _by_size(
    group: Group,
    weights: tuple[Member, ...],
    companions: tuple[Member, ...],
    tensors: Mapping[str, PrunableTensor],
) -> list[Width]:
    """Return the group as one width, or as several where its units hold different numbers of weights."""
    sizes = np.zeros(group.width, np.int64)
    for member in weights:
        shape = tensors[member.tensor].shape
        inside = member.indices[member.indices >= 0]
        np.add.at(sizes, inside, math.prod(shape) // shape[member.axis])
    found: list[Width] = []
    for size in dict.fromkeys(sizes.tolist()):
        of_size = sizes == size
        place = np.where(of_size, np.cumsum(of_size) - 1, -1)
        name = group.name if not found else f"{group.name} of size {size}"
        parts = (
            tuple(
                _renumbered(member, place)
                for member in members
                if (place[member.indices[member.indices >= 0]] >= 0).any()
            )
            for members in (weights, companions)
        )
        found.append(Width(name, int(of_size.sum()), int(size), *parts))
    return found


def _renumbered(member: Member, place: np.ndarray[tuple[int], np.dtype[np.int64]]) -> Member:
    return replace(member, indices=np.where(member.indices >= 0, place[member.indices], -1))
