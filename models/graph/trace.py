"""The walk over a graph that gathers layouts, ties, pins and effects; what operator rules write into."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from .effects import Effect, Initial, Map, Merge, Values
from .layout import PINNED, Cells, Ids, Layout, covered
from .shapes import Shapes

Array = npt.NDArray[Any]


_PROBED = 3
# Values compared at a time.
_CHUNK = 1 << 22


class NotFollowedError(Exception):
    """Raised by a rule that meets a case it does not follow; the walk pins the operator's inputs and goes on."""


@dataclass(frozen=True)
class Node:
    """One operator, unpacked from its protobuf.

    Attributes:
        index: position in the graph.
        op: operator type, prefixed by the domain unless that is the default one.
        inputs: tensor names, empty where an optional input is absent.
        outputs: tensor names.
        attributes: attribute name -> Python value.
        label: a name for people.
    """

    index: int
    op: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: Mapping[str, Any]
    label: str

    @classmethod
    def read(cls, index: int, proto: onnx.NodeProto) -> Node:
        """Unpack a protobuf node."""
        domain = "" if proto.domain in ("", "ai.onnx") else f"{proto.domain}."
        values = {a.name: onnx.helper.get_attribute_value(a) for a in proto.attribute if not a.ref_attr_name}
        label = proto.name or (proto.output[0] if proto.output else f"node {index}")
        return cls(index, domain + proto.op_type, tuple(proto.input), tuple(proto.output), values, label)

    def input(self, position: int) -> str:
        """Return an input's name, empty when it is absent."""
        return self.inputs[position] if position < len(self.inputs) else ""

    def __str__(self) -> str:
        return f"{self.op} '{self.label}'"


@dataclass
class Trace:
    """Everything known about the graph so far.

    Attributes:
        shapes: extents and folded constants.
        initializers: name -> protobuf, never copied.
        cells: the register of cells.
        layouts: tensor name -> layout; a tensor of unknown extents has none.
        effects: what the operators met so far do to values, in graph order.
        joint: (tensor name, factor) whose cells span several axes and must be removed in whole slabs.
        summed: cells of weights that run along an input dimension.
        known: names of initializers and of whatever is computed from them alone.
        asked: names whose layouts the current rule has asked for.
    """

    shapes: Shapes
    initializers: dict[str, onnx.TensorProto]
    cells: Cells = field(default_factory=Cells)
    layouts: dict[str, Layout] = field(default_factory=dict)
    effects: list[Effect] = field(default_factory=list)
    joint: list[tuple[str, Ids]] = field(default_factory=list)
    summed: list[Ids] = field(default_factory=list)
    known: set[str] = field(default_factory=set)
    asked: set[str] = field(default_factory=set)

    def extents(self, name: str) -> tuple[int, ...]:
        """Return a tensor's extents.

        Raises:
            NotFollowedError: they are unknown.
        """
        if name not in self.shapes.extents:
            raise NotFollowedError(f"the extents of tensor '{name}' cannot be inferred")
        return self.shapes.extents[name]

    def layout(self, name: str) -> Layout:
        """Return the layout of an input tensor; an initializer gets cells along every axis when first asked for."""
        self.asked.add(name)
        if name in self.layouts:
            return self.layouts[name]
        extents = self.extents(name)
        factors = []
        if name in self.initializers:
            for axis, extent in enumerate(extents):
                if extent > 1:
                    line = self.cells.fresh([extent])
                    self.effects.append(Initial(name, axis, line))
                    factors.append(line.reshape([extent if a == axis else 1 for a in range(len(extents))]))
        layout = Layout(extents, tuple(factors))
        self.layouts[name] = layout
        return layout

    def define(self, name: str, factors: Sequence[Ids]) -> None:
        """Record the layout of an output tensor; factors that cover nothing are dropped, and their one cell stays."""
        for factor in factors:
            if not covered(factor):
                self.cells.pin(factor, f"'{name}' holds it alone")
        layout = Layout(self.extents(name), tuple(f for f in factors if covered(f)))
        for factor in layout.factors:
            if any(extent not in (1, layout.shape[axis]) for axis, extent in enumerate(factor.shape)):
                raise NotFollowedError(f"the inferred extents of '{name}' contradict those of its inputs")
            if len(covered(factor)) > 1:
                self.joint.append((name, factor))
        self.layouts[name] = layout

    def constant(self, name: str) -> Array | None:
        """Return the value of a small constant, or None when it is computed from the input or large."""
        return self.shapes.constants.get(name)

    def is_float(self, name: str) -> bool:
        """Return whether an initializer holds floating-point numbers."""
        kind = self.initializers[name].data_type
        return onnx.helper.tensor_dtype_to_np_dtype(kind).kind in "fV"

    def uniform(self, name: str) -> float:
        """Return the single number that a constant consists of, or NaN."""
        value = self.constant(name)
        if value is None or value.size == 0 or value.dtype == object or not np.all(value == value.flat[0]):
            return float("nan")
        return float(value.flat[0])

    def merge_along(self, factor: Ids, axis: int, reason: str) -> Ids:
        """Tie a joint factor's cells along one of its axes and return the slabs as new cells."""
        rows = np.moveaxis(factor, axis, -1)
        merged = self.cells.fresh(rows.shape[:-1])
        self.cells.tie(rows, merged[..., None], reason)
        self.effects.append(Merge(rows.reshape(-1, rows.shape[-1]), merged.reshape(-1)))
        return np.expand_dims(merged, axis)

    def rigid(self, layout: Layout, axis: int, reason: str) -> Layout:
        """Fix the extent of one axis: its cells are pinned, or, when joint, removed only across the whole axis."""
        factor = layout.on(axis)
        if factor is None:
            return layout
        rest = layout.without(factor)
        if covered(factor) == (axis,):
            self.cells.pin(factor, reason)
            return rest
        return Layout(layout.shape, (*rest.factors, self.merge_along(factor, axis, reason)))

    def fix(self, name: str, reason: str) -> None:
        """Pin everything that a tensor's layout covers."""
        for factor in self.layout(name).factors:
            self.cells.pin(factor, reason)

    def align(self, operands: Sequence[Layout], reason: str) -> list[list[Ids | None]]:
        """Bring operands of equal rank (extents equal or 1) to common factors.

        Returns:
            One row for each common factor: per operand its cells, or None where the operand is broadcast over all the
            axes of that factor.
        """
        current = list(operands)
        changed = True
        while changed:
            changed = self._fix_uncovered(current, reason) or self._intersect(current, reason)
        axes = dict.fromkeys(covered(factor) for layout in current for factor in layout.factors)
        return [[layout.on(key[0]) for layout in current] for key in axes]

    def _fix_uncovered(self, current: list[Layout], reason: str) -> bool:
        for axis in range(len(current[0].shape)):
            fixed = any(layout.shape[axis] > 1 and layout.on(axis) is None for layout in current)
            for position, layout in enumerate(current):
                if fixed and layout.on(axis) is not None:
                    current[position] = self.rigid(layout, axis, f"{reason} meets a dimension of fixed extent")
                    return True
        return False

    def _intersect(self, current: list[Layout], reason: str) -> bool:
        for position, layout in enumerate(current):
            for factor in layout.factors:
                for other in current:
                    for rival in other.factors:
                        extra = set(covered(factor)) - set(covered(rival))
                        if extra and set(covered(factor)) & set(covered(rival)):
                            current[position] = self.rigid(layout, max(extra), reason)
                            return True
        return False

    def joined(self, row: Sequence[Ids | None], node: Node) -> Ids:
        """Return new output cells tied to the aligned cells of every operand that has some."""
        present = [ids for ids in row if ids is not None]
        result = self.cells.fresh(present[0].shape)
        for ids in present:
            self.cells.tie(ids, result, str(node))
        return result

    def elementwise(self, node: Node, names: Sequence[str], output: str, function: Any) -> None:
        """Apply an element-by-element operator with broadcasting to ``names`` and define ``output``."""
        shape = self.extents(output)
        operands = [pad_rank(self.layout(name), len(shape)) for name in names]
        uniforms = [self.uniform(name) for name in names]
        factors = []
        for row in self.align(operands, str(node)):
            result = self.joined(row, node)
            inputs = tuple(u if ids is None else ids.reshape(-1) for ids, u in zip(row, uniforms, strict=True))
            self.effects.append(Map(inputs, result.reshape(-1), function))
            factors.append(result)
        self.define(output, factors)

    def through(self, node: Node, layout: Layout, output: str, function: Any) -> None:
        """Define ``output`` with one new cell for each cell of ``layout`` (whose covered axes keep their place)."""
        factors = []
        for factor in layout.factors:
            result = self.cells.fresh(factor.shape)
            self.cells.tie(factor, result, str(node))
            self.effects.append(Map((factor.reshape(-1),), result.reshape(-1), function))
            factors.append(result)
        self.define(output, factors)


