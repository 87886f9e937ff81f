"""Convolutions of any rank, plain, grouped, depthwise and transposed."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from ..effects import Contraction
from ..layout import PINNED, Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace
from .linear import add_bias

Array = npt.NDArray[Any]


# The reason by which lists of groups leave out what is no width of the network.
KERNEL = "it is an axis of a convolution kernel"


def by_whole_groups(groups: int, inputs: int) -> bool:
    """Return whether a grouped convolution loses whole groups, rather than the same input of every group.

    Both keep the groups equal; the choice that leaves more independent units wins. A depthwise convolution (one input a
    group) can only lose whole groups.
    """
    return groups >= inputs


def convolution(trace: Trace, node: Node) -> None:
    """Follow Conv and ConvTranspose."""
    data, weight = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    if node.inputs[1] not in trace.known:
        raise NotFollowedError("its weight is computed from the input")
    turned = node.op == "ConvTranspose"
    groups = int(node.attributes.get("group", 1))
    channels, per_group = data.shape[1], data.shape[1] // groups
    outputs = weight.shape[1] if turned else weight.shape[0] // groups
    for axis in (0, *range(2, len(data.shape))):
        data = trace.rigid(data, axis, f"{node} slides along it")
    for axis in range(2, len(data.shape)):
        weight = trace.rigid(weight, axis, KERNEL)
    data = _alone(trace, node, data)
    line = data.line(1)
    result = trace.cells.fresh([groups * outputs]) if groups * outputs > 1 else np.full(1, PINNED)
    if groups == 1:
        rows, columns = (weight.line(1), weight.line(0)) if turned else (weight.line(0), weight.line(1))
        trace.cells.tie(rows, result, str(node))
        trace.cells.tie(columns, line, f"{node} reads a dimension of fixed extent")
        trace.summed.append(columns)
    else:
        _tie_groups(trace, node, line.reshape(groups, per_group), result.reshape(groups, outputs), weight, turned)

    def view(array: Array) -> Array:
        taps = array.reshape(*array.shape[:2], -1)
        if turned:
            return taps.reshape(groups, channels // groups, outputs, -1).transpose(0, 2, 1, 3)
        return taps.reshape(groups, outputs, per_group, -1)

    trace.effects.append(
        Contraction(
            node.index,
            node.label,
            node.inputs[1],
            view,
            line.reshape(groups, per_group),
            result.reshape(groups, outputs),
            turned or _has_borders(node),
        )
    )
    factors = [result.reshape([-1 if axis == 1 else 1 for axis in range(len(data.shape))])]
    add_bias(trace, node, factors, node.input(2), axis=1)


def _alone(trace: Trace, node: Node, data: Layout) -> Layout:
    """Reduce a joint factor over the channel axis; afterwards the axis has cells of its own or none."""
    factor = data.on(1)
    for axis in covered(factor) if factor is not None else ():
        if axis != 1:
            data = trace.rigid(data, axis, str(node))
    return data


def _tie_groups(trace: Trace, node: Node, line: Ids, result: Ids, weight: Layout, turned: bool) -> None:
    groups, per_group = line.shape
    reason = f"{node} keeps its groups of equal size"
    if by_whole_groups(groups, per_group):
        # The group's inputs, outputs and weights go together; the width inside a group is fixed.
        trace.cells.tie(line, line[:, :1], reason)
        trace.cells.tie(result, line[:, :1], reason)
        trace.cells.tie(weight.line(0).reshape(groups, -1), line[:, :1], reason)
        trace.cells.pin(weight.line(1), reason)
        return
    trace.cells.tie(line, line[:1], reason)
    trace.cells.tie(result, result[:1], reason)
    inner, outer = (weight.line(0), weight.line(1)) if turned else (weight.line(1), weight.line(0))
    if turned:
        trace.cells.tie(inner.reshape(groups, -1), line, reason)
        trace.cells.tie(outer[None], result, reason)
    else:
        trace.cells.tie(inner[None], line, reason)
        trace.cells.tie(outer.reshape(groups, -1), result, reason)
    trace.summed.append(inner)


def _has_borders(node: Node) -> bool:
    automatic = node.attributes.get("auto_pad", b"NOTSET")
    return any(node.attributes.get("pads", ())) or automatic in (b"SAME_UPPER", b"SAME_LOWER")


RULES = {"Conv": convolution, "ConvTranspose": convolution}
__all__ = ["KERNEL", "RULES", "by_whole_groups", "convolution"]
