"""Finding layers with constant weights: Conv with its BatchNormalization, Gemm, MatMul with its bias Add.

The weight of a Gemm or MatMul may stand on either side. A weight may be read through a Transpose, as linear layers of
PyTorch are lowered; the operators take either orientation, so that the file keeps the weight as the checkpoint has it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field

import onnx

from ...files import Array
from .graph import Graph, attribute

# The operator tells the entries of a kernel apart by 16 bits.
MOST_TAPS = 2**16 - 1


@dataclass
class Layer:
    """One layer and the nodes that it takes the place of.

    Attributes:
        nodes: those nodes; the first is the Conv, Gemm or MatMul.
        weight_name: the constant's name.
        weight: its values, as stored.
        transposed: whether a linear weight is stored as [outputs, inputs].
        left: whether a linear weight stands on the left of its activations.
        bias: the bias constant's name, or "".
        normalisation: names of scale, shift, mean and variance; empty without one.
        epsilon: of the normalisation.
        output: the value that the layer computes.
        residual: the value that is added before the activation, or "".
        activation: the operators' name for it, or "".
        parameters: of the activation.
        pads: of a convolution, begins, then ends; empty for none.
    """

    nodes: list[onnx.NodeProto]
    weight_name: str
    weight: Array
    transposed: bool
    bias: str
    output: str
    normalisation: list[str] = field(default_factory=list)
    epsilon: float = 1e-5
    residual: str = ""
    activation: str = ""
    parameters: list[float] = field(default_factory=list)
    pads: tuple[int, ...] = ()
    left: bool = False

    @property
    def data(self) -> str:
        """The name of the activations."""
        return str(self.nodes[0].input[1 if self.left else 0])

    @property
    def convolution(self) -> bool:
        """Whether it is a convolution."""
        return bool(self.nodes[0].op_type == "Conv")


def match(graph: Graph, node: onnx.NodeProto) -> Layer | None:
    """Return the layer that begins at a node; None when it is none, or nothing that the operators compute."""
    if node.domain not in ("", "ai.onnx") or len(node.input) < 2 or node.op_type not in ("Conv", "Gemm", "MatMul"):
        return None
    found = _weight(graph, node, 1)
    if found is None and node.op_type != "Conv":
        found = _weight(graph, node, 0)
        return None if found is None else _left(graph, node, *found)
    if found is None:
        return None
    name, weight, flipped, extra = found
    if node.op_type == "Conv":
        return None if flipped else _convolution(graph, node, name, weight)
    return _linear(graph, node, name, weight, flipped, extra)


def _weight(graph: Graph, node: onnx.NodeProto, place: int) -> tuple[str, Array, bool, list[onnx.NodeProto]] | None:
    """Return name and values of the weight, whether it is read transposed, and the Transpose that does it."""
    name, flipped, extra = node.input[place], False, []
    producer = graph.producer(name)
    if producer is not None and producer.op_type == "Transpose" and graph.only_reader(name) is not None:
        if list(attribute(producer, "perm", [1, 0])) != [1, 0]:  # type: ignore[call-overload]  # typed by its name
            return None
        name, flipped, extra = producer.input[0], True, [producer]
    # A tied weight that something else reads as well would lie in the file twice.
    weight = graph.array(name)
    if weight is None or weight.dtype.name != "float32" or graph.only_reader(name) is None:
        return None
    return name, weight, flipped, extra


def _convolution(graph: Graph, node: onnx.NodeProto, name: str, weight: Array) -> Layer | None:
    if weight.ndim not in (3, 4) or 0 in weight.shape or math.prod(weight.shape[2:]) > MOST_TAPS:
        return None
    pads = _pads(graph, node, weight.shape[2:])
    if pads is None:
        return None
    bias = node.input[2] if len(node.input) > 2 else ""
    if bias and not graph.float_constant(bias, weight.shape[:1]):
        return None
    layer = Layer([node], name, weight, False, bias, node.output[0], pads=pads)
    reader = graph.only_reader(node.output[0])
    if reader is not None and reader.op_type == "BatchNormalization" and reader.input[0] == layer.output:
        constants = list(reader.input[1:5])
        inference = not attribute(reader, "training_mode", 0) and len(reader.output) == 1
        if inference and all(graph.float_constant(constant, weight.shape[:1]) for constant in constants):
            layer.nodes.append(reader)
            layer.output = reader.output[0]
            layer.normalisation = constants
            layer.epsilon = float(attribute(reader, "epsilon", 1e-5))  # type: ignore[arg-type]  # typed by its name
    return layer


def _pads(graph: Graph, node: onnx.NodeProto, kernel: tuple[int, ...]) -> tuple[int, ...] | None:
    """Return a Conv's padding, also where it is only named; None where that depends on an input size nobody knows."""
    named = attribute(node, "auto_pad", b"NOTSET")
    if named == b"NOTSET":
        return tuple(attribute(node, "pads", ()))  # type: ignore[arg-type]  # typed by its name
    if named == b"VALID":
        return ()
    sizes = (graph.shapes.get(node.input[0]) or [])[2:]
    ones = (1,) * len(kernel)
    strides: tuple[int, ...] = tuple(attribute(node, "strides", ones))  # type: ignore[arg-type]  # typed by its name
    dilations: tuple[int, ...] = tuple(attribute(node, "dilations", ones))  # type: ignore[arg-type]
    if len(sizes) != len(kernel) or named not in (b"SAME_UPPER", b"SAME_LOWER"):
        return None
    begins, ends = [], []
    for size, extent, stride, dilation in zip(sizes, kernel, strides, dilations, strict=True):
        if not isinstance(size, int):
            return None
        total = max((-(-size // stride) - 1) * stride + dilation * (extent - 1) + 1 - size, 0)
        # An odd row goes to the end for SAME_UPPER, to the beginning for SAME_LOWER.
        begin = total // 2 if named == b"SAME_UPPER" else total - total // 2
        begins.append(begin)
        ends.append(total - begin)
    return (*begins, *ends)


def _linear(
    graph: Graph, node: onnx.NodeProto, name: str, weight: Array, flipped: bool, extra: list[onnx.NodeProto]
) -> Layer | None:
    if weight.ndim != 2 or 0 in weight.shape:
        return None
    transposed, bias = flipped, ""
    if node.op_type == "Gemm":
        if not _plain(node) or attribute(node, "transA", 0):
            return None
        transposed = flipped != bool(attribute(node, "transB", 0))
        bias = node.input[2] if len(node.input) > 2 else ""
    outputs = (weight.shape[0 if transposed else 1],)
    if bias and not graph.float_constant(bias, outputs):
        return None
    layer = Layer([node, *extra], name, weight, transposed, bias, node.output[0])
    _take_bias(graph, layer, outputs)
    return layer


def _left(
    graph: Graph, node: onnx.NodeProto, name: str, weight: Array, flipped: bool, extra: list[onnx.NodeProto]
) -> Layer | None:
    """Return the layer of a weight on the left; activations transposed on the way in stay with ONNX Runtime."""
    # A vector on the right would be a product of another rank.
    if weight.ndim != 2 or 0 in weight.shape or len(graph.shapes.get(node.input[1], ())) < 2:
        return None
    transposed, bias = not flipped, ""
    if node.op_type == "Gemm":
        if not _plain(node) or attribute(node, "transB", 0):
            return None
        transposed = flipped == bool(attribute(node, "transA", 0))
        bias = node.input[2] if len(node.input) > 2 else ""
    outputs = (weight.shape[0 if transposed else 1], 1)
    if bias and not graph.float_constant(bias, outputs):
        return None
    layer = Layer([node, *extra], name, weight, transposed, bias, node.output[0], left=True)
    _take_bias(graph, layer, outputs)
    return layer


def _plain(node: onnx.NodeProto) -> bool:
    return attribute(node, "alpha", 1.0) == 1.0 and attribute(node, "beta", 1.0) == 1.0


def _take_bias(graph: Graph, layer: Layer, shape: tuple[int, ...]) -> None:
    """Take the Add of a constant of this shape behind a MatMul in."""
    reader = graph.only_reader(layer.output)
    if layer.nodes[0].op_type == "MatMul" and reader is not None and reader.op_type == "Add":
        other = reader.input[1] if reader.input[0] == layer.output else reader.input[0]
        if graph.float_constant(other, shape):
            layer.nodes.append(reader)
            layer.bias, layer.output = other, reader.output[0]
