"""Write the constant contribution of removed inputs into the bias of the layer that read them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import onnx
from onnx import numpy_helper

from ..models.graph.dead import Liveness, contribution, foldable, matrix
from ..models.graph.dimensions import Dimensions
from ..models.graph.effects import Contraction, Values
from ..models.graph.trace import Node
from ..models.graph.weights import Weights
from .slim_cut import Cut
from .slim_fixes import set_attribute


@dataclass(frozen=True)
class Shift:
    """A constant to add to a layer's output.

    Attributes:
        node: index of the layer's operator.
        values: one number an output channel, before the cut.
        error: an upper bound of the error at the layer's output, along its borders (0 where the fold is exact).
    """

    node: int
    values: Values
    error: float


def shifts(cut: Cut, liveness: Liveness, weights: Weights, approximate: bool) -> list[Shift]:
    """Return the constants that removed inputs contributed, before anything is cut."""
    found = []
    units = cut.dimensions.units
    gone = np.zeros(units.size, np.bool_)
    gone[list(cut.removed)] = True
    for effect in cut.dimensions.effects:
        if not isinstance(effect, Contraction):
            continue
        taken = gone[units[effect.inputs]] & foldable(effect, liveness.values, approximate)
        constants = np.where(taken, liveness.values[effect.inputs], 0.0)
        array = matrix(effect, weights) if constants.any() else None
        if array is None:
            continue
        shift = effect.scale * contribution(array, constants).reshape(-1)
        bound = 0.0
        if effect.borders:
            bound = float(np.einsum("goit,gi->go", np.abs(array), np.abs(constants)).max())
        found.append(Shift(effect.node, shift, bound))
    return found


def apply_shifts(cut: Cut, found: list[Shift]) -> None:
    """Add the constants to the layers' biases; the initializers are cut already.

    A MatMul, which has no bias, gets an addition after it, and so does a layer whose bias is computed or comes in.
    """
    protos = list(cut.model.graph.node)
    tensors = {tensor.name: tensor for tensor in cut.model.graph.initializer}
    for shift in found:
        node, proto = cut.dimensions.nodes[shift.node], protos[shift.node]
        output = node.outputs[0]
        axis = 1 if node.op in ("Conv", "ConvTranspose") else len(cut.dimensions.shapes.extents[output]) - 1
        flags = cut.keep(output, axis)
        values = shift.values if flags is None else shift.values[flags]
        if not values.any():
            continue
        kind = onnx.helper.tensor_dtype_to_np_dtype(tensors[source(cut.dimensions, node.inputs[1])].data_type)
        convolution = node.op in ("Conv", "ConvTranspose")
        if convolution and (not node.input(2) or node.input(2) in tensors):
            bias = numpy_helper.to_array(tensors[node.input(2)]) if node.input(2) else np.zeros(values.size, kind)
            name = cut.add((bias.astype(np.float64) + values).astype(kind), node.input(2) or f"{node.inputs[1]}.bias")
            del proto.input[2:]
            proto.input.append(name)
            continue
        if node.op == "Gemm" and _into_bias(cut, node, proto, tensors, values, kind):
            continue
        if convolution:
            # Channels come before the places.
            values = values.reshape(-1, *[1] * (len(cut.dimensions.shapes.extents[output]) - 2))
        inner = f"{output}.unshifted"
        proto.output[0] = inner
        addition = onnx.helper.make_node("Add", [inner, cut.add(values.astype(kind), f"{output}.shift")], [output])
        cut.model.graph.node.append(addition)


def _into_bias(
    cut: Cut,
    node: Node,
    proto: onnx.NodeProto,
    tensors: Mapping[str, onnx.TensorProto],
    values: Values,
    kind: np.dtype[Any],
) -> bool:
    """Put the constants into a Gemm's own bias; return False where that is not one number an output."""
    beta = float(node.attributes.get("beta", 1.0))
    bias = np.zeros(values.size, np.float64)
    if node.input(2):
        if node.inputs[2] not in tensors or beta == 0:
            return False
        bias = numpy_helper.to_array(tensors[node.inputs[2]]).astype(np.float64)
        if bias.shape not in ((values.size,), (1, values.size)):
            return False
    else:
        beta = 1.0
        set_attribute(proto, "beta", None)
    name = cut.add((bias + values / beta).astype(kind), node.input(2) or f"{node.inputs[1]}.bias")
    del proto.input[2:]
    proto.input.append(name)
    return True


def source(dimensions: Dimensions, name: str) -> str:
    """Return the initializer that a moved weight comes from."""
    producers = {output: node for node in dimensions.nodes for output in node.outputs}
    while name in producers:
        name = producers[name].inputs[0]
    return name
