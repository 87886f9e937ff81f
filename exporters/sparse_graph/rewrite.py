"""The rewrite itself: each chosen layer, with what was fused into it, becomes one node of ours.

Guaranteed: no weight is changed. A layer's weight lies in the new graph as gaps and values, its bias and the constants
of its normalisation as they were, under their own names; the operator folds the normalisation when the session loads.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import onnx
from onnx import helper, numpy_helper

from ...files import Array
from .by_feature import hand_on_by_feature
from .choose import LayerChoice, Measure, choose
from .cost_model import CostModel
from .fuse import fuse
from .gaps import nonzero_bits, pack
from .graph import Graph, attribute
from .match import Layer, match

DOMAIN = "sparsepack"
VERSION = 1
GAPS, VALUES = ":gaps", ":values"


@dataclass(frozen=True)
class Rewritten:
    """What a rewrite gives.

    Attributes:
        model: the new model.
        choices: one for each layer with constant weights, in graph order.
        errors: the largest rounding error of each weight that now runs sparse, by name; 0.0 in float32.
    """

    model: onnx.ModelProto
    choices: list[LayerChoice]
    errors: dict[str, float]


def rewrite(
    model: onnx.ModelProto,
    *,
    values: str = "fp32",
    costs: CostModel | None = None,
    measure: Measure | None = None,
    batch: int = 1,
) -> Rewritten:
    """Return a model whose sparse layers run on the native operators.

    Args:
        model: complete, below 2 GB; left as it was.
        values: how the weights of sparse layers are stored, ``fp32`` or ``fp16``.
        costs: the model that predicts what is not measured; by default the rates of the reference machine.
        measure: returns measured costs of the layers it is asked for; without it everything is predicted.
        batch: examples a run that the choice is for, where the graph leaves them open.

    Raises:
        UnsupportedError: a weight is too large for half precision.
    """
    graph = Graph(model)
    layers = [layer for node in graph.live() if (layer := match(graph, node)) is not None]
    choices = choose(graph, layers, costs or CostModel(), measure, batch)
    errors: dict[str, float] = {}
    constants: list[onnx.TensorProto] = []
    for layer, choice in zip(layers, choices, strict=True):
        if not choice.sparse:
            continue
        fuse(graph, layer)
        packed, error = _pack(layer, values)
        constants += packed
        errors[layer.weight_name] = error
        graph.replace(layer.nodes, _node(graph, layer))
    constants += hand_on_by_feature(graph, DOMAIN)
    return Rewritten(_rebuild(model, graph, constants), choices, errors)


def _pack(layer: Layer, values: str) -> tuple[list[onnx.TensorProto], float]:
    from ..parts import half

    mask = nonzero_bits(layer.weight)
    kept: Array = layer.weight[mask]
    error = 0.0
    if values == "fp16":
        kept, error = half(layer.weight_name, kept)
    name = layer.weight_name
    return [numpy_helper.from_array(pack(mask), name + GAPS), numpy_helper.from_array(kept, name + VALUES)], error


def _node(graph: Graph, layer: Layer) -> onnx.NodeProto:
    first = layer.nodes[0]
    name = layer.weight_name
    inputs = [layer.data, name + GAPS, name + VALUES, layer.bias, layer.residual, *layer.normalisation]
    while not inputs[-1]:
        inputs.pop()
    attributes: dict[str, Any] = {"shape": list(layer.weight.shape)}
    if layer.convolution:
        for key in ("strides", "dilations", "group"):
            found = attribute(first, key, None)
            if found is not None:
                attributes[key] = found
        if layer.pads:
            attributes["pads"] = list(layer.pads)
        size = (graph.shapes.get(layer.data) or [])[2:]
        if len(size) == layer.weight.ndim - 2 and all(isinstance(extent, int) and extent > 0 for extent in size):
            attributes["input_size"] = size
        if layer.normalisation:
            attributes["epsilon"] = layer.epsilon
    elif layer.left:
        attributes["left"] = 1
        if not layer.transposed:
            attributes["transA"] = 1
        columns = (graph.shapes.get(layer.data) or [None])[-1]
        if isinstance(columns, int) and columns > 0:
            attributes["input_size"] = [columns]
    elif layer.transposed:
        attributes["transB"] = 1
    if layer.activation:
        attributes["activation"] = layer.activation
    if layer.parameters:
        attributes["activation_params"] = layer.parameters
    operator = "SparseConv" if layer.convolution else "SparseMatMul"
    node: onnx.NodeProto = helper.make_node(
        operator, inputs, [layer.output], name=first.name, domain=DOMAIN, **attributes
    )
    return node


def _rebuild(model: onnx.ModelProto, graph: Graph, constants: list[onnx.TensorProto]) -> onnx.ModelProto:
    packed = {tensor.name.removesuffix(GAPS) for tensor in constants}
    shapes = {node.input[1] for node in graph.nodes if id(node) in graph.dead and node.op_type == "Reshape"}
    result = _without_constants(model, packed | {name for name in shapes if graph.unread(name)})
    # A Constant node whose weight was packed has no reader left.
    kept = [node for node in graph.live() if not (node.op_type == "Constant" and node.output[0] in packed)]
    result.graph.node.extend(kept)
    result.graph.initializer.extend(constants)
    result.opset_import.append(helper.make_opsetid(DOMAIN, VERSION))
    _forget_removed_values(result.graph)
    return result


def _without_constants(model: onnx.ModelProto, names: set[str]) -> onnx.ModelProto:
    """Return a copy without nodes and without these initializers."""
    copy = onnx.ModelProto()
    copy.CopyFrom(model)
    del copy.graph.node[:]
    kept = [onnx.TensorProto.FromString(t.SerializeToString()) for t in copy.graph.initializer if t.name not in names]
    del copy.graph.initializer[:]
    copy.graph.initializer.extend(kept)
    return copy


def _forget_removed_values(graph: onnx.GraphProto) -> None:
    """Drop shapes of values that are no longer computed."""
    computed = {name for node in graph.node for name in node.output}
    known = [onnx.ValueInfoProto.FromString(v.SerializeToString()) for v in graph.value_info if v.name in computed]
    del graph.value_info[:]
    graph.value_info.extend(known)
