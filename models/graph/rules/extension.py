"""Operators that make a tensor larger: repetition, constant filling and padding."""

from __future__ import annotations

import numpy as np
from onnx import numpy_helper

from ..effects import Map, same
from ..layout import Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace
from .movement import integers


def expand(trace: Trace, node: Node) -> None:
    """Follow Expand and Tile: repeated axes do not depend on cells, but a constant may be repeated less often."""
    layout, output = trace.layout(node.inputs[0]), node.outputs[0]
    extents = trace.extents(output)
    rank = len(extents)
    shape = (1,) * (rank - len(layout.shape)) + layout.shape
    layout = Layout(shape, tuple(f.reshape((1,) * (rank - f.ndim) + f.shape) for f in layout.factors))
    for axis, (old, new) in enumerate(zip(shape, extents, strict=True)):
        if old not in (1, new):
            layout = trace.rigid(layout, axis, f"{node} repeats it")
    factors = list(layout.factors)
    if node.op == "Expand" and output in trace.known:
        factors.extend(_repeated(trace, shape, output, trace.uniform(node.inputs[0])))
    trace.define(output, factors)


def _repeated(trace: Trace, shape: tuple[int, ...], output: str, value: float) -> list[Ids]:
    """Return cells for the static axes that a constant is repeated along: any number of copies would do."""
    factors = []
    dynamic = trace.shapes.dynamic[output]
    for axis, (old, new) in enumerate(zip(shape, trace.extents(output), strict=True)):
        if old == 1 < new and not dynamic[axis]:
            line = trace.cells.fresh([new])
            trace.effects.append(Map((value,), line, same))
            factors.append(line.reshape([new if a == axis else 1 for a in range(len(shape))]))
    return factors


def filled(trace: Trace, node: Node) -> None:
    """Follow ConstantOfShape."""
    output = node.outputs[0]
    value = node.attributes.get("value")
    number = 0.0 if value is None else float(numpy_helper.to_array(value).reshape(-1)[0])
    shape = (1,) * len(trace.extents(output))
    trace.define(output, _repeated(trace, shape, output, number) if node.inputs[0] in trace.shapes.static else [])


def pad(trace: Trace, node: Node) -> None:
    """Follow Pad: padded indices of a shrinkable axis are cells of their own, constant zero in constant mode."""
    layout, output = trace.layout(node.inputs[0]), node.outputs[0]
    rank = len(layout.shape)
    pads = integers(trace, node, 1, "pads")
    axes = integers(trace, node, 3, "axes") or list(range(rank))
    if pads is None:
        raise NotFollowedError("its pads are missing")
    mode = node.attributes.get("mode", b"constant")
    value = trace.uniform(node.input(2)) if node.input(2) else float(node.attributes.get("value", 0.0))
    for position, axis in enumerate(axes):
        before, after = pads[position], pads[position + len(axes)]
        axis %= rank
        factor = layout.on(axis)
        if before == after == 0 or factor is None:
            continue
        if mode != b"constant" or before < 0 or after < 0 or len(covered(factor)) > 1:
            layout = trace.rigid(layout, axis, f"{node} pads it by copies of its own values")
            continue
        layout = _pad_line(trace, layout, factor, axis, (before, after), value)
    spatial = {axis % rank for k, axis in enumerate(axes) if pads[k] or pads[k + len(axes)]}
    _pad_values(trace, node, layout, spatial, output, value if mode == b"constant" else float("nan"))


def _pad_line(trace: Trace, layout: Layout, factor: Ids, axis: int, amounts: tuple[int, int], value: float) -> Layout:
    ends = [trace.cells.fresh([amount]) for amount in amounts]
    for end in ends:
        if end.size:
            trace.effects.append(Map((value,), end, same))
    line = np.concatenate([ends[0], factor.reshape(-1), ends[1]])
    shape = tuple(line.size if a == axis else 1 for a in range(len(layout.shape)))
    extents = tuple(line.size if a == axis else extent for a, extent in enumerate(layout.shape))
    return Layout(extents, (*layout.without(factor).factors, line.reshape(shape)))


def _pad_values(trace: Trace, node: Node, layout: Layout, padded: set[int], output: str, value: float) -> None:
    """Give cells padded along another axis a new identity: their slices now also hold the padding value."""
    factors = []
    for factor in layout.factors:
        if padded <= set(covered(factor)):
            factors.append(factor)
            continue
        result = trace.cells.fresh(factor.shape)
        trace.cells.tie(factor, result, str(node))

        trace.effects.append(
            Map((factor.reshape(-1), value), result.reshape(-1), lambda x, v: np.where(x == v, x, np.nan))
        )
        factors.append(result)
    trace.define(output, factors)


RULES = {"Expand": expand, "Tile": expand, "ConstantOfShape": filled, "Pad": pad}
