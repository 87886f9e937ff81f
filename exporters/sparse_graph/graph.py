"""Lookups in an ONNX graph that is being rewritten: constants, shapes, who produces and who reads a value."""

from __future__ import annotations

from collections.abc import Iterable, Iterator

import numpy as np
import onnx
from onnx import numpy_helper

from ...files import Array
from .extents import Shapes, with_equal_names


class Graph:
    """A model's main graph with its lookups.

    Attributes:
        nodes: all nodes, in order; those in :attr:`dead` count no longer.
        position: of a node, by its identity; of one that replaced others, that of the first of them.
        shapes: of every value whose shape is known, as far as it is known.
    """

    def __init__(self, model: onnx.ModelProto) -> None:
        graph = model.graph
        # Nodes are told apart by identity, which only lasts while something holds on to the objects.
        self.nodes = list(graph.node)
        self.dead: set[int] = set()
        self.position = {id(node): index for index, node in enumerate(self.nodes)}
        overridable = {value.name for value in graph.input}
        self._constants = {t.name: t for t in graph.initializer if t.name not in overridable}
        for node in self.nodes:
            if node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value":
                self._constants[node.output[0]] = node.attribute[0].t
            elif node.op_type == "Constant" and len(node.attribute) == 1 and node.attribute[0].name == "value_ints":
                self._constants[node.output[0]] = numpy_helper.from_array(np.array(node.attribute[0].ints, np.int64))
        self.shapes = with_equal_names(_shapes(model), self.nodes, self.array)
        # What other graphs or the caller read must go on existing under its name.
        self._pinned = {value.name for value in graph.output} | set(_captured(self.nodes))
        self.index()

    def index(self) -> None:
        """Bring the lookups up to date with the nodes that are left."""
        self._readers: dict[str, list[onnx.NodeProto]] = {}
        self._producers: dict[str, onnx.NodeProto] = {}
        for node in self.live():
            for name in node.input:
                self._readers.setdefault(name, []).append(node)
            for name in node.output:
                self._producers[name] = node

    def live(self) -> Iterable[onnx.NodeProto]:
        """Return the nodes that are left, in order."""
        return [node for node in self.nodes if id(node) not in self.dead]

    def remove(self, nodes: Iterable[onnx.NodeProto]) -> None:
        """Take nodes out."""
        self.dead.update(id(node) for node in nodes)
        self.index()

    def replace(self, nodes: list[onnx.NodeProto], *new: onnx.NodeProto) -> None:
        """Put others in the place of nodes: at that of the last, where everything that they read has been computed."""
        places = {id(node): place for place, node in enumerate(self.nodes)}
        at = max(places[id(node)] for node in nodes)
        self.nodes[at + 1 : at + 1] = new
        self.position.update({id(node): min(self.position[id(old)] for old in nodes) for node in new})
        self.remove(nodes)

    def unread(self, name: str) -> bool:
        """Tell whether nothing reads a value, and it does not leave the graph."""
        return name not in self._readers and name not in self._pinned

    def forget(self, name: str) -> None:
        """Take out what computes a value that nothing reads any longer."""
        node = self.producer(name)
        if node is not None and all(self.unread(output) for output in node.output):
            self.remove([node])
            for before in node.input:
                self.forget(before)

    def only_reader(self, name: str) -> onnx.NodeProto | None:
        """Return the one node that reads a value, once; None when there are others, or the value leaves the graph."""
        readers = self._readers.get(name, [])
        return readers[0] if len(readers) == 1 and name not in self._pinned else None

    def readers(self, name: str) -> list[onnx.NodeProto]:
        """Return the nodes that read a value, one for each reading; empty where the value leaves the graph as well."""
        return [] if name in self._pinned else list(self._readers.get(name, []))

    def scalar(self, name: str) -> float | None:
        """Return a constant of one element; None for anything else."""
        value = self.array(name)
        return None if value is None or value.size != 1 else float(value.reshape(()))

    def producer(self, name: str) -> onnx.NodeProto | None:
        """Return the node that computes a value; None for inputs and initializers."""
        return self._producers.get(name)

    def is_constant(self, name: str) -> bool:
        """Tell whether a value is a constant of the model that nobody can override."""
        return name in self._constants

    def array(self, name: str) -> Array | None:
        """Return a constant's values; None for anything else."""
        tensor = self._constants.get(name)
        return None if tensor is None else numpy_helper.to_array(tensor)

    def float_constant(self, name: str, shape: tuple[int, ...]) -> bool:
        """Tell whether a value is a float32 constant of this shape."""
        tensor = self._constants.get(name)
        return tensor is not None and tensor.data_type == onnx.TensorProto.FLOAT and tuple(tensor.dims) == shape


def attribute(node: onnx.NodeProto, name: str, default: object) -> object:
    """Return an attribute's value, or the default where it is missing."""
    for found in node.attribute:
        if found.name == name:
            value: object = onnx.helper.get_attribute_value(found)
            return value
    return default


def _shapes(model: onnx.ModelProto) -> Shapes:
    """Return shapes by the inference of the onnx package; on a copy, because it writes what it finds into the model."""
    inferred = onnx.shape_inference.infer_shapes(model, data_prop=True).graph
    found: Shapes = {}
    for value in [*inferred.input, *inferred.value_info, *inferred.output]:
        if value.type.tensor_type.HasField("shape"):
            found[value.name] = [
                extent.dim_value if extent.HasField("dim_value") else extent.dim_param or None
                for extent in value.type.tensor_type.shape.dim
            ]
    return found


def _captured(nodes: Iterable[onnx.NodeProto]) -> Iterator[str]:
    """Yield every name that the bodies of control flow read."""
    for node in nodes:
        for found in node.attribute:
            for body in (found.g, *found.graphs) if found.HasField("g") else found.graphs:
                for inner in body.node:
                    yield from inner.input
                yield from (value.name for value in body.output)
                yield from _captured(body.node)
