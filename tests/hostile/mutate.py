"""Hostile changes, drawn from a seed: to bytes, to JSON values, to the messages of an ONNX model."""

from __future__ import annotations

import copy
import random
from collections.abc import Callable
from typing import Any

import onnx
from google.protobuf.message import DecodeError, EncodeError  # type: ignore[import-untyped]  # protobuf ships no types

from .forge import FORGERS, split_sealed

# What counts, lengths and extents are when they are not what they should be.
_EDGES = (0, 1, -1, 2, 7, 255, 256, 65535, 65536)
NUMBERS = (*_EDGES, 2**24, 2**31 - 1, 2**31, 2**32, 2**40, 2**62, 2**63 - 1, 2**63, 2**64)
_VALUES: tuple[Any, ...] = (
    None,
    True,
    "",
    "x",
    "../../etc/passwd",
    "\ud800",
    [],
    {},
    1.5,
    -0.0,
    1e308,
    10**400,
    *NUMBERS,
)
_ONNX = {"foreign ONNX", *(name for name, (split, _) in FORGERS.items() if split is split_sealed)}


def mutated(name: str, content: bytes, spare: bytes, draw: random.Random) -> bytes:
    """Return a changed file.

    Args:
        name: of the original.
        content: the original's bytes.
        spare: some other original's bytes, to splice from.
        draw: where chance comes from.
    """
    if name not in FORGERS or draw.random() < 0.3:
        if name in _ONNX and name not in FORGERS and draw.random() < 0.6:
            return _model(content, draw)
        return _bytes(content, spare, draw)
    split, join = FORGERS[name]
    value, body = split(content)
    what = draw.random()
    if what < 0.65 and value is not None:
        value = _json(value, draw)
    if what > 0.5 or value is None:
        body = _model(body, draw) if name in _ONNX and draw.random() < 0.7 else _bytes(body, spare, draw)
    try:
        return join(value, body)
    except (TypeError, ValueError, KeyError, OverflowError, AttributeError):
        # What was forged cannot even be written: an archive whose member has no name, a header that is no object.
        return _bytes(content, spare, draw)


def _bytes(content: bytes, spare: bytes, draw: random.Random) -> bytes:
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 4, 16))):
        draw.choice(_BYTE_CHANGES)(data, spare, draw)
    return bytes(data)


