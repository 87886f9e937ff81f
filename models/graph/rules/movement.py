"""Operators that only move data: the cells travel with the indices, nothing new is coupled."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from ..effects import Map, Merge, same
from ..layout import PINNED, Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace


def integers(trace: Trace, node: Node, position: int, attribute: str) -> list[int] | None:
    """Return a list of integers that newer opsets pass as an input and older ones as an attribute."""
    if node.input(position):
        value = trace.constant(node.input(position))
        if value is None:
            raise NotFollowedError(f"its {attribute} are computed while the network runs")
        return [int(v) for v in value.reshape(-1)]
    return [int(v) for v in node.attributes[attribute]] if attribute in node.attributes else None


def _segments(old: Sequence[int], new: Sequence[int]) -> list[tuple[range, range]]:
    """Match the shortest runs of old and new axes with equal products, in row-major order."""
    runs, i, j = [], 0, 0
    while i < len(old) or j < len(new):
        start = (i, j)
        left = right = 1
        while True:
            if left == right and (i, j) != start:
                break
            if left <= right and i < len(old):
                left *= old[i]
                i += 1
            elif j < len(new):
                right *= new[j]
                j += 1
            elif i < len(old):
                left *= old[i]
                i += 1
            else:
                raise NotFollowedError("its target does not hold as many elements as its input")
        runs.append((range(start[0], i), range(start[1], j)))
    return runs


def regroup(trace: Trace, layout: Layout, new: tuple[int, ...], reason: str) -> list[Ids]:
    """Carry a layout through a row-major reshape to the extents ``new``."""
    if 0 in new or 0 in layout.shape:
        raise NotFollowedError("its input is empty")
    runs = _segments(layout.shape, new)
    taken: dict[int, Ids] = {}
    factors: list[Ids] = []
    for factor in sorted(layout.factors, key=lambda f: -f.size):
        touched = [k for k, (old, _) in enumerate(runs) if any(axis in old for axis in covered(factor))]
        if any(k in taken for k in touched):
            trace.cells.pin(factor, f"{reason} flattens two shrinkable dimensions into one")
            trace.cells.pin(
                next(taken[k] for k in touched if k in taken), f"{reason} flattens it with another dimension"
            )
            continue
        taken.update(dict.fromkeys(touched, factor))
        extents, target = [1] * len(layout.shape), [1] * len(new)
        for k in touched:
            for axis in runs[k][0]:
                extents[axis] = layout.shape[axis]
            for axis in runs[k][1]:
                target[axis] = new[axis]
        block = np.broadcast_to(factor, extents).reshape(target)
        for axis in range(block.ndim):
            if block.shape[axis] > 1 and (block == block.take([0], axis)).all():
                block = block.take([0], axis)
        factors.append(block)
    return factors


def reshape(trace: Trace, node: Node) -> None:
    """Follow Reshape, Flatten, Squeeze and Unsqueeze: a row-major regrouping of axes."""
    output = node.outputs[0]
    trace.define(output, regroup(trace, trace.layout(node.inputs[0]), trace.extents(output), str(node)))


def transpose(trace: Trace, node: Node) -> None:
    """Follow Transpose."""
    layout = trace.layout(node.inputs[0])
    order = list(node.attributes.get("perm", range(len(layout.shape))[::-1]))
    trace.define(node.outputs[0], [factor.transpose(order) for factor in layout.factors])


def _agree(trace: Trace, node: Node, rows: list[list[Ids | None]]) -> list[Ids]:
    """Return new cells for factors that several stacked tensors share."""
    factors = []
    for row in rows:
        present = [ids for ids in row if ids is not None]
        result = trace.joined(row, node)
        stacked = np.stack([ids.reshape(-1) for ids in present], axis=1)
        # A tensor that does not depend on the cells contributes values of its own.
        if len(present) < len(row):
            stacked = np.concatenate([stacked, np.full((len(stacked), 1), PINNED)], axis=1)
        trace.effects.append(Merge(stacked, result.reshape(-1)))
        factors.append(result)
    return factors


def concat(trace: Trace, node: Node) -> None:
    """Follow Concat: cells are lined up along the axis, and joined across all the other axes."""
    output = node.outputs[0]
    rank = len(trace.extents(output))
    axis = int(node.attributes["axis"]) % rank
    layouts = [trace.layout(name) for name in node.inputs if name]
    along: list[Ids | None] = []
    for position, layout in enumerate(layouts):
        factor = layout.on(axis)
        for other in covered(factor) if factor is not None else ():
            if other != axis:
                layout = trace.rigid(layout, other, str(node))
        factor = layout.on(axis)
        along.append(factor)
        rest = layout if factor is None else layout.without(factor)
        # Hidden from the alignment: extents along the axis may differ and carry no coupling.
        shape = tuple(1 if a == axis else extent for a, extent in enumerate(layout.shape))
        layouts[position] = Layout(shape, rest.factors)
    factors = _agree(trace, node, trace.align(layouts, str(node)))
    if any(factor is not None for factor in along):
        sizes = [trace.extents(name)[axis] for name in node.inputs if name]
        lines = [
            np.full(size, PINNED) if factor is None else factor.reshape(-1)
            for size, factor in zip(sizes, along, strict=True)
        ]
        line = np.concatenate(lines).astype(np.int64)
        factors.append(line.reshape([line.size if a == axis else 1 for a in range(rank)]))
    trace.define(output, factors)


def split(trace: Trace, node: Node) -> None:
    """Follow Split: each output takes its stretch of the cells."""
    layout = trace.layout(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(layout.shape)
    start = 0
    for name in node.outputs:
        stop = start + trace.extents(name)[axis]
        trace.define(
            name, [f[_cut(len(f.shape), axis, start, stop)] if f.shape[axis] > 1 else f for f in layout.factors]
        )
        start = stop


def _cut(rank: int, axis: int, start: int, stop: int) -> tuple[slice, ...]:
    return tuple(slice(start, stop) if a == axis else slice(None) for a in range(rank))


def slice_(trace: Trace, node: Node) -> None:
    """Follow Slice with constant bounds along the dimensions that could shrink."""
    layout = trace.layout(node.inputs[0])
    rank = len(layout.shape)
    axes_given = integers(trace, node, 3, "axes")
    starts_name, ends_name = (trace.constant(node.input(k)) if node.input(k) else None for k in (1, 2))
    if node.input(1) and (starts_name is None or ends_name is None):
        for axis in axes_given if axes_given is not None else range(rank):
            layout = trace.rigid(layout, axis % rank, f"{node} has bounds that are computed while the network runs")
        trace.define(node.outputs[0], list(layout.factors))
        return
    starts, ends = integers(trace, node, 1, "starts") or [], integers(trace, node, 2, "ends") or []
    steps = integers(trace, node, 4, "steps") or [1] * len(starts)
    axes = axes_given if axes_given is not None else list(range(len(starts)))
    factors = list(layout.factors)
    for axis, start, end, step in zip(axes, starts, ends, steps, strict=True):
        axis %= rank
        window = np.arange(layout.shape[axis])[start:end:step]
        if step < 0 and end < -layout.shape[axis]:
            window = np.arange(layout.shape[axis])[start::step]
        if step != 1:
            layout = trace.rigid(Layout(layout.shape, tuple(factors)), axis, f"{node} takes every {step}th index")
            factors = list(layout.factors)
            continue
        factors = [f.take(window, axis) if f.shape[axis] > 1 else f for f in factors]
    trace.define(node.outputs[0], factors)


def gather(trace: Trace, node: Node) -> None:
    """Follow Gather: constant indices pick cells, computed ones (an embedding) need the whole axis."""
    layout = trace.layout(node.inputs[0])
    axis = int(node.attributes.get("axis", 0)) % len(layout.shape)
    indices = trace.constant(node.inputs[1])
    shape = trace.extents(node.inputs[1])
    factor = layout.on(axis)
    if indices is None or len(shape) != 1:
        # A single index drops the axis, so the axis cannot shrink; joint cells are then removed across all of it.
        layout = trace.rigid(layout, axis, f"{node} looks its rows up by a computed or single index")
        factor = None
    factors = []
    for f in layout.factors:
        if f is factor and indices is not None:
            factors.append(f.take(indices.astype(np.int64), axis))
        else:
            factors.append(f.reshape((*f.shape[:axis], *(1 for _ in shape), *f.shape[axis + 1 :])))
    trace.define(node.outputs[0], factors)


def gather_nd(trace: Trace, node: Node) -> None:
    """Follow GatherND: the axes that are looked up are fixed, the others pass (a table of position biases)."""
    layout, shape = trace.layout(node.inputs[0]), trace.extents(node.inputs[1])
    if int(node.attributes.get("batch_dims", 0)):
        raise NotFollowedError("it gathers batch by batch")
    depth = shape[-1]
    for axis in range(depth):
        layout = trace.rigid(layout, axis, f"{node} looks its rows up")
    lead = (1,) * (len(shape) - 1)
    trace.define(node.outputs[0], [factor.reshape(lead + factor.shape[depth:]) for factor in layout.factors])


def gather_elements(trace: Trace, node: Node) -> None:
    """Follow GatherElements: the axis that is looked up is fixed, the others pass where the indices span them."""
    data, places = (trace.layout(name) for name in node.inputs)
    rank = len(data.shape)
    looked_up = int(node.attributes.get("axis", 0)) % rank
    for axis in range(rank):
        if axis == looked_up or data.shape[axis] != places.shape[axis]:
            data = trace.rigid(data, axis, f"{node} looks it up")
            places = trace.rigid(places, axis, f"{node} looks it up")
    # Fixed on both sides, and of different extents: hidden from the alignment of the rest.
    hidden = tuple(
        1 if axis == looked_up or a != b else a
        for axis, (a, b) in enumerate(zip(data.shape, places.shape, strict=True))
    )
    factors = []
    for left, right in trace.align([Layout(hidden, data.factors), Layout(hidden, places.factors)], str(node)):
        result = trace.joined((left, right), node)
        values = float("nan") if left is None else left.reshape(-1)
        trace.effects.append(Map((values,), result.reshape(-1), same))
        factors.append(result)
    trace.define(node.outputs[0], factors)


RULES = {
    "Reshape": reshape,
    "Flatten": reshape,
    "Squeeze": reshape,
    "Unsqueeze": reshape,
    "Transpose": transpose,
    "Concat": concat,
    "Split": split,
    "Slice": slice_,
    "Gather": gather,
    "GatherND": gather_nd,
    "GatherElements": gather_elements,
}
