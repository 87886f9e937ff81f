"""What unpacking asks of a model and does to it: its opset, the names it uses, nodes put before its own."""

from __future__ import annotations

import onnx

from ...errors import UnsupportedError
from ..onnx_model import replace_nodes
from .emitter import Emitter


def standard_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name that the graph, or a graph inside it, gives to a value."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update(node.output)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                names |= value_names(body)
    return names


def insert(graph: onnx.GraphProto, emitter: Emitter, replaced: set[str]) -> None:
    """Put the emitter's nodes before the graph's own, and its initializers in place of ``replaced``."""
    replace_nodes(graph, [*emitter.nodes, *graph.node])
    graph.value_info.extend(emitter.declared)
    # What stays is not moved: a tensor above 2 GB cannot be copied.
    for place in reversed(range(len(graph.initializer))):
        if graph.initializer[place].name in replaced:
            del graph.initializer[place]
    graph.initializer.extend(emitter.initializers)
    # Before IR version 4 every initializer had to be listed as an input as well.
    inputs = [value for value in graph.input if value.name not in replaced]
    if len(inputs) != len(graph.input):
        listed = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(listed)


def require_opset(model: onnx.ModelProto, least: int) -> int:
    """Return the model's opset.

    Raises:
        UnsupportedError: it is older than ``least``.
    """
    opset = standard_opset(model)
    if opset < least:
        raise UnsupportedError(
            f"the ONNX model uses opset {opset}; a graph that unpacks itself needs opset {least} or later. Export the "
            "original network again with a newer opset, or export to 'onnx'."
        )
    return opset
