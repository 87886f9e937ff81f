"""``onnx-slim``: an ordinary, smaller ONNX graph that computes the same function.

Either the structure that masks have emptied is cut out (:func:`slim` without a ratio), or the weakest units of every
group are masked first (with one). What :mod:`sparsepack.models.graph` says may be cut is cut; nothing else changes, and
the graph's inputs and outputs stay as they are.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import onnx
from onnx import numpy_helper

from ..errors import UnsupportedError
from ..models.graph.dead import find_dead
from ..models.graph.dimensions import Dimensions, analyse
from ..models.graph.groups import Group, Scores, find_groups, score_named, select, slices_of
from ..models.graph.invariant import loose_cells
from ..models.graph.prepare import prepared
from ..models.graph.shuffles import shuffle_chains
from ..models.graph.weights import Slices, Weights
from .slim_account import Account, account_of
from .slim_cut import Cut, cut_initializers, plan
from .slim_fixes import fix_nodes
from .slim_fold import Shift, apply_shifts, shifts
from .slim_target import Problem, Target


@dataclass(frozen=True)
class Slimmed:
    """What slimming returns.

    Attributes:
        model: the slimmed graph; the very graph that was given when nothing could be removed.
        account: what went, what stayed and why.
    """

    model: onnx.ModelProto
    account: Account


@dataclass(frozen=True)
class Removal:
    """A cut that is planned and not yet made.

    Attributes:
        cut: which indices of every tensor stay.
        shifts: what removed units contributed as constants, by layer.
        account: what goes, what stays and why.
    """

    cut: Cut
    shifts: list[Shift]
    account: Account


def slim(
    model: onnx.ModelProto,
    ratio: float | Mapping[str, float] | Target | None = None,
    *,
    score: str | Callable[[Group, Weights], Scores] = "l1",
    across: bool = False,
    round_to: int = 1,
    approximate: bool = False,
    sizes: Mapping[str, int] | None = None,
) -> Slimmed:
    """Cut dead structure, and the weakest share of every group when ``ratio`` is given, out of a graph.

    Args:
        model: an ONNX graph; it is consumed (its memory is reused), so read it anew to compare.
        ratio: share of units to remove from every group that may shrink, or group name -> share, or a budget that
            decides the shares; None removes only what is dead already.
        score: name of a score in ``SCORES``, or a function of a group and the weights; higher = keep.
        across: rank the units of all groups together.
        round_to: keep a multiple of so many units in each group.
        approximate: also remove constant channels where zero padding makes that inexact along borders; the bound of
            the error is in the account.
        sizes: extents to assume for symbolic dimensions, by name.

    Raises:
        UnsupportedError: a ratio is asked for and no group may shrink, a budget cannot be met, or the graph contradicts
            itself.
    """
    if isinstance(ratio, float) and not 0.0 <= ratio < 1.0:
        raise UnsupportedError(f"cannot remove a share of {ratio} of the units; expected at least 0 and less than 1.")
    model = prepared(model)
    dimensions = _analysed(model, sizes)
    groups = find_groups(dimensions)
    zeroed: Slices = {}
    if ratio is not None:
        # What is dead already is folded into its readers, not masked: its constants still count.
        dead = find_dead(dimensions, Weights(dimensions), approximate).removable
        scores = scores_of(dimensions, groups, score)
        shares: float | Mapping[str, float]
        if isinstance(ratio, float | int | Mapping):
            shares = ratio
        else:
            shares = ratio.shares(Problem(dimensions, groups, scores, dead, round_to, across))
            round_to = 1
        zeroed = slices_of(groups, select(groups, scores, shares, across=across, round_to=round_to) - dead)
    removal = _removal(dimensions, groups, zeroed, approximate)
    cut = removal.cut
    if cut.removed:
        _freeze_extents(cut)
        _mask(cut, zeroed)
        cut_initializers(cut)
        fix_nodes(cut)
        apply_shifts(cut, removal.shifts)
        _rewrite_shuffles(cut)
        _tidy(model)
    return Slimmed(model, removal.account)


def dead_structure(model: onnx.ModelProto, approximate: bool = False) -> Removal:
    """Return what :func:`slim` would cut out of a graph without a ratio; the graph stays as it is.

    Args:
        model: an ONNX graph; its memory may be shared with the result.
        approximate: as for :func:`slim`.

    Raises:
        UnsupportedError: the graph contradicts itself.
    """
    dimensions = _analysed(prepared(model), None)
    return _removal(dimensions, find_groups(dimensions), {}, approximate)


def _analysed(model: onnx.ModelProto, sizes: Mapping[str, int] | None) -> Dimensions:
    dimensions = analyse(model, sizes)
    for operator, operand in loose_cells(dimensions)[:1]:
        raise UnsupportedError(
            f"{operator} would lose indices of '{operand}' that nothing follows; the graph cannot be slimmed safely "
            "and nothing was cut. Please report the operator with its attributes."
        )
    return dimensions


def _removal(dimensions: Dimensions, groups: list[Group], zeroed: Slices, approximate: bool) -> Removal:
    weights = Weights(dimensions, zeroed)
    liveness = find_dead(dimensions, weights, approximate)
    _, cut = plan(dimensions, liveness.removable)
    found = shifts(cut, liveness, weights, approximate)
    return Removal(cut, found, account_of(dimensions, groups, liveness, cut, weights, found))


def choose(
    dimensions: Dimensions,
    groups: list[Group],
    ratio: float | Mapping[str, float],
    score: str | Callable[[Group, Weights], Scores] = "l1",
    across: bool = False,
    round_to: int = 1,
    dead: frozenset[int] = frozenset(),
) -> Slices:
    """Return the slices of initializers that a ratio masks: the coupled units with the lowest scores.

    Units in ``dead`` count as chosen where their scores say so, but are not masked.
    """
    scores = scores_of(dimensions, groups, score)
    return slices_of(groups, select(groups, scores, ratio, across=across, round_to=round_to) - dead)


def scores_of(
    dimensions: Dimensions, groups: list[Group], score: str | Callable[[Group, Weights], Scores]
) -> dict[str, Scores]:
    """Return free group -> one score a unit; higher = keep."""
    function = score_named(score) if isinstance(score, str) else score
    weights = Weights(dimensions)
    return {group.name: function(group, weights) for group in groups if not group.pinned}


def mask(model: onnx.ModelProto, zeroed: Slices) -> None:
    """Write zeros into the given slices of a graph's initializers."""
    for tensor in model.graph.initializer:
        if tensor.name in zeroed:
            array = numpy_helper.to_array(tensor).copy()
            for axis, indices in zeroed[tensor.name]:
                array[(slice(None),) * axis + (indices,)] = 0
            tensor.CopyFrom(numpy_helper.from_array(array, tensor.name))


