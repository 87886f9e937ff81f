"""Which constants of an ONNX graph are weights that may be pruned: those of Conv, Gemm and MatMul, and nothing else."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass

import onnx

from .onnx_file import OnnxFile
from .onnx_tensor import StoredTensor
from .prunable import Kind, PrunableTensor, fans

# Since IR version 4 an initializer that is also a graph input is a default the caller may override; before, every
# initializer had to be listed as an input.
FIRST_IR_WITH_FREE_INITIALIZERS = 4
_WEIGHTED = ("Conv", "Gemm", "MatMul")


@dataclass(frozen=True)
class _View:
    """A value that is a constant, possibly transposed: ``axes[i]`` is the constant's axis behind the value's axis i."""

    constant: str
    axes: tuple[int, ...]


@dataclass(frozen=True)
class _Use:
    """One reading of a constant: by a layer along its output axis, or (kind None) in any other way."""

    constant: str
    kind: Kind | None = None
    output_axis: int = 0


def layer_constants(file: OnnxFile) -> dict[str, StoredTensor]:
    """Return every float constant that a Conv, Gemm or MatMul of the main graph reads (weights and biases), by name."""
    stored = _float_constants(file)
    views = _views(file, stored)
    read = {
        views[name].constant
        for node in file.nodes
        if _is_standard(node) and node.op_type in _WEIGHTED
        for name in node.input
        if name in views
    }
    return {name: tensor for name, tensor in stored.items() if name in read}


def prunable_constants(file: OnnxFile) -> list[PrunableTensor]:
    """Return the weights that may be pruned, in the order of the nodes that read them.

    Left alone: integer tensors, initializers that the caller may override, sparse initializers, and whatever anything
    but these three operators reads as well (an embedding tied to the output layer, a branch of an If).
    """
    stored = _float_constants(file)
    uses = list(_uses(file, _views(file, stored)))
    shared = {use.constant for use in uses if use.kind is None}
    found: dict[str, PrunableTensor] = {}
    for use in uses:
        if use.kind is None or use.constant in shared or use.constant in found:
            continue
        shape = stored[use.constant].shape
        ordered = (shape[use.output_axis], *shape[: use.output_axis], *shape[use.output_axis + 1 :])
        fan_in, fan_out = fans(ordered)
        found[use.constant] = PrunableTensor(use.constant, shape, use.kind, use.output_axis, fan_in, fan_out)
    return list(found.values())


def _float_constants(file: OnnxFile) -> dict[str, StoredTensor]:
    overridable: set[str] = set()
    if file.ir_version >= FIRST_IR_WITH_FREE_INITIALIZERS:
        overridable = {value.name for value in file.inputs}
    candidates = {name: file.stored(name) for name in file.constants if name and name not in overridable}
    return {name: tensor for name, tensor in candidates.items() if tensor is not None}


def _views(file: OnnxFile, stored: dict[str, StoredTensor]) -> dict[str, _View]:
    """Follow constants through Transpose, Identity and Cast, which move or convert values but do not mix them."""
    views = {name: _View(name, tuple(range(len(tensor.shape)))) for name, tensor in stored.items()}
    for node in file.nodes:
        if _is_layout(node) and node.input[0] in views:
            source = views[node.input[0]]
            axes = source.axes
            if node.op_type == "Transpose":
                order = _ints(node, "perm") or tuple(reversed(range(len(axes))))
                if sorted(order) != list(range(len(axes))):
                    continue
                axes = tuple(axes[axis] for axis in order)
            views[node.output[0]] = _View(source.constant, axes)
    return views


def _uses(file: OnnxFile, views: dict[str, _View]) -> Iterator[_Use]:
    for node in file.nodes:
        for position, name in enumerate(node.input):
            if name in views and not (_is_layout(node) and node.output[0] in views):
                yield _use_by(node, position, views[name])
        for name in _captured(node):
            if name in views:
                yield _Use(views[name].constant)
    for value in file.outputs:
        if value.name in views:
            yield _Use(views[value.name].constant)


def _use_by(node: onnx.NodeProto, position: int, view: _View) -> _Use:
    if _is_standard(node):
        if node.op_type == "Conv" and position == 1 and len(view.axes) >= 3:
            return _Use(view.constant, "conv", view.axes[0])
        if len(view.axes) == 2:
            if node.op_type == "Gemm" and position == 1:
                transposed = _ints(node, "transB") == (1,)
                return _Use(view.constant, "linear", view.axes[0 if transposed else 1])
            if node.op_type == "MatMul":
                # Right operand [K, N]: outputs are columns. Left operand [M, K]: outputs are rows.
                return _Use(view.constant, "linear", view.axes[1 if position == 1 else 0])
    return _Use(view.constant)


def _is_standard(node: onnx.NodeProto) -> bool:
    return node.domain in ("", "ai.onnx")


def _is_layout(node: onnx.NodeProto) -> bool:
    return _is_standard(node) and node.op_type in ("Transpose", "Identity", "Cast") and bool(node.input and node.output)


def _ints(node: onnx.NodeProto, name: str) -> tuple[int, ...]:
    """Return an integer (or integers) attribute; an empty tuple when the node does not have it."""
    for attribute in node.attribute:
        if attribute.name == name:
            return (attribute.i,) if attribute.type == onnx.AttributeProto.INT else tuple(attribute.ints)
    return ()


def _captured(node: onnx.NodeProto) -> Iterable[str]:
    """Yield the names that the bodies inside ``node`` read; some are their own, which does no harm here."""
    for attribute in node.attribute:
        for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
            yield from (value.name for value in graph.output)
            for inner in graph.node:
                yield from inner.input
                yield from _captured(inner)
