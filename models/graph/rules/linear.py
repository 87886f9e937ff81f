"""Matrix products: MatMul, Gemm and Einsum, seen as a product over named axes some of which are summed away."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from ..effects import Contraction, Map, Product
from ..layout import PINNED, Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace

Array = npt.NDArray[Any]


def contract(trace: Trace, node: Node, sides: Sequence[Layout], summed: Sequence[int]) -> list[Ids]:
    """Multiply two layouts over common axes and sum some of them away.

    Args:
        trace: the walk.
        node: the operator, for reasons.
        sides: both operands over the same axes, extent 1 where an operand lacks the axis.
        summed: axes that are summed away.

    Returns:
        New output cells, still over the common axes.
    """
    current = list(sides)
    for axis in summed:
        for position in (0, 1):
            factor = current[position].on(axis)
            # Summing mixes the cells along the axis, so a joint factor (heads x head width) goes by whole heads.
            if factor is not None and any(other not in summed for other in covered(factor)):
                current[position] = trace.rigid(current[position], axis, f"{node} sums over it")
    kept: list[tuple[Ids | None, Ids | None]] = []
    for left, right in trace.align(current, str(node)):
        present = left if left is not None else right
        axes = () if present is None else covered(present)
        if not any(axis in summed for axis in axes):
            kept.append((left, right))
        elif left is not None and right is not None:
            trace.cells.tie(left, right, str(node))
            pair = (left.reshape(-1), right.reshape(-1))
            trace.effects.append(Product(None, None, np.full(1, PINNED), pair))
    factors = []
    for left, right in kept:
        result = trace.joined((left, right), node)
        flat = [None if ids is None else ids.reshape(-1) for ids in (left, right)]
        trace.effects.append(Product(flat[0], flat[1], result.reshape(-1), None))
        factors.append(result)
    return factors


def dense(
    trace: Trace, node: Node, data: Layout, weight: str, matrix: Layout, view: Callable[[Array], Array], scale: float
) -> list[Ids]:
    """Multiply an activation [..., K] by a constant matrix [K, N]; return factors over [..., N]."""
    rank = len(data.shape)
    data = trace_last_alone(trace, node, data)
    line, rows, columns = data.line(rank - 1), matrix.line(0), matrix.line(1)
    trace.cells.tie(line, rows, f"{node} reads a dimension of fixed extent")
    trace.summed.append(rows)
    outputs = trace.cells.fresh([matrix.shape[1]]) if matrix.shape[1] > 1 else np.full(1, PINNED)
    trace.cells.tie(outputs, columns, str(node))
    trace.effects.append(Contraction(node.index, node.label, weight, view, line[None], outputs[None], False, scale))
    factors = []
    for factor in data.factors:
        if factor.shape[-1] == 1:
            result = trace.cells.fresh(factor.shape)
            trace.cells.tie(factor, result, str(node))
            trace.effects.append(Product(factor.reshape(-1), None, result.reshape(-1), None))
            factors.append(result)
    if matrix.shape[1] > 1:
        factors.append(outputs.reshape([1] * (rank - 1) + [-1]))
    return factors


def trace_last_alone(trace: Trace, node: Node, data: Layout) -> Layout:
    """Reduce a joint factor that covers the last axis to its other axes: a weight mixes along the last axis only."""
    last = len(data.shape) - 1
    factor = data.on(last)
    if factor is not None and len(covered(factor)) > 1:
        return trace.rigid(data, last, f"{node} sums over it")
    return data


def _swap(layout: Layout) -> Layout:
    """Return a matrix layout transposed."""
    return Layout(layout.shape[::-1], tuple(factor.T for factor in layout.factors))


def matmul(trace: Trace, node: Node) -> None:
    """Follow MatMul with a constant right matrix, or between activations (attention)."""
    left, right = (trace.layout(name) for name in node.inputs[:2])
    output = node.outputs[0]
    if node.inputs[1] in trace.known and len(right.shape) == 2 and node.inputs[0] not in trace.known:
        factors = dense(trace, node, left, node.inputs[1], right, lambda w: w.T[None, :, :, None], 1.0)
        trace.define(output, factors)
        return
    if len(left.shape) < 2 or len(right.shape) < 2:
        raise NotFollowedError("one of its operands is a vector")
    batch = max(len(left.shape), len(right.shape)) - 2
    # Common axes: batch axes, M, K, N.
    a = _spread(left, [*range(batch + 2 - len(left.shape), batch), batch, batch + 1], batch + 3)
    b = _spread(right, [*range(batch + 2 - len(right.shape), batch), batch + 1, batch + 2], batch + 3)
    factors = contract(trace, node, (a, b), [batch + 1])
    trace.define(output, [factor.squeeze(batch + 1) for factor in factors])


def _spread(layout: Layout, axes: Sequence[int], rank: int) -> Layout:
    """Place the layout's axes at ``axes`` of a longer list of axes."""
    shape = [1] * rank
    for old, new in enumerate(axes):
        shape[new] = layout.shape[old]
    factors = []
    for factor in layout.factors:
        order = np.argsort(axes)
        extents = [1] * rank
        for old, new in enumerate(axes):
            extents[new] = factor.shape[old]
        factors.append(factor.transpose([int(o) for o in order]).reshape(extents))
    return Layout(tuple(shape), tuple(factors))