def pad_rank(layout: Layout, rank: int) -> Layout:
    """Return the layout with leading axes of extent 1, as broadcasting reads it."""
    lead = (1,) * (rank - len(layout.shape))
    return Layout(lead + layout.shape, tuple(factor.reshape(lead + factor.shape) for factor in layout.factors))


def read_array(tensor: onnx.TensorProto) -> Array:
    """Return an initializer's values, without a copy where the protobuf allows it."""
    return numpy_helper.to_array(tensor)


def slice_values(array: Array, axis: int, zeroed: Sequence[tuple[int, Ids]] = ()) -> Values:
    """Return, for each index of ``axis``, the one number its slice holds, or NaN.

    Args:
        array: values.
        axis: whose slices are looked at.
        zeroed: (axis, indices) of slices that are read as zero, without a copy of the array.
    """
    rows = np.moveaxis(array, axis, 0)
    values = np.full(len(rows), np.nan)
    # What is left of the other axes; a slice that is read as zero somewhere can only be zero throughout.
    left = [np.arange(extent) for extent in rows.shape]
    crossing = False
    for other, indices in zeroed:
        if other != axis and len(indices):
            crossing = True
            place = other + 1 if other < axis else other
            left[place] = np.setdiff1d(left[place], indices)
    if rows.size:
        # The first few numbers already tell nearly every slice of a trained weight from a constant one.
        probe = rows[np.ix_(left[0], *(some[:_PROBED] for some in left[1:]))].reshape(len(rows), -1)
        first = np.zeros((len(rows), 1), array.dtype) if crossing else probe[:, :1]
        maybe = np.flatnonzero((probe == first).all(axis=1))
        step = max(_CHUNK // max(rows[0].size, 1), 1)
        for start in range(0, len(maybe), step):
            chosen = maybe[start : start + step]
            whole = rows[np.ix_(chosen, *left[1:])] if crossing else rows[chosen]
            constant = (whole.reshape(len(chosen), -1) == first[chosen]).all(axis=1)
            values[chosen[constant]] = first[chosen[constant], 0].astype(np.float64)
    for other, indices in zeroed:
        if other == axis:
            values[indices] = 0.0
    return values


__all__ = ["PINNED", "Node", "NotFollowedError", "Trace", "pad_rank", "read_array", "slice_values"]