def _flip(data: bytearray, spare: bytes, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _set(data: bytearray, spare: bytes, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] = draw.choice((0, 1, 0x7F, 0x80, 0xFF, draw.randrange(256)))


def _cut(data: bytearray, spare: bytes, draw: random.Random) -> None:
    del data[draw.randrange(len(data) + 1) :]


def _remove(data: bytearray, spare: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    del data[start : start + draw.randrange(1, 64)]


def _repeat(data: bytearray, spare: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.randrange(1, 64)]
    data[start:start] = piece * draw.choice((1, 1, 2, 50))


def _splice(data: bytearray, spare: bytes, draw: random.Random) -> None:
    start, other = draw.randrange(len(data) + 1), draw.randrange(len(spare))
    data[start : start + draw.randrange(64)] = spare[other : other + draw.randrange(1, 64)]


def _number(data: bytearray, spare: bytes, draw: random.Random) -> None:
    width, start = draw.choice((1, 2, 4, 8)), draw.randrange(len(data) + 1)
    number = draw.choice(NUMBERS) & (1 << 8 * width) - 1
    data[start : start + width] = number.to_bytes(width, draw.choice(("little", "big")))


def _digits(data: bytearray, spare: bytes, draw: random.Random) -> None:
    places = [index for index, byte in enumerate(data) if 0x30 <= byte <= 0x39]
    if places:
        start = draw.choice(places)
        data[start : start + 1] = str(draw.choice(NUMBERS)).encode()


_BYTE_CHANGES: tuple[Callable[[bytearray, bytes, random.Random], None], ...] = (
    _flip,
    _set,
    _cut,
    _remove,
    _repeat,
    _splice,
    _number,
    _digits,
)


def _json(value: Any, draw: random.Random) -> Any:
    """Change a few places of a JSON value: other values, missing or doubled entries, other keys."""
    value = copy.deepcopy(value)
    for _ in range(draw.choice((1, 1, 1, 2, 3))):
        places = list(_places(value))
        if not places:
            return draw.choice(_VALUES)
        holder, key = draw.choice(places)
        change = draw.random()
        if change < 0.5:
            holder[key] = _another(holder[key], draw)
        elif change < 0.65:
            del holder[key]
        elif change < 0.8:
            other, name = draw.choice(places)
            holder[key] = copy.deepcopy(other[name])
        elif isinstance(holder, list):
            holder.insert(key, copy.deepcopy(holder[key]))
        else:
            holder[draw.choice(("x", key + "x", draw.choice(list(holder))))] = holder[key]
    return value


def _places(value: Any) -> Any:
    if isinstance(value, dict):
        items: Any = list(value.items())
    elif isinstance(value, list):
        items = list(enumerate(value))
    else:
        return
    for key, inner in items:
        yield value, key
        yield from _places(inner)


def _another(value: Any, draw: random.Random) -> Any:
    if isinstance(value, bool) or draw.random() < 0.3:
        return draw.choice(_VALUES)
    if isinstance(value, int):
        return draw.choice((value + 1, value - 1, -value, value * 2, draw.choice(NUMBERS)))
    if isinstance(value, str) and value:
        start = draw.randrange(len(value))
        return value[:start] + draw.choice(("", "x", "0", "\0", "é")) + value[start + 1 :]
    if isinstance(value, list):
        return [*value, draw.choice(NUMBERS)]
    return draw.choice(_VALUES)


def _model(content: bytes, draw: random.Random) -> bytes:
    """Change the initializers and nodes of a model; what is no model is changed byte by byte."""
    try:
        model = onnx.ModelProto.FromString(content)
        for _ in range(draw.choice((1, 1, 2))):
            _change_model(model, draw)
        return bytes(model.SerializeToString())
    except (DecodeError, EncodeError, ValueError, TypeError):
        return _bytes(content, content, draw)


def _change_model(model: onnx.ModelProto, draw: random.Random) -> None:
    graph = model.graph
    tensors = [*graph.initializer, *(part for s in graph.sparse_initializer for part in (s.values, s.indices))]
    tensor = draw.choice(tensors) if tensors else graph.initializer.add()
    change = draw.randrange(9)
    if change == 0:
        dims = graph.sparse_initializer[0].dims if graph.sparse_initializer and draw.random() < 0.3 else tensor.dims
        dims[:] = _json(list(dims), draw) if dims else [draw.choice(NUMBERS)]
    elif change == 1:
        tensor.data_type = draw.randrange(30)
    elif change in (2, 3):
        tensor.raw_data = _bytes(tensor.raw_data, content_of(model), draw)
    elif change == 4:
        tensor.name = draw.choice((*(t.name for t in tensors), "", "x", "weight:positions", "weight:rows"))
    elif change == 5:
        graph.initializer.add().CopyFrom(tensor)
    elif change == 6:
        tensor.data_location = onnx.TensorProto.EXTERNAL
        entry = tensor.external_data.add()
        entry.key, entry.value = draw.choice(("location", "offset", "length")), str(draw.choice(_VALUES[4:]))[:50]
    elif change == 7:
        tensor.float_data.extend([1.0] * draw.randrange(1, 9))
    elif graph.node:
        node = draw.choice(graph.node)
        node.op_type = draw.choice(("Constant", "Identity", "MatMul", "If", ""))


def content_of(model: onnx.ModelProto) -> bytes:
    """Return some bytes of the model itself to splice from."""
    return bytes(model.graph.SerializeToString()) or b"\0"
