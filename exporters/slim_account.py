"""The account of a cut: every layer and every coupled group before and after, and what stayed and why."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np
import onnx

from ..models.graph.advice import explained
from ..models.graph.dead import Liveness
from ..models.graph.dimensions import Dimensions
from ..models.graph.effects import Contraction
from ..models.graph.groups import Group
from ..models.graph.weights import Weights
from .slim_cut import Cut
from .slim_fold import Shift, source

# Reasons and widths that the readable account spells out; all are in the data.
_LISTED = 5
_MEMBERS = 4


@dataclass(frozen=True)
class LayerRow:
    """One linear layer.

    Attributes:
        name: its weight, or its operator where the weight has no name of its own.
        op: operator type.
        inputs: input channels before and after.
        outputs: output channels before and after.
        macs: multiply-accumulates for one sample, before and after.
    """

    name: str
    op: str
    inputs: tuple[int, int]
    outputs: tuple[int, int]
    macs: tuple[int, int]

    def __str__(self) -> str:
        text = f"{self.op} {self.name.removesuffix('.weight')}: {self.outputs[0]}"
        return text if self.outputs[0] == self.outputs[1] else f"{text} -> {self.outputs[1]}"


@dataclass(frozen=True)
class GroupRow:
    """One coupled group.

    Attributes:
        name: the first weight it is an output of.
        units: number of units before and after.
        members: the weights it runs through, as ``weight[axis]``.
        pinned: why it cannot shrink; empty when it can.
        blocked: layers whose zero padding kept constant units from being removed exactly.
        parameters: elements of these weights before and after; a weight between two groups counts in both.
        macs: multiply-accumulates of the layers that use them, for one sample, before and after.
        bytes: bytes of these weights before and after.
    """

    name: str
    units: tuple[int, int]
    members: tuple[str, ...]
    pinned: tuple[str, ...]
    blocked: tuple[str, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    bytes: tuple[int, int]

    def __str__(self) -> str:
        old, new = self.units
        more = f" and {len(self.members) - _MEMBERS} more" if len(self.members) > _MEMBERS else ""
        costs = [
            f"{name} {before:,} -> {after:,}"
            for name, (before, after) in (("parameters", self.parameters), ("MACs", self.macs), ("bytes", self.bytes))
        ]
        members = ", ".join(self.members[:_MEMBERS])
        return f"width {self.name.removesuffix('.weight')}: {old} -> {new}, {', '.join(costs)}, in {members}{more}"


@dataclass(frozen=True)
class LatencyRow:
    """What a budget of time came to, in milliseconds.

    Attributes:
        layers: what the linear layers take by the cost table, before and after.
        graph: what the whole graph takes, before and after, where it was measured.
        round_to: the multiple that widths were rounded to.
    """

    layers: tuple[float, float]
    graph: tuple[float, float] | None
    round_to: int

    def __str__(self) -> str:
        text = f"layers by the cost table: {self.layers[0]:.3g} -> {self.layers[1]:.3g} ms"
        if self.graph is not None:
            text += f"; the graph, measured: {self.graph[0]:.3g} -> {self.graph[1]:.3g} ms"
        return f"{text}; widths in multiples of {self.round_to}"


@dataclass(frozen=True)
class Account:
    """What a cut did.

    Attributes:
        layers: linear layers in graph order.
        groups: coupled groups in graph order.
        parameters: elements of all floating-point initializers, before and after.
        macs: multiply-accumulates for one sample, before and after.
        bytes: bytes of all initializers, before and after.
        weights: elements of the linear layers' weights: all, not zero, and not zero among those that stay; the last two
            give the explicit and the effective sparsity.
        error_bound: largest possible change of a layer's output along its borders; 0 when the cut is exact.
        not_followed: operator -> why the dimensions it touches were left alone.
        latency: what a budget of time came to; None where there was none.
    """

    layers: tuple[LayerRow, ...]
    groups: tuple[GroupRow, ...]
    parameters: tuple[int, int]
    macs: tuple[int, int]
    bytes: tuple[int, int]
    weights: tuple[int, int, int]
    error_bound: float
    not_followed: dict[str, str]
    latency: LatencyRow | None = None

    @property
    def explicit_sparsity(self) -> float:
        """Return the share of weights that are zero (masked)."""
        return 1 - self.weights[1] / max(self.weights[0], 1)

    @property
    def effective_sparsity(self) -> float:
        """Return the share of weights that are zero or contribute nothing because what they connect is dead."""
        return 1 - self.weights[2] / max(self.weights[0], 1)

    def lines(self) -> list[str]:
        """Return the account as text: changed layers, changed groups, totals, then what stands in the way."""
        lines = [str(row) for row in self.layers if row.outputs[0] != row.outputs[1]]
        lines += [str(row) for row in self.groups if row.units[0] != row.units[1]]
        for name, (old, new) in (("parameters", self.parameters), ("MACs", self.macs), ("bytes", self.bytes)):
            lines.append(f"{name}: {old:,} -> {new:,} ({1 - new / max(old, 1):.1%} removed)")
        if self.latency is not None:
            lines.append(str(self.latency))
        lines.append(f"sparsity: {self.explicit_sparsity:.1%} explicit, {self.effective_sparsity:.1%} effective")
        lines.extend(self._blocked())
        for operator, reason in self.not_followed.items():
            lines.append(f"{operator} was not followed ({reason}); the dimensions it touches stay.")
        lines.extend(self._pinned())
        if self.parameters[0] == self.parameters[1]:
            free = sum(not row.pinned for row in self.groups)
            if free:
                lines.append(f"nothing could be removed: no unit is dead; {free} widths may shrink if --slim says so.")
            else:
                lines.append("nothing could be removed: every width is coupled to something that cannot change.")
        return lines

    def _blocked(self) -> list[str]:
        rows = [row for row in self.groups if row.blocked]
        lines = [
            f"{row.name}: constant channels stay because {', '.join(row.blocked)} reads them across zero padding; "
            "--allow-approximate removes them, and so does masking their BatchNorm shift and bias."
            for row in rows[:_LISTED]
        ]
        if len(rows) > _LISTED:
            lines.append(f"constant channels of {len(rows) - _LISTED} more widths stay for the same reason.")
        return lines

    def _pinned(self) -> list[str]:
        """Say which widths cannot change and why, those of most units first."""
        units: dict[str, int] = {}
        for row in self.groups:
            if row.pinned:
                units[row.pinned[0]] = units.get(row.pinned[0], 0) + row.units[1]
        ranked = explained(units)
        lines = [f"stays ({count:,} units): {why}" for why, count in ranked[:_LISTED]]
        if ranked[_LISTED:]:
            rest = sum(count for _, count in ranked[_LISTED:])
            lines.append(f"stays ({rest:,} units): {len(ranked) - _LISTED} more reasons, which --json lists")
        return lines


def layer_costs(dimensions: Dimensions, cut: Cut | None) -> dict[int, tuple[int, int, int]]:
    """Return node index -> input channels, output channels and MACs of one sample, after ``cut`` if given."""
    costs = {}
    shapes = dimensions.shapes

    def extents(name: str) -> tuple[int, ...]:
        return shapes.extents[name] if cut is None else cut.extents(name)

    for node in dimensions.nodes:
        if node.op not in ("Conv", "ConvTranspose", "Gemm", "MatMul"):
            continue
        if any(name not in shapes.extents for name in (*node.inputs[:2], node.outputs[0])):
            continue
        data, weight, output = (extents(name) for name in (*node.inputs[:2], node.outputs[0]))
        if node.op in ("Conv", "ConvTranspose"):
            places = output if node.op == "Conv" else data
            macs = int(np.prod(places, dtype=np.int64)) * int(np.prod(weight[1:], dtype=np.int64))
            costs[node.index] = (data[1], output[1], macs // shapes.batch)
            continue
        depth = data[0] if node.attributes.get("transA", 0) else data[-1]
        macs = int(np.prod(output, dtype=np.int64)) * depth
        costs[node.index] = (depth, output[-1] if output else 1, macs // shapes.batch)
    return costs


def account_of(
    dimensions: Dimensions,
    groups: list[Group],
    liveness: Liveness,
    cut: Cut,
    weights: Weights,
    found: list[Shift],
) -> Account:
    """Gather the account of a cut that is planned but not yet made."""
    before, after = layer_costs(dimensions, None), layer_costs(dimensions, cut)
    sizes = {tensor.name: _sizes(cut, tensor) for tensor in cut.model.graph.initializer}
    layers = []
    costs: dict[str, list[tuple[int, int]]] = {}
    for index, (inputs, outputs, macs) in before.items():
        node = dimensions.nodes[index]
        new = after[index]
        # Products of two activations (attention) have no weight to be named by.
        name = source(dimensions, node.inputs[1]) if node.inputs[1] in dimensions.known else node.label
        costs.setdefault(name, []).append((macs, new[2]))
        layers.append(LayerRow(name, node.op, (inputs, new[0]), (outputs, new[1]), (macs, new[2])))
    rows = []
    for group in groups:
        if group.pinned and not any(sizes[member.tensor].parameters[0] for member in group.members):
            # Tables of indices: their extents are no widths of the network.
            continue
        stays = [unit for unit in group.units.tolist() if unit not in cut.removed]
        blocked = dict.fromkeys(liveness.blocked[unit] for unit in stays if unit in liveness.blocked)
        members = tuple(f"{member.tensor}[{member.axis}]" for member in group.members)
        weights_of = dict.fromkeys(member.tensor for member in group.members)
        rows.append(
            GroupRow(
                group.name,
                (group.width, len(stays)),
                members,
                group.pinned,
                tuple(blocked),
                _sum(sizes[name].parameters for name in weights_of),
                _sum(pair for name in weights_of for pair in costs.get(name, ())),
                _sum(sizes[name].bytes for name in weights_of),
            )
        )
    return Account(
        tuple(layers),
        tuple(rows),
        _sum(size.parameters for size in sizes.values()),
        _sum(row.macs for row in layers),
        _sum(size.bytes for size in sizes.values()),
        _counts(cut, weights),
        max((shift.error for shift in found), default=0.0),
        dict(dimensions.not_followed),
    )


def _counts(cut: Cut, weights: Weights) -> tuple[int, int, int]:
    """Count the weights of linear layers: all, not zero, and not zero among those that stay."""
    names = dict.fromkeys(
        source(cut.dimensions, effect.weight) for effect in cut.dimensions.effects if isinstance(effect, Contraction)
    )
    total = explicit = effective = 0
    for name in names:
        live = weights.live(name)
        total, explicit = total + live.size, explicit + int(live.sum())
        for axis, flags in enumerate(cut.kept.get(name, ())):
            if flags is not None:
                live = np.compress(flags, live, axis)
        effective += int(live.sum())
    return total, explicit, effective


@dataclass(frozen=True)
class _Size:
    """Floating-point elements and bytes of an initializer, before and after."""

    parameters: tuple[int, int]
    bytes: tuple[int, int]


def _sizes(cut: Cut, tensor: onnx.TensorProto) -> _Size:
    kind = onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type)
    before = after = int(np.prod(tensor.dims, dtype=np.int64))
    if tensor.name in cut.kept:
        after = int(np.prod(cut.extents(tensor.name), dtype=np.int64))
    # ml_dtypes' bfloat16 reports kind V; it is a floating-point type all the same.
    floats = (before, after) if kind.kind in "fV" else (0, 0)
    return _Size(floats, (before * kind.itemsize, after * kind.itemsize))


def _sum(pairs: Iterable[tuple[int, int]]) -> tuple[int, int]:
    before = after = 0
    for old, new in pairs:
        before, after = before + old, after + new
    return before, after
