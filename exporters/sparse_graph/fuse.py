"""Taking a residual Add and an activation into a layer, where nothing else reads what lies between."""

from __future__ import annotations

import math

import onnx

from .composed import gelu, silu
from .graph import Graph, attribute
from .match import Layer


def fuse(graph: Graph, layer: Layer) -> None:
    """Extend a layer by the nodes that follow it, in place."""
    reader = _residual(graph, layer, graph.only_reader(layer.output))
    composed = silu(graph, layer.output) or gelu(graph, layer.output)
    if composed is not None:
        layer.activation, nodes = composed
        layer.nodes += nodes
        layer.output = nodes[-1].output[0]
        return
    if reader is None or reader.domain not in ("", "ai.onnx"):
        return
    found = _activation(graph, reader)
    if found is not None:
        layer.activation, layer.parameters = found
        layer.nodes.append(reader)
        layer.output = reader.output[0]


def _residual(graph: Graph, layer: Layer, reader: onnx.NodeProto | None) -> onnx.NodeProto | None:
    """Take a residual Add in, and return the next reader."""
    if reader is None or reader.op_type != "Add" or list(reader.input).count(layer.output) != 1:
        return reader
    other = reader.input[1] if reader.input[0] == layer.output else reader.input[0]
    shape = graph.shapes.get(layer.output)
    # The operator does not broadcast, so shapes must be known to be equal; a name stands for one number everywhere.
    if not shape or None in shape or graph.shapes.get(other) != shape or graph.is_constant(other):
        return reader
    producer = graph.producer(other)
    # Where both sides are layers, the later one takes the Add: its own result is still in the cache.
    if producer is not None and graph.position[id(producer)] > graph.position[id(layer.nodes[0])]:
        return reader
    layer.residual = other
    layer.nodes.append(reader)
    layer.output = reader.output[0]
    return graph.only_reader(layer.output)


def _activation(graph: Graph, node: onnx.NodeProto) -> tuple[str, list[float]] | None:
    if node.op_type in ("Relu", "HardSwish"):
        return node.op_type, []
    if node.op_type == "Clip":
        bounds = _clip_bounds(graph, node)
        return None if bounds is None else ("Clip", bounds)
    if node.op_type == "LeakyRelu":
        return "LeakyRelu", [float(attribute(node, "alpha", 0.01))]  # type: ignore[arg-type]  # typed by its name
    if node.op_type == "Gelu":
        return "GeluTanh" if attribute(node, "approximate", b"none") == b"tanh" else "Gelu", []
    return None


def _clip_bounds(graph: Graph, node: onnx.NodeProto) -> list[float] | None:
    """Return the constant bounds of a Clip; before opset 11 they are attributes."""
    bounds = [
        float(attribute(node, "min", -math.inf)),  # type: ignore[arg-type]  # typed by its name
        float(attribute(node, "max", math.inf)),  # type: ignore[arg-type]  # as above
    ]
    for place, name in enumerate(node.input[1:3]):
        if name:
            value = graph.array(name)
            if value is None or value.size != 1:
                return None
            bounds[place] = float(value.reshape(()))
    return bounds
