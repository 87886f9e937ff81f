"""The extent of every tensor of a graph, and the value of every small tensor that only depends on extents.

A symbolic extent (the batch, a sequence length) is bound to a number twice; whatever differs between the two readings
depends on the inputs' extents and is *dynamic*, the rest is static. Two readings see through any shape arithmetic
(``Shape -> Gather -> Mul -> Concat -> Reshape``) that symbolic inference gives up on. No weight is read or copied.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ...errors import FileFormatError, UnsupportedError
from ..onnx_weights import FIRST_IR_WITH_FREE_INITIALIZERS
from .folding import evaluate

Array = npt.NDArray[Any]

_SMALL = 1024  # elements; shape arithmetic never needs more, weights nearly always have more
_ROUNDS = 12
_SAME_EXTENTS = {"GroupNormalization", "MeanVarianceNormalization", "SimplifiedLayerNormalization"}


@dataclass(frozen=True)
class Shapes:
    """What the two readings of a graph agree and disagree on.

    Attributes:
        extents: tensor name -> extents in the first reading; a tensor whose extents are unknown is absent.
        dynamic: tensor name -> one flag an axis: whether the extent follows from the graph inputs' extents.
        constants: tensor name -> value in the first reading, of folded small tensors and small initializers.
        static: names in ``constants`` with the same value in both readings.
        batch: the number that the first axis of the graph inputs was bound to in the first reading (1 if fixed).
    """

    extents: dict[str, tuple[int, ...]]
    dynamic: dict[str, tuple[bool, ...]]
    constants: dict[str, Array]
    static: frozenset[str]
    batch: int


def read_shapes(model: onnx.ModelProto, sizes: Mapping[str, int] | None = None) -> Shapes:
    """Infer the extents of every tensor of ``model``.

    Args:
        model: a graph without local functions; it is not changed.
        sizes: symbolic dimension name -> extent, for dimensions where the guesses (batch 2, image side 224, sequence
            length 16) make no sense for the network.

    Raises:
        UnsupportedError: the graph contradicts itself, or cannot be inferred for the assumed extents.
    """
    first, second = (_reading(model, dict(sizes or {}), step) for step in (0, 1))
    dynamic = {
        name: tuple(
            name not in second[0] or len(second[0][name]) != len(extents) or second[0][name][axis] != extent
            for axis, extent in enumerate(extents)
        )
        for name, extents in first[0].items()
    }
    static = frozenset(
        name for name, value in first[1].items() if name in second[1] and np.array_equal(value, second[1][name])
    )
    return Shapes(first[0], dynamic, first[1], static, first[2])


def _reading(
    model: onnx.ModelProto, sizes: dict[str, int], step: int
) -> tuple[dict[str, tuple[int, ...]], dict[str, Array], int]:
    scratch, constants, batch = _scratch(model, sizes, step)
    for _ in range(_ROUNDS):
        try:
            inferred = onnx.shape_inference.infer_shapes(scratch, data_prop=True)
        except (onnx.shape_inference.InferenceError, ValueError) as error:
            raise UnsupportedError(
                f"shape inference of the graph fails: {str(error).strip().splitlines()[0]} "
                "The graph is broken, or the extents assumed for its symbolic dimensions do not fit it; "
                "give the right ones by name."
            ) from error
        extents = _extents(inferred.graph)
        extents.update({name: value.shape for name, value in constants.items()})
        found = _fold(scratch, extents, constants)
        if not (_copy_extents(scratch, inferred.graph, extents) or found):
            break
    return extents, constants, batch


def _scratch(model: onnx.ModelProto, sizes: dict[str, int], step: int) -> tuple[onnx.ModelProto, dict[str, Array], int]:
    """Return the graph without its weights, its symbolic input extents bound, and the small initializers."""
    graph = onnx.GraphProto(name="scratch")
    graph.node.extend(model.graph.node)
    constants: dict[str, Array] = {}
    initial = {tensor.name for tensor in model.graph.initializer}
    batch = 1
    met: dict[str, int] = {}
    symbols: dict[str, int] = {}
    for value in model.graph.input:
        if value.name in initial:
            continue
        bound = graph.input.add()
        bound.CopyFrom(value)
        dims = bound.type.tensor_type.shape.dim
        for axis, dim in enumerate(dims):
            if dim.HasField("dim_value") and dim.dim_value > 0:
                continue
            extent = _bind(dim.dim_param, axis, len(dims), sizes, step, met)
            if dim.dim_param:
                symbols[dim.dim_param] = extent
            dim.dim_value = extent
            if axis == 0:
                batch = extent
    for tensor in model.graph.initializer:
        count = int(np.prod(tensor.dims, dtype=np.int64))
        if count <= _SMALL and tensor.data_location != onnx.TensorProto.EXTERNAL:
            graph.initializer.add().CopyFrom(tensor)
            constants[tensor.name] = _to_array(tensor)
        else:
            graph.input.append(onnx.helper.make_tensor_value_info(tensor.name, tensor.data_type, list(tensor.dims)))
    given = initial | {value.name for value in graph.input}
    for value in model.graph.output:
        if value.name in given:
            # Said again without its extents, what is handed through would have none.
            continue
        output = graph.output.add()
        output.CopyFrom(value)
        output.type.tensor_type.ClearField("shape")
    graph.value_info.extend(_declared(model.graph, symbols))
    # Before version 4 an initializer counts only if it is an input, too.
    scratch = onnx.ModelProto(ir_version=max(model.ir_version, FIRST_IR_WITH_FREE_INITIALIZERS), graph=graph)
    scratch.opset_import.extend(model.opset_import)
    return scratch, constants, batch


def _declared(graph: onnx.GraphProto, symbols: Mapping[str, int]) -> Iterator[onnx.ValueInfoProto]:
    """Yield what a graph says about the outputs of operators that ONNX does not know, its symbols bound.

    What it says about others can be inferred, and is not always true.
    """
    foreign = {name for node in graph.node if node.domain not in ("", "ai.onnx") for name in node.output}
    for value in graph.value_info:
        if value.name not in foreign or not value.type.tensor_type.HasField("shape"):
            continue
        bound = onnx.ValueInfoProto()
        bound.CopyFrom(value)
        dims = bound.type.tensor_type.shape.dim
        for dim in dims:
            if dim.dim_param in symbols:
                dim.dim_value = symbols[dim.dim_param]
        if all(dim.dim_value > 0 for dim in dims):
            yield bound


def _bind(name: str, axis: int, rank: int, sizes: dict[str, int], step: int, met: dict[str, int]) -> int:
    if name in sizes:
        # A stride-friendly second extent; twice as many positions as the network was trained for may not exist.
        return sizes[name] if step == 0 else max(sizes[name] - max(sizes[name] // 8, 1), 1)
    if axis == 0:
        return 2 + step
    # Dimensions of different names get different extents, so that they are never mistaken for one another.
    order = met.setdefault(name, len(met))
    return (224, 256)[step] + 64 * order if rank >= 4 else (16, 24)[step] + 16 * order


def _to_array(tensor: onnx.TensorProto) -> Array:
    try:
        return numpy_helper.to_array(tensor)
    except (ValueError, TypeError) as error:
        raise FileFormatError(f"initializer '{tensor.name}' cannot be read: {error}.") from error


def _extents(graph: onnx.GraphProto) -> dict[str, tuple[int, ...]]:
    extents: dict[str, tuple[int, ...]] = {}
    for value in (*graph.input, *graph.value_info, *graph.output):
        if not value.type.HasField("tensor_type") or not value.type.tensor_type.HasField("shape"):
            continue
        dims = value.type.tensor_type.shape.dim
        if all(dim.HasField("dim_value") for dim in dims):
            extents[value.name] = tuple(dim.dim_value for dim in dims)
    return extents


def _copy_extents(scratch: onnx.ModelProto, inferred: onnx.GraphProto, extents: dict[str, tuple[int, ...]]) -> bool:
    """Give operators that ONNX has no inference for the extents of their input; return whether any was found."""
    found = False
    kinds = {value.name: value.type.tensor_type.elem_type for value in (*inferred.input, *inferred.value_info)}
    kinds.update({tensor.name: tensor.data_type for tensor in inferred.initializer})
    for node in scratch.graph.node:
        if node.op_type in _SAME_EXTENTS and node.output[0] not in extents and node.input[0] in extents:
            source = extents[node.input[0]]
            kind = kinds.get(node.input[0], onnx.TensorProto.FLOAT)
            scratch.graph.value_info.append(onnx.helper.make_tensor_value_info(node.output[0], kind, source))
            extents[node.output[0]] = source
            found = True
    return found


def _fold(scratch: onnx.ModelProto, extents: dict[str, tuple[int, ...]], constants: dict[str, Array]) -> bool:
    """Replace every node whose value is known by an initializer; return whether any was found."""
    kept: list[onnx.NodeProto] = []
    found = False
    for node in scratch.graph.node:
        values = _evaluate(node, extents, constants)
        if values is None:
            kept.append(node)
            continue
        found = True
        for name, value in zip(node.output, values, strict=False):
            constants[name] = value
            scratch.graph.initializer.append(numpy_helper.from_array(value, name))
    if found:
        nodes = [onnx.NodeProto.FromString(node.SerializeToString()) for node in kept]
        del scratch.graph.node[:]
        scratch.graph.node.extend(nodes)
    return found


def _evaluate(
    node: onnx.NodeProto, extents: dict[str, tuple[int, ...]], constants: dict[str, Array]
) -> list[Array] | None:
    if node.op_type in ("Shape", "Size") and node.domain in ("", "ai.onnx"):
        if node.input[0] not in extents:
            return None
        extent = np.array(extents[node.input[0]], np.int64)
        if node.op_type == "Size":
            return [np.array(extent.prod())]
        bounds = {attribute.name: attribute.i for attribute in node.attribute}
        return [extent[bounds.get("start", 0) : bounds.get("end", len(extent))]]
    if node.domain not in ("", "ai.onnx") or not all(name in constants for name in node.input if name):
        return None
    sizes = [extents.get(name) for name in node.output]
    if any(size is not None and int(np.prod(size, dtype=np.int64)) > _SMALL for size in sizes):
        return None
    if sizes[0] is None and node.op_type in ("ConstantOfShape", "Expand", "Range", "Tile"):
        return None
    attributes = {a.name: onnx.helper.get_attribute_value(a) for a in node.attribute}
    return evaluate(node.op_type, attributes, [constants[name] if name else None for name in node.input])
