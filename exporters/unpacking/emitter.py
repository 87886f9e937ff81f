"""Collects the nodes and initializers that a graph is given, and counts their bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx
from onnx import helper, numpy_helper

from ...errors import UnsupportedError
from ...files import Array

# Before every name that belongs to the unpacking and to no tensor.
SHARED = "unpack"
# Tags and lengths of a node or initializer inside the graph: at most this many bytes each.
_FRAME = 5


class Emitter:
    """An ordered list of nodes and initializers; every name is given once.

    Attributes:
        nodes: in the order in which they compute.
        initializers: in the order in which they were added.
        declared: types and shapes of values whose shape depends on the data.
    """

    def __init__(self, taken: set[str] | None = None) -> None:
        self.nodes: list[onnx.NodeProto] = []
        self.initializers: list[onnx.TensorProto] = []
        self.declared: list[onnx.ValueInfoProto] = []
        self._taken = set(taken or ())
        self._shared: dict[tuple[str, tuple[int, ...], bytes], str] = {}
        self._zeros: dict[tuple[tuple[int, ...], str], str] = {}

    def node(self, operator: str, inputs: list[str], output: str | list[str], **attributes: Any) -> str:
        """Add a node of the standard domain and return its (first) output.

        Raises:
            UnsupportedError: the graph uses one of the names already.
        """
        outputs = [output] if isinstance(output, str) else output
        for name in outputs:
            self._take(name)
        self.nodes.append(helper.make_node(operator, inputs, outputs, **attributes))
        return outputs[0]

    def initializer(self, name: str, array: Array) -> str:
        """Add an initializer of a tensor's own and return its name."""
        self._take(name)
        self.initializers.append(numpy_helper.from_array(np.asarray(array, order="C"), name))
        return name

    def constant(self, array: Array) -> str:
        """Return the name of a small constant; equal ones are stored once."""
        key = (array.dtype.name, array.shape, array.tobytes())
        if key not in self._shared:
            self._shared[key] = self.initializer(f"{SHARED}:{len(self._shared)}", array)
        return self._shared[key]

    def zeros(self, shape: tuple[int, ...], dtype: np.dtype[Any], fill: float = 0.0) -> str:
        """Return a tensor full of one value; equal ones are shared."""
        value = np.full(1, fill, dtype)
        key = (shape, value.dtype.name + value.tobytes().hex())
        if key not in self._zeros:
            extents = self.constant(np.array(shape, np.int64))
            name = f"{SHARED}:fill{len(self._zeros)}"
            self._zeros[key] = self.node("ConstantOfShape", [extents], name, value=numpy_helper.from_array(value, ""))
        return self._zeros[key]

    def reshape(self, value: str, shape: tuple[int, ...], output: str) -> str:
        """Add a Reshape; ``-1`` stands for what is left over."""
        return self.node("Reshape", [value, self.constant(np.array(shape, np.int64))], output)

    def declare(self, value: str, data_type: int, shape: tuple[int, ...]) -> str:
        """State the shape of a value whose operator cannot know it, and return the value's name.

        ONNX Runtime computes a node at load only when it can bound the size of its output beforehand.
        """
        self.declared.append(helper.make_tensor_value_info(value, data_type, shape))
        return value

    @property
    def size(self) -> int:
        """What everything added so far takes in a file, in bytes."""
        added: list[Any] = [*self.nodes, *self.initializers, *self.declared]
        return sum(message.ByteSize() + _FRAME for message in added)

    def _take(self, name: str) -> None:
        if name in self._taken:
            raise UnsupportedError(
                f"the network has a value named '{name}' already, which the unpacking graph needs; rename it, or "
                "export to 'onnx'."
            )
        self._taken.add(name)