def _mask(cut: Cut, zeroed: Slices) -> None:
    """Zero the masked slices that could not be cut out, so that the result equals the masked graph."""
    left: dict[str, list[tuple[int, np.ndarray[tuple[int], np.dtype[np.int64]]]]] = {}
    for name, slices in zeroed.items():
        for axis, indices in slices:
            flags = cut.keep(name, axis)
            staying = indices if flags is None else indices[flags[indices]]
            if staying.size:
                left.setdefault(name, []).append((axis, staying))
    mask(cut.model, left)


def _freeze_extents(cut: Cut) -> None:
    """Turn extents that were read from a tensor being cut, and are used as numbers, into constants.

    Their values are those before the cut; operators that use them to place data are fixed one by one afterwards.
    """
    shapes = cut.dimensions.shapes
    tainted: set[str] = set()
    for node in cut.dimensions.nodes:
        reads = node.op in ("Shape", "Size") and node.inputs[0] in cut.kept
        if reads or any(name in tainted and name in shapes.constants for name in node.inputs):
            tainted.update(name for name in node.outputs if name in shapes.constants)
    for proto in cut.model.graph.node:
        for position, name in enumerate(proto.input):
            if name in tainted and name in shapes.static and shapes.constants[name].dtype.kind in "iub":
                proto.input[position] = f"{name}.frozen"
    used = {name for proto in cut.model.graph.node for name in proto.input}
    for name in sorted(tainted):
        if f"{name}.frozen" in used:
            cut.model.graph.initializer.append(numpy_helper.from_array(shapes.constants[name], f"{name}.frozen"))


