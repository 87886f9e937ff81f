"""What a layer computes, in the terms that cost tables use."""

from __future__ import annotations

import onnx

from ...models.layer_costs import LayerShape
from .graph import Graph, attribute
from .match import Layer


def layer_shape(graph: Graph, layer: Layer, batch: int) -> LayerShape | None:
    """Return the dense form of a layer.

    Args:
        graph: that the layer is of.
        layer: as matched.
        batch: the first extent of activations where the graph leaves it open.

    Returns:
        None where the graph does not tell the other extents.
    """
    node = layer.nodes[0]
    first, *rest = graph.shapes.get(layer.data) or [None]
    extents = [extent for extent in rest if isinstance(extent, int)]
    if not rest or len(extents) != len(rest):
        return None
    shape = (first if isinstance(first, int) else batch, *extents)
    # An empty tensor costs nothing in either form, and a graph that contradicts itself is not worth a guess.
    inputs = shape[-2 if layer.left else -1]
    if 0 in shape or (len(shape) != layer.weight.ndim if layer.convolution else inputs not in layer.weight.shape):
        return None
    if not layer.convolution:
        return LayerShape(node.op_type, shape, layer.weight.shape, transposed=layer.transposed, left=layer.left)
    return _convolution(node, shape, layer)


def _convolution(node: onnx.NodeProto, shape: tuple[int, ...], layer: Layer) -> LayerShape | None:
    def numbers(name: str) -> tuple[int, ...]:
        return tuple(attribute(node, name, ()))  # type: ignore[arg-type]  # typed by its name

    found = LayerShape(
        "Conv",
        shape,
        layer.weight.shape,
        strides=numbers("strides"),
        pads=layer.pads,
        dilations=numbers("dilations"),
        group=int(attribute(node, "group", 1)),  # type: ignore[call-overload]  # typed by its name
    )
    return found if found.positions > 0 else None