def gemm(trace: Trace, node: Node) -> None:
    """Follow Gemm, with its bias as an addition."""
    left, right = (trace.layout(name) for name in node.inputs[:2])
    if node.attributes.get("transA", 0):
        left = _swap(left)
    turned = bool(node.attributes.get("transB", 0))
    if turned:
        right = _swap(right)
    alpha, beta = (float(node.attributes.get(key, 1.0)) for key in ("alpha", "beta"))
    if node.inputs[1] in trace.known and node.inputs[0] not in trace.known:
        view = (lambda w: w[None, :, :, None]) if turned else (lambda w: w.T[None, :, :, None])
        factors = dense(trace, node, left, node.inputs[1], right, view, alpha)
    else:
        a, b = _spread(left, [0, 1], 3), _spread(right, [1, 2], 3)
        factors = [factor.squeeze(1) for factor in contract(trace, node, (a, b), [1])]
    add_bias(trace, node, factors, node.input(2), beta)


def add_bias(trace: Trace, node: Node, factors: list[Ids], bias: str, scale: float = 1.0, axis: int = -1) -> None:
    """Add an optional bias to new cells and define the node's output."""
    output = node.outputs[0]
    shape = trace.extents(output)
    layout = Layout(shape, tuple(factor for factor in factors if covered(factor)))
    if not bias:
        trace.define(output, layout.factors)
        return
    offset = trace.layout(bias)
    place = [1] * len(shape)
    if len(offset.shape) <= 1:
        place[axis] = offset.shape[0] if offset.shape else 1
    else:
        place = [1] * (len(shape) - len(offset.shape)) + list(offset.shape)
    parts = []
    for factor in offset.factors:
        parts.append(
            factor.reshape(place if len(offset.shape) == 1 else [1] * (len(shape) - factor.ndim) + [*factor.shape])
        )
    uniform = trace.uniform(bias)
    results = []
    for left, right in trace.align([layout, Layout(tuple(place), tuple(parts))], str(node)):
        result = trace.joined((left, right), node)
        operands: tuple[Ids | float, ...] = (
            float("nan") if left is None else left.reshape(-1),
            uniform if right is None else right.reshape(-1),
        )
        trace.effects.append(Map(operands, result.reshape(-1), lambda x, b: x + scale * b))
        results.append(result)
    trace.define(output, results)


def einsum(trace: Trace, node: Node) -> None:
    """Follow Einsum of two operands with distinct labels each."""
    equation = node.attributes["equation"].decode().replace(" ", "")
    if "." in equation or "->" not in equation or len(node.inputs) != 2:
        raise NotFollowedError(f"the equation '{equation}' is not a plain product of two operands")
    terms, result = equation.split("->")
    first, second = terms.split(",")
    if any(len(set(term)) != len(term) for term in (first, second, result)):
        raise NotFollowedError(f"the equation '{equation}' takes a diagonal")
    labels = sorted(set(first + second))
    sides = [
        _spread(trace.layout(name), [labels.index(label) for label in term], len(labels))
        for name, term in zip(node.inputs, (first, second), strict=True)
    ]
    summed = [k for k, label in enumerate(labels) if label not in result]
    factors = contract(trace, node, sides, summed)
    rest = [label for label in labels if label in result]
    order = [rest.index(label) for label in result]
    trace.define(node.outputs[0], [factor.squeeze(tuple(summed)).transpose(order) for factor in factors])


RULES = {"MatMul": matmul, "Gemm": gemm, "Einsum": einsum}
