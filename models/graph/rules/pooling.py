"""Operators that combine positions within a channel: pooling, resizing and reductions."""

from __future__ import annotations

from ..effects import same, unknown, zero_stays
from ..layout import Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace


def pool(trace: Trace, node: Node) -> None:
    """Follow local and global pooling: the channel axis passes, the others keep their extent."""
    data = trace.layout(node.inputs[0])
    for axis in range(2, len(data.shape)):
        data = trace.rigid(data, axis, f"{node} pools over it")
    padded = any(node.attributes.get("pads", ())) and node.op != "MaxPool"
    trace.through(node, data, node.outputs[0], zero_stays if padded or node.op.endswith("LpPool") else same)
    for name in node.outputs[1:]:
        # MaxPool's indices count positions of the whole tensor, channels included.
        if name:
            trace.fix(node.outputs[0], f"{node} returns indices into the whole tensor")
            trace.define(name, [])


def resize(trace: Trace, node: Node) -> None:
    """Follow Resize and Upsample: axes that change are fixed."""
    data, output = trace.layout(node.inputs[0]), node.outputs[0]
    for axis, (old, new) in enumerate(zip(data.shape, trace.extents(output), strict=True)):
        if old != new:
            data = trace.rigid(data, axis, f"{node} resizes it")
    mode = node.attributes.get("mode", b"nearest")
    cropped = node.attributes.get("coordinate_transformation_mode", b"") == b"tf_crop_and_resize"
    trace.through(node, data, output, same if mode != b"cubic" and not cropped else zero_stays)


_REDUCTIONS: dict[str, object] = {
    "ReduceMean": same,
    "ReduceMax": same,
    "ReduceMin": same,
    "ReduceSum": zero_stays,
    "ReduceL1": zero_stays,
    "ReduceL2": zero_stays,
    "ReduceSumSquare": zero_stays,
    "ReduceProd": unknown,
    "ReduceLogSum": unknown,
    "ReduceLogSumExp": unknown,
    "ArgMax": unknown,
    "ArgMin": unknown,
}


def reduction(trace: Trace, node: Node) -> None:
    """Follow reductions: the reduced axes are fixed, the others pass."""
    data, output = trace.layout(node.inputs[0]), node.outputs[0]
    rank = len(data.shape)
    axes = _reduced_axes(trace, node, rank)
    for axis in axes:
        data = trace.rigid(data, axis, f"{node} reduces over it")
    if not bool(node.attributes.get("keepdims", 1)):
        left = [axis for axis in range(rank) if axis not in axes]
        factors: list[Ids] = [factor.reshape([factor.shape[axis] for axis in left]) for factor in data.factors]
        data = Layout(tuple(data.shape[axis] for axis in left), tuple(f for f in factors if covered(f)))
    trace.through(node, data, output, _REDUCTIONS[node.op])


def _reduced_axes(trace: Trace, node: Node, rank: int) -> list[int]:
    if node.op in ("ArgMax", "ArgMin"):
        return [int(node.attributes.get("axis", 0)) % rank]
    given = node.attributes.get("axes")
    if node.input(1):
        value = trace.constant(node.input(1))
        if value is None:
            raise NotFollowedError("its axes are computed while the network runs")
        given = value.reshape(-1).tolist()
    if not given:
        return [] if node.attributes.get("noop_with_empty_axes", 0) else list(range(rank))
    return [int(axis) % rank for axis in given]


def regrid(trace: Trace, node: Node) -> None:
    """Follow GridSample: channels pass, positions are fixed."""
    data = trace.layout(node.inputs[0])
    for axis in range(len(data.shape)):
        if axis != 1:
            data = trace.rigid(data, axis, f"{node} samples it")
    trace.fix(node.inputs[1], f"{node} reads positions from it")
    trace.through(node, data, node.outputs[0], zero_stays)


RULES = {
    **dict.fromkeys(("MaxPool", "AveragePool", "LpPool", "GlobalMaxPool", "GlobalAveragePool", "GlobalLpPool"), pool),
    "Resize": resize,
    "Upsample": resize,
    "GridSample": regrid,
    **dict.fromkeys(_REDUCTIONS, reduction),
}
