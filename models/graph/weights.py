"""The numbers of a graph's constant tensors, read on demand and never kept: a large model must not be held twice."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ...errors import UnsupportedError
from .dimensions import Dimensions
from .effects import Values
from .folding import evaluate
from .layout import Ids
from .trace import slice_values

Array = npt.NDArray[Any]
Slices = Mapping[str, list[tuple[int, Ids]]]


@dataclass
class Weights:
    """Values of initializers, some slices of them read as zero, and of tensors computed from them alone.

    Attributes:
        dimensions: the analysed graph.
        zeroed: initializer -> (axis, indices) whose slices are masked.
    """

    dimensions: Dimensions
    zeroed: Slices = field(default_factory=dict)
    _tensors: dict[str, onnx.TensorProto] = field(init=False)
    _producers: dict[str, int] = field(init=False)
    # One tensor is read several times in a row, and each reading copies it.
    _last: tuple[str, Array] | None = field(default=None, init=False)

    def __post_init__(self) -> None:
        """Index the graph."""
        self._tensors = {tensor.name: tensor for tensor in self.dimensions.model.graph.initializer}
        self._producers = {
            name: node.index for node in self.dimensions.nodes for name in node.outputs if name in self.dimensions.known
        }

    def __getitem__(self, name: str) -> Array:
        """Return a constant tensor's values; they must not be written to.

        Raises:
            UnsupportedError: it is computed by an operator that cannot be evaluated here.
        """
        if name not in self._tensors:
            return self._computed(name, self.__getitem__)
        array = self._own(name)
        if name not in self.zeroed:
            return array
        # Not both kept: the largest tensor may be most of the model.
        self._last = None
        return _zeroed(array.copy(), self.zeroed[name])

    def live(self, name: str) -> npt.NDArray[np.bool_]:
        """Return which values are not zero, masked slices read as zero; a quarter of the memory of the values.

        Raises:
            UnsupportedError: it is computed by an operator that cannot be evaluated here.
        """
        if name not in self._tensors:
            return self._computed(name, self.live)
        return _zeroed(np.asarray(self._own(name) != 0), self.zeroed.get(name, []))

    def slices(self, name: str, axis: int) -> Values:
        """Return, for each index of an initializer's axis, the one number its slice holds, or NaN."""
        return slice_values(self._own(name), axis, self.zeroed.get(name, []))

    def _own(self, name: str) -> Array:
        if self._last is None or self._last[0] != name:
            # Let go first, for the same reason.
            self._last = None
            self._last = (name, numpy_helper.to_array(self._tensors[name]))
        return self._last[1]

    def _computed(self, name: str, read: Callable[[str], Array]) -> Array:
        node = self.dimensions.nodes[self._producers[name]]
        # The first operand is what is moved; the others say how (extents, indices).
        operands = [
            (self[source] if place else read(source)) if source else None for place, source in enumerate(node.inputs)
        ]
        values = evaluate(node.op, node.attributes, operands)
        if values is None:
            raise UnsupportedError(
                f"the weight '{name}' is computed by {node}, which cannot be evaluated; fold the constants of the "
                f"graph first (for example with onnxruntime's basic optimisations)."
            )
        return values[node.outputs.index(name)]

    def can_read(self, name: str) -> bool:
        """Return whether :meth:`__getitem__` can give the tensor's values."""
        if name in self._tensors:
            return True
        if name not in self._producers:
            return False
        node = self.dimensions.nodes[self._producers[name]]
        return node.op in _READABLE and all(self.can_read(source) for source in node.inputs if source)


def _zeroed(array: Array, slices: list[tuple[int, Ids]]) -> Array:
    """Write zeros into slices of an array, in place."""
    for axis, indices in slices:
        array[(slice(None),) * axis + (indices,)] = 0
    return array


_READABLE = frozenset(
    {"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Slice", "Split", "Gather"}
)

__all__ = ["Array", "Slices", "Weights"]
