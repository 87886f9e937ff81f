"""What an ONNX graph says about its own inputs and outputs."""

from __future__ import annotations

import onnx

from .onnx_file import OnnxFile
from .source import InputSpec


def input_specs(file: OnnxFile) -> list[InputSpec]:
    """Return the inputs that a caller has to give (tensors that are no initializers), without their first axis."""
    constants = set(file.constants)
    specs = []
    for value in file.inputs:
        if value.name in constants or not value.type.HasField("tensor_type"):
            continue
        tensor = value.type.tensor_type
        shape = tuple(d.dim_value if d.dim_value > 0 else -1 for d in tensor.shape.dim)
        specs.append(InputSpec(value.name, shape[1:], _dtype_name(tensor.elem_type)))
    return specs


def output_width(file: OnnxFile) -> int | None:
    """Return the fixed second extent of the first output when it is a matrix [N, width]; None otherwise."""
    for value in file.outputs[:1]:
        dims = value.type.tensor_type.shape.dim
        if len(dims) == 2 and dims[1].dim_value > 0:
            return int(dims[1].dim_value)
    return None


def _dtype_name(element: int) -> str:
    """Return numpy's name of an element type; ONNX's own, in lower case, where numpy has none (``string``)."""
    if element not in onnx.TensorProto.DataType.values():
        return "undefined"
    if element in (onnx.TensorProto.UNDEFINED, onnx.TensorProto.STRING):
        return str(onnx.TensorProto.DataType.Name(element)).lower()
    return str(onnx.helper.tensor_dtype_to_np_dtype(element).name)
