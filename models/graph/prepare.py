"""Bring a graph into the form that the analysis reads: no local functions, constants as initializers."""

from __future__ import annotations

from pathlib import Path

import onnx
import onnx.inliner
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import numpy_helper

from ...errors import FileFormatError


def read_graph(path: Path) -> onnx.ModelProto:
    """Read an ONNX file and prepare it.

    Raises:
        FileFormatError: it is no ONNX file, or its external data is missing.
    """
    try:
        model = onnx.load(path)
    except (OSError, ValueError, onnx.checker.ValidationError, DecodeError) as error:
        raise FileFormatError(f"{path} cannot be read as an ONNX file: {str(error).splitlines()[0]}") from error
    if not model.graph.node:
        raise FileFormatError(f"{path} cannot be read as an ONNX file: it holds no operators.")
    return prepared(model)


def prepared(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return ``model`` without local functions and Constant nodes; the argument may share memory with the result."""
    if model.functions:
        model = onnx.inliner.inline_local_functions(model)
    kept = []
    for node in model.graph.node:
        value = _constant(node)
        if value is None:
            kept.append(node)
        else:
            model.graph.initializer.append(value)
    if len(kept) != len(model.graph.node):
        copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del model.graph.node[:]
        model.graph.node.extend(copies)
    return model


def _constant(node: onnx.NodeProto) -> onnx.TensorProto | None:
    if node.op_type != "Constant" or node.domain not in ("", "ai.onnx"):
        return None
    (attribute,) = node.attribute
    value = onnx.helper.get_attribute_value(attribute)
    if attribute.name == "value":
        tensor = onnx.TensorProto()
        tensor.CopyFrom(value)
    elif attribute.name.startswith(("value_float", "value_int")):
        kind = onnx.TensorProto.FLOAT if "float" in attribute.name else onnx.TensorProto.INT64
        many = attribute.name.endswith("s")
        tensor = onnx.helper.make_tensor("", kind, [len(value)] if many else [], value if many else [value])
        tensor = numpy_helper.from_array(numpy_helper.to_array(tensor))
    else:
        return None
    tensor.name = node.output[0]
    return tensor