def _rewrite_shuffles(cut: Cut) -> None:
    """Replace channel shuffles whose kept channels form no rectangle by one Gather."""
    protos = list(cut.model.graph.node)
    outputs = {value.name for value in cut.model.graph.output}
    for first, second, third in shuffle_chains(cut.dimensions.nodes, cut.dimensions.layouts, outputs):
        if first.outputs[0] not in cut.ragged and second.outputs[0] not in cut.ragged:
            continue
        before, after = (cut.dimensions.layouts[name] for name in (first.inputs[0], third.outputs[0]))
        axis = next(a for a, extent in enumerate(before.factors[0].shape) if extent > 1)
        place = {cell: k for k, cell in enumerate(before.line(axis).tolist())}
        order = np.array([place[cell] for cell in after.line(axis).tolist()], np.int64)
        keep_in, keep_out = cut.keep(first.inputs[0], axis), cut.keep(third.outputs[0], axis)
        if keep_in is not None and keep_out is not None:
            order = (np.cumsum(keep_in) - 1)[order[keep_out]]
        indices = cut.add(order, f"{third.outputs[0]}.order")
        gather = onnx.helper.make_node("Gather", [first.inputs[0], indices], [third.outputs[0]], third.label, axis=axis)
        protos[third.index].CopyFrom(gather)


def _tidy(model: onnx.ModelProto) -> None:
    """Order the operators, and drop operators and initializers that nothing reads any more."""
    graph = model.graph
    needed = {value.name for value in graph.output}
    producers = {name: k for k, node in enumerate(graph.node) for name in node.output if name}
    nodes = list(graph.node)
    order: list[int] = []
    state: dict[int, bool] = {}
    stack = [producers[name] for name in sorted(needed, reverse=True) if name in producers]
    while stack:
        index = stack[-1]
        if state.get(index):
            stack.pop()
            continue
        reads = [producers[name] for name in _all_reads(nodes[index]) if name in producers]
        waiting = [k for k in reads if not state.get(k)]
        if waiting:
            stack.extend(waiting)
            continue
        state[index] = True
        order.append(stack.pop())
    originals = [onnx.NodeProto.FromString(nodes[k].SerializeToString()) for k in _stable(order, nodes, producers)]
    del graph.node[:]
    graph.node.extend(originals)
    del graph.value_info[:]
    used = needed | {name for node in graph.node for name in _all_reads(node)}
    for position in reversed(range(len(graph.initializer))):
        if graph.initializer[position].name not in used:
            del graph.initializer[position]


def _all_reads(node: onnx.NodeProto) -> list[str]:
    names = list(node.input)
    for attribute in node.attribute:
        if attribute.HasField("g"):
            for inner in attribute.g.node:
                names.extend(_all_reads(inner))
            names.extend(value.name for value in attribute.g.output)
    return names


def _stable(order: list[int], nodes: list[onnx.NodeProto], producers: Mapping[str, int]) -> list[int]:
    """Keep the original order wherever it is valid: added operators move before their first reader."""
    rank = {index: float(index) for index in order}
    for index in sorted(order, reverse=True):
        for name in _all_reads(nodes[index]):
            source = producers.get(name)
            if source is not None and rank[source] >= rank[index]:
                rank[source] = rank[index] - 0.5
    valid = sorted(order, key=lambda index: rank[index])
    seen: set[str] = set()
    for index in valid:
        if any(name in producers and name not in seen for name in _all_reads(nodes[index])):
            return order
        seen.update(nodes[index].output)
    return valid
