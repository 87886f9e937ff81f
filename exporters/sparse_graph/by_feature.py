"""Handing activations on with the tokens of a feature side by side.

That is how the products of sparse weights compute, so that between two of them, and between them and the scaled
products of an attention, activations need not be turned round twice. Transposes of the last two dimensions that are
written here become part of ONNX Runtime's own products (its FusedMatMul).
"""

from __future__ import annotations

import numpy as np
import onnx
from onnx import helper, numpy_helper

from .graph import Graph, attribute

# Fewer tokens in an example would leave too much of the kernels' tiles empty.
_FEWEST_TOKENS = 32
_HEADS_FIRST, _TURNED, _HEADS_TURNED = [0, 2, 1, 3], [0, 1, 3, 2], [0, 2, 3, 1]
_SUFFIX = ":by_feature"


def hand_on_by_feature(graph: Graph, domain: str) -> list[onnx.TensorProto]:
    """Rewrite in place what lies between sparse products; return the constants that this takes."""
    constants: list[onnx.TensorProto] = []
    for node in graph.live():
        if _is_product(node, domain) and not (len(node.input) > 4 and node.input[4]):
            _to_product(graph, node, domain)
            _to_heads(graph, node, constants)
    for node in graph.live():
        if node.op_type == "MatMul":
            _from_heads(graph, node, domain, constants)
    return constants


def _is_product(node: onnx.NodeProto | None, domain: str) -> bool:
    """Tell whether it is a sparse product with its weight on the right."""
    return node is not None and node.op_type == "SparseMatMul" and node.domain == domain and not _flag(node, "left")


def _flag(node: onnx.NodeProto, name: str) -> bool:
    return bool(attribute(node, name, 0))


def _to_product(graph: Graph, node: onnx.NodeProto, domain: str) -> None:
    """Let a product hand its output to the one that alone reads it."""
    output = node.output[0]
    reader = graph.only_reader(output)
    shape = graph.shapes.get(output, [])
    # Matrices are whole batches; of examples, each is cut into tiles of its own.
    tokens = _FEWEST_TOKENS if len(shape) == 2 else shape[-2] if len(shape) > 2 else None
    if reader is None or not _is_product(reader, domain) or reader.input[0] != output:
        return
    if isinstance(tokens, int) and tokens >= _FEWEST_TOKENS:
        _change(graph, node, output=_turn_output(node))
        _change(graph, reader, data=output + _SUFFIX)


def _to_heads(graph: Graph, node: onnx.NodeProto, constants: list[onnx.TensorProto]) -> None:
    """Let a product hand its output, cut into heads, to a product of the attention."""
    split = graph.only_reader(node.output[0])
    moved = None if split is None or split.op_type != "Reshape" else graph.only_reader(split.output[0])
    if split is None or moved is None or moved.op_type != "Transpose":
        return
    # All but the first extents are known, so that the first ones are equal as well.
    given, heads = _rest(graph, node.output[0], 3), _rest(graph, split.output[0], 4)
    if not heads:
        return
    tokens, count, size = heads
    if given != [tokens, count * size] or tokens < _FEWEST_TOKENS:
        return
    permutation = attribute(moved, "perm", None)
    target = graph.only_reader(moved.output[0])
    if permutation == _HEADS_TURNED:
        last, turned = moved, True
    elif permutation == _HEADS_FIRST and target is not None and target.op_type == "Transpose":
        last, turned = target, True
        if attribute(target, "perm", None) != _TURNED:
            return
    elif permutation == _HEADS_FIRST and target is not None and target.op_type == "MatMul":
        last, turned = moved, False
    else:
        return
    data = _turn_output(node)
    output = last.output[0] if turned else last.output[0] + _SUFFIX
    new = _reshape(data, [0, count, size, tokens], split, output, constants)
    _change(graph, node, output=data)
    graph.replace([split], new)
    graph.forget(split.input[1])
    if not turned:
        graph.replace([moved], _transpose(new.output[0], moved, moved.output[0]))
    elif last is target:
        graph.remove([moved, last])
    else:
        graph.remove([moved])


def _from_heads(graph: Graph, node: onnx.NodeProto, domain: str, constants: list[onnx.TensorProto]) -> None:
    """Let the last product of an attention, of probabilities and values, hand its output on by feature."""
    probabilities, values = node.input
    turn, moved = graph.producer(values), graph.only_reader(node.output[0])
    if graph.only_reader(probabilities) is not node or graph.only_reader(values) is not node:
        return
    if turn is None or turn.op_type != "Transpose" or not turn.input[0].endswith(_SUFFIX):
        return
    if moved is None or moved.op_type != "Transpose" or attribute(moved, "perm", None) != _HEADS_FIRST:
        return
    joined = graph.only_reader(moved.output[0])
    reader = None if joined is None or joined.op_type != "Reshape" else graph.only_reader(joined.output[0])
    if joined is None or reader is None or not _is_product(reader, domain) or reader.input[0] != joined.output[0]:
        return
    heads, given = _rest(graph, moved.output[0], 4), _rest(graph, joined.output[0], 3)
    if not heads or given != [heads[0], heads[1] * heads[2]]:
        return
    tokens, features = given
    turned = _transpose(probabilities, node, probabilities + _SUFFIX)
    product = helper.make_node("MatMul", [turn.input[0], turned.output[0]], [node.output[0] + _SUFFIX], name=node.name)
    data = joined.output[0] + _SUFFIX
    graph.remove([moved, turn])
    graph.replace([node], turned, product)
    graph.replace([joined], _reshape(product.output[0], [0, features, tokens], joined, data, constants))
    graph.forget(joined.input[1])
    _change(graph, reader, data=data)


def _rest(graph: Graph, name: str, rank: int) -> list[int]:
    """Return all extents of a value but the first; empty where they are not known, or more or fewer."""
    shape = graph.shapes.get(name, [])
    rest = [extent for extent in shape[1:] if isinstance(extent, int) and extent > 0]
    return rest if len(shape) == rank == len(rest) + 1 else []


def _turn_output(node: onnx.NodeProto) -> str:
    # A name of its own: what the model says of the shape of the old one no longer holds.
    return str(node.output[0]) + _SUFFIX


def _change(graph: Graph, node: onnx.NodeProto, *, data: str = "", output: str = "") -> None:
    """Let a product read or write by feature."""
    inputs, outputs = list(node.input), list(node.output)
    if data:
        inputs[0] = data
        node.attribute.append(helper.make_attribute("transA", 1))
    if output:
        outputs[0] = output
        node.attribute.append(helper.make_attribute("transY", 1))
    del node.input[:], node.output[:]
    node.input.extend(inputs)
    node.output.extend(outputs)
    graph.index()


def _reshape(
    data: str, shape: list[int], old: onnx.NodeProto, output: str, constants: list[onnx.TensorProto]
) -> onnx.NodeProto:
    constants.append(numpy_helper.from_array(np.array(shape, np.int64), output + ":shape"))
    node: onnx.NodeProto = helper.make_node("Reshape", [data, constants[-1].name], [output], name=old.name)
    return node


def _transpose(data: str, old: onnx.NodeProto, output: str) -> onnx.NodeProto:
    name = old.name and old.name + _SUFFIX
    node: onnx.NodeProto = helper.make_node("Transpose", [data], [output], name=name, perm=_TURNED)
    return node
