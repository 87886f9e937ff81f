"""Names of extents that must be equal, which shape inference leaves apart.

Inference gives the first extent of a reshaped or broadcast value a name of its own wherever the batch is open. Counting
elements, broadcasting equals, and slices of everything tell that it is the batch again.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping

import onnx

from ...files import Array

# One extent: a number, a name that stands for the same number everywhere, or None for unknown.
Extent = int | str | None
Shapes = dict[str, list[Extent]]

_ELEMENTWISE = ("Add", "Sub", "Mul", "Div")
_NO_END = 2**31 - 1


def with_equal_names(
    shapes: Mapping[str, list[Extent]], nodes: Iterable[onnx.NodeProto], array: Callable[[str], Array | None]
) -> Shapes:
    """Return shapes in which extents that must be equal have the same name.

    Args:
        shapes: as inferred.
        nodes: in an order in which they can run.
        array: returns a constant's values; None for anything else.
    """
    same: dict[str, Extent] = {}

    def name(extent: Extent) -> Extent:
        while isinstance(extent, str) and extent in same:
            extent = same[extent]
        return extent

    def shape(value: str) -> list[Extent]:
        return [name(extent) for extent in shapes.get(value, [])]

    def operand(value: str) -> list[Extent] | None:
        if value in shapes:
            return shape(value)
        constant = array(value)
        return None if constant is None else list(constant.shape)

    for node in nodes:
        inputs, output = [shape(value) for value in node.input], shape(node.output[0]) if node.output else []
        if not output or not inputs:
            continue
        wanted = output
        if node.op_type == "Reshape":
            wanted = _reshaped(inputs[0], output)
        elif node.op_type in _ELEMENTWISE:
            operands = [operand(value) for value in node.input]
            wanted = _broadcast([found for found in operands if found is not None], output)
            if None in operands:
                continue
        elif node.op_type == "MatMul" and all(len(found) >= 2 for found in inputs):
            wanted = [*_broadcast([found[:-2] for found in inputs], output[:-2]), *output[-2:]]
        elif node.op_type == "Slice" and _whole(node, array) and len(inputs[0]) == len(output):
            wanted = inputs[0]
        for found, extent in zip(output, wanted, strict=True):
            if isinstance(found, str) and extent is not None and extent != found:
                same[found] = extent
    return {value: shape(value) for value in shapes}


def _reshaped(given: list[Extent], output: list[Extent]) -> list[Extent]:
    """Return the output's extents, its one open name replaced where the number of elements tells it."""
    if None in given or None in output or 0 in given or 0 in output:
        return output
    sizes = [math.prod(extent for extent in found if isinstance(extent, int)) for found in (given, output)]
    left = [extent for extent in given if isinstance(extent, str)]
    open_names = []
    for extent in output:
        if isinstance(extent, str):
            if extent in left:
                left.remove(extent)
            else:
                open_names.append(extent)
    if sizes[0] != sizes[1] or len(left) != 1 or len(open_names) != 1:
        return output
    return [left[0] if extent == open_names[0] else extent for extent in output]


def _broadcast(inputs: list[list[Extent]], output: list[Extent]) -> list[Extent]:
    """Return the output's extents, each as that of the inputs where they have only one beside 1."""
    wanted = list(output)
    for place in range(1, len(output) + 1):
        found = {shape[-place] for shape in inputs if len(shape) >= place} - {1}
        if len(found) == 1:
            wanted[-place] = found.pop()
    return wanted


def _whole(node: onnx.NodeProto, array: Callable[[str], Array | None]) -> bool:
    """Tell whether a Slice takes everything."""
    if len(node.input) < 3:
        return False
    starts, ends = array(node.input[1]), array(node.input[2])
    steps = array(node.input[4]) if len(node.input) > 4 and node.input[4] else None
    if starts is None or ends is None or (steps is None and len(node.input) > 4 and node.input[4]):
        return False
    return bool((starts == 0).all() and (ends >= _NO_END).all() and (steps is None or (steps == 1).all()))
