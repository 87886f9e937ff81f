"""A model as the bytes of its file, in pieces: a large one is never in memory a second time to be written.

protobuf builds a message in one buffer that it enlarges by doubling, and copies it once more on the way to Python,
which takes three times the model at worst. The pieces put together are the bytes that it would have built.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import onnx

from .onnx_seal import varint

_MODEL, _GRAPH, _TENSOR = onnx.ModelProto, onnx.GraphProto, onnx.TensorProto
_LENGTH = 2


def pieces(model: onnx.ModelProto) -> Iterator[bytes]:
    """Yield the serialised model in order, fields by number, each tensor's values as a piece of its own.

    Fields that this version of ONNX does not know are left out.

    Args:
        model: below 2 GB in all, or with its tensors outside.
    """
    before, after = _around(model, _MODEL.GRAPH_FIELD_NUMBER)
    graph = model.graph
    first, last = _around(graph, _GRAPH.INITIALIZER_FIELD_NUMBER)
    # Not asked of protobuf, which serialises a message to tell its size.
    sizes = [sum(len(piece) for piece in _tensor(tensor)) for tensor in graph.initializer]
    frames = [_frame(_GRAPH.INITIALIZER_FIELD_NUMBER, size) for size in sizes]
    yield before
    if model.HasField("graph"):
        yield _frame(_MODEL.GRAPH_FIELD_NUMBER, len(first) + sum(map(len, frames)) + sum(sizes) + len(last))
        yield first
        for tensor, frame in zip(graph.initializer, frames, strict=True):
            yield frame
            yield from _tensor(tensor)
        yield last
    yield after


def _tensor(tensor: onnx.TensorProto) -> Iterator[bytes]:
    if not tensor.HasField("raw_data"):
        yield tensor.SerializeToString(deterministic=True)
        return
    before, after = _around(tensor, _TENSOR.RAW_DATA_FIELD_NUMBER)
    values = tensor.raw_data
    yield before + _frame(_TENSOR.RAW_DATA_FIELD_NUMBER, len(values))
    yield values
    yield after


def _around(message: Any, number: int) -> tuple[bytes, bytes]:
    """Return the serialised fields below and above a field's number."""
    sides = (type(message)(), type(message)())
    for descriptor, value in message.ListFields():
        if descriptor.number != number:
            _assign(sides[descriptor.number > number], descriptor.name, value)
    before, after = (side.SerializeToString(deterministic=True) for side in sides)
    return before, after


def _assign(message: Any, name: str, value: Any) -> None:
    target = getattr(message, name)
    if hasattr(target, "extend"):
        target.extend(value)
    elif hasattr(target, "CopyFrom"):
        target.CopyFrom(value)
    else:
        setattr(message, name, value)


def _frame(number: int, length: int) -> bytes:
    return varint(number << 3 | _LENGTH) + varint(length)
