"""Linear layers as functions of the widths of the groups that they run through."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..models.graph.dimensions import Dimensions
from ..models.graph.groups import Group
from ..models.graph.rules.convolution import by_whole_groups
from ..models.graph.trace import Node
from ..models.layer_costs import LayerShape


@dataclass(frozen=True)
class Extent:
    """One width of a layer: indices that stay, and indices that belong to groups.

    Attributes:
        fixed: indices outside the groups.
        parts: (group, its whole width, indices that belong to it).
    """

    fixed: int
    parts: tuple[tuple[str, int, int], ...] = ()

    def at(self, widths: Mapping[str, int]) -> int:
        """Return the extent when the groups have these widths."""
        return self.fixed + sum(widths[name] * count // whole for name, whole, count in self.parts)


@dataclass(frozen=True)
class WidthLayer:
    """A layer with a constant weight.

    Attributes:
        inputs: its input channels.
        outputs: its output channels.
        shape: the computation at whole widths.
    """

    inputs: Extent
    outputs: Extent
    shape: LayerShape

    @property
    def groups(self) -> frozenset[str]:
        """Names of the groups that it depends on."""
        return frozenset(name for extent in (self.inputs, self.outputs) for name, _, _ in extent.parts)

    def at(self, widths: Mapping[str, int]) -> LayerShape:
        """Return the computation at the given widths."""
        return self.of(self.inputs.at(widths), self.outputs.at(widths))

    def of(self, inputs: int, outputs: int) -> LayerShape:
        """Return the computation with so many input and output channels."""
        shape = self.shape
        if shape.operator != "Conv":
            weight = (outputs, inputs) if shape.transposed else (inputs, outputs)
            return LayerShape(shape.operator, (*shape.input[:-1], inputs), weight, transposed=shape.transposed)
        kernel, group, per_group = shape.weight[2:], shape.group, shape.weight[1]
        if group > 1 and by_whole_groups(group, per_group):
            group = max(inputs // per_group, 1)
            outputs = group * (shape.weight[0] // shape.group)
        return LayerShape(
            "Conv",
            (shape.input[0], inputs, *shape.input[2:]),
            (outputs, max(inputs // group, 1), *kernel),
            shape.strides,
            shape.pads,
            shape.dilations,
            group,
        )


def width_layers(dimensions: Dimensions, groups: Mapping[str, Group], batch: int) -> list[WidthLayer]:
    """Return the layers whose widths follow from ``groups``, in graph order; what they cannot describe is left out.

    Args:
        dimensions: the analysed graph.
        groups: name -> group that may shrink.
        batch: examples a run.
    """
    names = list(groups)
    owner = np.full(dimensions.units.size, -1)
    for place, name in enumerate(names):
        owner[groups[name].units] = place
    found = []
    for node in dimensions.nodes:
        shape = _shape(dimensions, node, batch)
        if shape is None:
            continue
        axis = 1 if node.op == "Conv" else -1
        sides = [_extent(dimensions, name, axis, owner, groups, names) for name in (node.inputs[0], node.outputs[0])]
        found.append(WidthLayer(sides[0], sides[1], shape))
    return found


def _extent(
    dimensions: Dimensions, tensor: str, axis: int, owner: np.ndarray, groups: Mapping[str, Group], names: list[str]
) -> Extent:
    layout = dimensions.layouts[tensor]
    axis %= len(layout.shape)
    extent = layout.shape[axis]
    factor = layout.on(axis)
    if factor is None:
        return Extent(extent)
    # A joint factor (heads x head width) shrinks by whole slabs: the share of its cells tells the indices.
    places, counts = np.unique(owner[dimensions.units[factor]], return_counts=True)
    share = extent / factor.size
    parts = [
        (names[place], groups[names[place]].width, round(count * share))
        for place, count in zip(places.tolist(), counts.tolist(), strict=True)
        if place >= 0
    ]
    return Extent(extent - sum(count for _, _, count in parts), tuple(parts))


def _shape(dimensions: Dimensions, node: Node, batch: int) -> LayerShape | None:
    shapes = dimensions.shapes
    if node.op not in ("Conv", "Gemm", "MatMul") or node.inputs[1] not in dimensions.known:
        return None
    if any(name not in dimensions.layouts for name in (node.inputs[0], node.outputs[0])):
        return None
    data, weight = (shapes.extents[name] for name in node.inputs[:2])
    if shapes.dynamic[node.inputs[0]][0]:
        data = (max(data[0] * batch // shapes.batch, 1), *data[1:])
    attributes = node.attributes
    if node.op == "Conv":
        if attributes.get("auto_pad", b"NOTSET") != b"NOTSET":
            return None
        strides, pads, dilations = (tuple(attributes.get(key, ())) for key in ("strides", "pads", "dilations"))
        return LayerShape("Conv", data, weight, strides, pads, dilations, int(attributes.get("group", 1)))
    if len(weight) != 2 or attributes.get("transA", 0):
        return None
    return LayerShape(node.op, data, weight, transposed=bool(attributes.get("transB", 0)))
