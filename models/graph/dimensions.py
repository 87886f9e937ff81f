"""What is coupled to what: the dependency analysis of a whole graph.

:func:`analyse` walks the operators once in order, lets each rule carry cells from inputs to outputs, and closes the
ties. The result says, for every axis of every tensor, which unit each index belongs to, and which units must stay and
why. See :mod:`sparsepack.models.graph.layout` for the ideas.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import onnx

from .effects import Effect
from .labels import labelled
from .layout import PINNED, Ids, Layout, covered
from .rules import EXTENT_READERS, RULES
from .shapes import Shapes, read_shapes
from .shuffles import shuffle_interiors
from .trace import Node, NotFollowedError, Trace

_RANDOM = ("Random", "Bernoulli", "Multinomial")


@dataclass(frozen=True)
class Dimensions:
    """The dependency structure of a graph.

    Attributes:
        model: the graph it describes (prepared; not copied).
        nodes: its operators, unpacked.
        shapes: extents and folded constants.
        layouts: tensor name -> cells of each index.
        units: cell -> unit; cells of one unit are removed together.
        pinned: unit -> why it cannot be removed.
        pinned_cells: which cells were pinned themselves.
        effects: what operators do to values, in graph order.
        input_cells: cells of weights that run along an input dimension.
        known: names of tensors computed from initializers alone.
        not_followed: operator -> why its operands were left alone.
        shuffles: names of tensors inside channel shuffles, whose removed cells need not form whole slabs.
    """

    model: onnx.ModelProto
    nodes: list[Node]
    shapes: Shapes
    layouts: dict[str, Layout]
    units: Ids
    pinned: dict[int, tuple[str, ...]]
    pinned_cells: npt.NDArray[np.bool_]
    effects: list[Effect]
    input_cells: frozenset[int]
    known: frozenset[str]
    not_followed: dict[str, str]
    shuffles: frozenset[str]


def analyse(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> Dimensions:
    """Find what may be removed from ``model`` together.

    Args:
        model: a prepared graph (see :mod:`sparsepack.models.graph.prepare`); it is not changed.
        sizes: extents to assume for symbolic dimensions, by name.

    Raises:
        UnsupportedError: the extents of the graph contradict each other.
    """
    shapes = read_shapes(model, sizes)
    trace = Trace(shapes, {tensor.name: tensor for tensor in model.graph.initializer})
    trace.known.update(trace.initializers)
    nodes = labelled([Node.read(index, proto) for index, proto in enumerate(model.graph.node)], trace.initializers)
    not_followed: dict[str, str] = {}
    for node, proto in zip(nodes, model.graph.node, strict=True):
        _visit(trace, node, proto, not_followed)
    for value in model.graph.output:
        if value.name in trace.layouts or value.name in trace.initializers:
            trace.fix(value.name, f"it is a dimension of the graph's output '{value.name}'")
    interiors = shuffle_interiors(nodes, trace.layouts, {value.name for value in model.graph.output})
    units = _close(trace, interiors)
    summed = np.unique(np.concatenate(trace.summed)) if trace.summed else np.zeros(0, np.int64)
    return Dimensions(
        model,
        nodes,
        shapes,
        trace.layouts,
        units,
        trace.cells.pin_reasons(units),
        trace.cells.pinned_cells(),
        trace.effects,
        frozenset(summed.tolist()),
        frozenset(trace.known),
        not_followed,
        interiors,
    )


def _visit(trace: Trace, node: Node, proto: onnx.NodeProto, not_followed: dict[str, str]) -> None:
    bodies = [attribute.g for attribute in proto.attribute if attribute.HasField("g")]
    if not bodies and not node.op.startswith(_RANDOM) and all(name in trace.known for name in node.inputs if name):
        trace.known.update(node.outputs)
    constants = [trace.shapes.constants.get(name) for name in node.outputs]
    arithmetic = all(value is not None and value.dtype.kind in "iub" for value in constants)
    if node.op in EXTENT_READERS or (arithmetic and not bodies):
        for name in node.outputs:
            if name in trace.shapes.extents:
                trace.layouts[name] = Layout(trace.shapes.extents[name])
        return
    rule = RULES.get(node.op)
    try:
        if rule is None:
            kind = "its body is left alone" if bodies else f"the operator {node.op} has no rule"
            raise NotFollowedError(kind)
        trace.asked.clear()
        rule(trace, node)
        for name in node.inputs:
            # Indices, bounds and the like: a rule that does not follow an operand cannot let it shrink.
            if name not in trace.asked and name in trace.layouts:
                trace.fix(name, f"{node} reads it as it is")
    except NotFollowedError as error:
        if _give_up(trace, node, bodies, str(error)):
            not_followed[str(node)] = str(error)


def _give_up(trace: Trace, node: Node, bodies: list[onnx.GraphProto], why: str) -> bool:
    """Pin everything an operator reads, also from inside its bodies; return whether that cost any freedom."""
    cost = False
    names = [name for name in node.inputs if name]
    for body in bodies:
        names.extend(_reads(body))
    for name in names:
        if name in trace.layouts or (name in trace.initializers and name in trace.shapes.extents):
            cost = cost or bool(trace.layouts[name].factors if name in trace.layouts else trace.is_float(name))
            trace.fix(name, f"{node} reads it and is not followed: {why}")
    for name in node.outputs:
        trace.layouts.pop(name, None)
        if name in trace.shapes.extents:
            trace.layouts[name] = Layout(trace.shapes.extents[name])
    return cost


def _reads(body: onnx.GraphProto) -> list[str]:
    names = [value.name for value in body.output]
    for node in body.node:
        names.extend(node.input)
        for attribute in node.attribute:
            if attribute.HasField("g"):
                names.extend(_reads(attribute.g))
    return list(dict.fromkeys(names))


def _close(trace: Trace, interiors: frozenset[str]) -> Ids:
    """Close the ties so that in every tensor the removed cells form whole slabs along one axis."""
    units = trace.cells.units()
    while True:
        free = ~np.isin(units, np.fromiter(trace.cells.pin_reasons(units), np.int64))
        changed = False
        for name, factor in trace.joint:
            if name in interiors:
                continue
            labels = units[factor]
            varying = [axis for axis in covered(factor) if (labels != labels.take([0], axis)).any()]
            if len(varying) < 2 or not free[labels].any():
                continue
            kept = max(varying, key=lambda axis: _slabs(trace, name, labels, free, axis))
            for axis in varying:
                if axis != kept:
                    reason = f"tensor '{name}' must stay rectangular"
                    trace.cells.tie(factor, factor.take([0], axis), reason)
            changed = True
        if not changed:
            return units
        units = trace.cells.units()


def _slabs(trace: Trace, name: str, labels: Ids, free: npt.NDArray[np.bool_], axis: int) -> tuple[int, int]:
    """Rank an axis by the number of slabs that could still go; an axis that the inputs size comes last."""
    rows = np.moveaxis(labels, axis, 0).reshape(labels.shape[axis], -1)
    count = int(free[rows].all(axis=1).sum())
    return (0 if trace.shapes.dynamic[name][axis] else 1, count)


__all__ = ["PINNED", "Dimensions", "analyse"]
