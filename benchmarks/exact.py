"""A graph evaluated in double precision, so that a difference that is not rounding shows."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import torch
from onnx import TensorProto, numpy_helper
from onnx.reference import ReferenceEvaluator
from onnx.reference.op_run import OpRun

Array = npt.NDArray[Any]


class Conv(OpRun):
    """The reference evaluator's own convolution takes minutes for a ResNet-50."""

    def _run(self, x: Array, w: Array, b: Array | None = None, **attributes: Any) -> tuple[Array]:
        rank = x.ndim - 2
        pads = list(attributes.get("pads") or [0] * 2 * rank)
        assert (attributes.get("auto_pad") or "NOTSET") == "NOTSET" and pads[:rank] == pads[rank:]
        convolve = (torch.conv1d, torch.conv2d, torch.conv3d)[rank - 1]
        result = convolve(
            torch.from_numpy(np.ascontiguousarray(x)),
            torch.from_numpy(np.array(w)),
            None if b is None else torch.from_numpy(np.array(b)),
            list(attributes.get("strides") or [1] * rank),
            pads[:rank],
            list(attributes.get("dilations") or [1] * rank),
            attributes.get("group") or 1,
        )
        return (result.numpy(),)


class MaxPool(OpRun):
    """As :class:`Conv`."""

    def _run(self, x: Array, **attributes: Any) -> tuple[Array]:
        pads = list(attributes.get("pads") or [0, 0, 0, 0])
        result = torch.max_pool2d(
            torch.from_numpy(np.ascontiguousarray(x)),
            list(attributes["kernel_shape"]),
            list(attributes.get("strides") or [1, 1]),
            pads[:2],
        )
        return (result.numpy(),)


def in_double(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return a copy with every float32 as float64: constants, inputs, outputs and casts."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    for tensor in twin.graph.initializer:
        if tensor.data_type == TensorProto.FLOAT:
            wide = numpy_helper.to_array(tensor).astype(np.float64)
            tensor.CopyFrom(numpy_helper.from_array(wide, tensor.name))
    for value in (*twin.graph.input, *twin.graph.output):
        if value.type.tensor_type.elem_type == TensorProto.FLOAT:
            value.type.tensor_type.elem_type = TensorProto.DOUBLE
    for node in twin.graph.node:
        for attribute in node.attribute:
            if node.op_type == "Cast" and attribute.name == "to" and attribute.i == TensorProto.FLOAT:
                attribute.i = TensorProto.DOUBLE
            if attribute.type == onnx.AttributeProto.TENSOR and attribute.t.data_type == TensorProto.FLOAT:
                wide = numpy_helper.to_array(attribute.t).astype(np.float64)
                attribute.t.CopyFrom(numpy_helper.from_array(wide))
    del twin.graph.value_info[:]
    return twin


def run_in_double(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Evaluate a graph in double precision."""
    wide = {name: x.astype(np.float64) if x.dtype == np.float32 else x for name, x in feeds.items()}
    return [np.asarray(v) for v in ReferenceEvaluator(in_double(model), new_ops=[Conv, MaxPool]).run(None, wide)]
