"""Small ONNX graphs built by hand, and the comparison of two graphs, for the tests of slimming."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
import onnxruntime
from onnx import TensorProto, helper, numpy_helper

Array = npt.NDArray[Any]


class Graph:
    """A graph under construction; every method adds an operator and returns its output's name."""

    def __init__(self, seed: int = 0, opset: int = 20) -> None:
        """Start an empty graph."""
        self.random = np.random.default_rng(seed)
        self.opset = opset
        self.nodes: list[onnx.NodeProto] = []
        self.tensors: dict[str, Array] = {}

    def weight(self, name: str, *shape: int, scale: float = 1.0) -> str:
        """Add a random weight."""
        return self.constant(name, (self.random.standard_normal(shape) * scale).astype(np.float32))

    def constant(self, name: str, array: Array) -> str:
        """Add a given initializer."""
        self.tensors[name] = array
        return name

    def add(self, op: str, *inputs: str, name: str = "", outputs: int = 1, **attributes: Any) -> Any:
        """Add an operator."""
        name = name or f"{op.lower()}{len(self.nodes)}"
        names = [name] if outputs == 1 else [f"{name}.{k}" for k in range(outputs)]
        self.nodes.append(helper.make_node(op, list(inputs), names, name, **attributes))
        return names[0] if outputs == 1 else names

    def model(
        self, inputs: Mapping[str, Sequence[int | str]], outputs: Sequence[str], shape: Sequence[int] | None = None
    ) -> onnx.ModelProto:
        """Return the finished model; the outputs' shape is inferred unless it is given."""
        graph = helper.make_graph(
            self.nodes,
            "test",
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name, shape in inputs.items()],
            [helper.make_tensor_value_info(name, TensorProto.FLOAT, shape) for name in outputs],
            [numpy_helper.from_array(array, name) for name, array in self.tensors.items()],
        )
        model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", self.opset)], ir_version=10)
        inferred = onnx.shape_inference.infer_shapes(model)
        del inferred.graph.value_info[:]
        finished: onnx.ModelProto = inferred
        return finished


def run(model: onnx.ModelProto, feeds: Mapping[str, Array]) -> list[Array]:
    """Run a model in ONNX Runtime."""
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = 1
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options, providers=["CPUExecutionProvider"])
    return [np.asarray(value) for value in session.run(None, dict(feeds))]


def difference(reference: onnx.ModelProto, other: onnx.ModelProto, feeds: Mapping[str, Array]) -> float:
    """Return the largest difference of two models in standard deviations of the reference across its inputs."""
    # ONNX has no shape inference for GroupNormalization, so its full check refuses any graph that holds one.
    onnx.checker.check_model(other, full_check=all(node.op_type != "GroupNormalization" for node in other.graph.node))
    worst = 0.0
    for old, new in zip(run(reference, feeds), run(other, feeds), strict=True):
        assert old.shape == new.shape
        deviation = float(old.std(axis=0).mean())
        assert deviation > 0, "the network does not depend on its input"
        worst = max(worst, float(np.abs(old - new).max()) / deviation)
    return worst


def copy(model: onnx.ModelProto) -> onnx.ModelProto:
    """Return an independent copy: slimming consumes its argument."""
    twin = onnx.ModelProto()
    twin.CopyFrom(model)
    return twin


def widths(model: onnx.ModelProto) -> dict[str, tuple[int, ...]]:
    """Return the shapes of all initializers."""
    return {tensor.name: tuple(tensor.dims) for tensor in model.graph.initializer}
