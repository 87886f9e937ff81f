"""The streams of a tensor in a ``packed`` file: the smallest codec of each, and tensors with parts as a whole.

A tensor of a parametrisation with parts (``signs``, ``options``, ``masks``, ``basis``, ``offset``, ``projection``) is
its positions, its values where it has some, and its parts in alphabetical order, back to back.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import msgspec
import numpy as np

from ..compressor.mask import BoolArray, unpack_bits
from ..compressor.parametrisations import PARAMETRISATIONS, Parts, PartSpec
from ..compressor.parametrisations.masks import MASKS
from ..errors import FileFormatError
from ..files import Array, numpy_dtype
from .codecs import POSITIONS, VALUES, Layout
from .codecs.parts import SHARED, decode_part, encode_part, known
from .container import StoredTensor
from .manifest import TensorEntry
from .parts import Part


def encode_positions(mask: BoolArray, layout: Layout, *, free: bool = True, seeded: bool = True) -> tuple[str, bytes]:
    """Return the id of the position codec with the smallest stream (the first of equals), and that stream.

    Args:
        mask: bool, dense shape.
        layout: what the codecs may know.
        free: whether codecs that store nothing at all may win.
        seeded: whether a mask may be stored as its seed.
    """
    layout = layout if seeded else replace(layout, seed=None)
    streams = {name: codec.encode(mask, layout) for name, codec in POSITIONS.items()}
    sizes = {name: len(s) for name, s in streams.items() if s is not None and (s or free)}
    winner = min(sizes, key=lambda name: sizes[name])
    return winner, streams[winner] or b""


def encode_values(values: Array) -> tuple[str, bytes]:
    """Return the id of the value codec with the smallest stream (the first of equals), and that stream.

    Args:
        values: 1-D, contiguous.
    """
    streams = {name: codec.encode(values) for name, codec in VALUES.items()}
    sizes = {name: len(stream) for name, stream in streams.items() if stream is not None}
    winner = min(sizes, key=lambda name: sizes[name])
    return winner, streams[winner] or b""


def encode_parts(part: Part, entry: TensorEntry, free: bool) -> tuple[TensorEntry, list[bytes]]:
    """Encode a tensor of a parametrisation with parts: positions, values, then the parts by name.

    Args:
        part: the tensor.
        entry: its manifest entry.
        free: whether position codecs that store nothing may win.

    Returns:
        the entry with codecs and bytes, and the streams in order.
    """
    layout = Layout(entry.shape, entry.structure, entry.output_axis, entry.kept_count, entry.name)
    streams: list[bytes] = []
    if part.mask is not None:
        codec, stream = encode_positions(part.mask, layout, free=free)
        entry = msgspec.structs.replace(entry, positions=(codec, len(stream)))
        streams.append(stream)
    if part.values is not None:
        codec, stream = encode_values(part.values)
        entry = msgspec.structs.replace(entry, values=(codec, len(stream)))
        streams.append(stream)
    stored: dict[str, tuple[str, int]] = {}
    for name in sorted(part.parts):
        if entry.shares is not None and name in PARAMETRISATIONS[entry.parametrisation].shared:
            codec, stream = SHARED, b""
        else:
            codec, stream = encode_part(name, part.parts[name], entry.count, layout)
        stored[name] = (codec, len(stream))
        streams.append(stream)
    return msgspec.structs.replace(entry, parts=stored), streams


def decode_parts(entry: TensorEntry, spec: Mapping[str, PartSpec], content: bytes, owned: Parts) -> StoredTensor:
    """Return what :func:`encode_parts` encoded.

    Args:
        entry: checked by :func:`check_part_codecs`.
        spec: what its parametrisation stores.
        content: its streams, back to back.
        owned: the parts of the tensor that it shares one with.

    Raises:
        FileFormatError: a stream is malformed.
    """
    names: list[str] = []
    layout = Layout(entry.shape, entry.structure, entry.output_axis, entry.kept_count, entry.name)
    mask: BoolArray | None = None
    values: Array | None = None
    parts: dict[str, Array] = {}
    offset = 0

    def following(length: int) -> bytes:
        nonlocal offset
        offset += length
        return content[offset - length : offset]

    if entry.positions is not None:
        names.append(entry.positions[0])
        mask = POSITIONS[entry.positions[0]].decode(following(entry.positions[1]), layout)
    if entry.values is not None:
        names.append(entry.values[0])
        count = entry.kept_count if entry.masked else entry.size
        values = VALUES[entry.values[0]].decode(following(entry.values[1]), count, numpy_dtype(entry.dtype))
    for name, (codec, length) in sorted(entry.parts.items()):
        names.append(f"{name} {codec}")
        if codec == SHARED:
            parts[name] = owned[name]
        else:
            parts[name] = decode_part(name, codec, following(length), spec[name], entry.count, layout)
        if parts[name].shape != spec[name].shape:
            raise FileFormatError(f"its {name} have the shape {parts[name].shape} of another tensor.")
    if MASKS in parts:
        kept = int(np.count_nonzero(unpack_bits(parts[MASKS][entry.task], entry.shape)))
        if kept != entry.kept_count:
            raise FileFormatError(f"the mask of task {entry.task} keeps {kept} weights, its entry says {entry.kept}.")
    return StoredTensor(mask, values, " + ".join(names), parts=parts)


def check_part_codecs(path: Path, entry: TensorEntry, spec: Mapping[str, PartSpec]) -> None:
    """Refuse streams and codecs that do not fit a tensor's parametrisation.

    Args:
        path: for the message.
        entry: of the tensor.
        spec: what its parametrisation stores.

    Raises:
        FileFormatError: naming the tensor.
    """
    problem = None
    streams = (entry.positions, entry.values, *entry.parts.values())
    lengths = [stream[1] for stream in streams if stream is not None]
    if entry.values is not None and entry.values[0] not in VALUES:
        problem = f"names the unknown value codec '{entry.values[0]}'"
    elif (entry.values is not None) != ("values" in spec):
        problem = f"is '{entry.parametrisation}' and has values that it does not need, or none"
    elif (entry.positions is not None) != (entry.masked and MASKS not in entry.parts):
        problem = "has positions without a mask, or a mask without positions"
    elif entry.positions is not None and entry.positions[0] not in POSITIONS:
        problem = f"names the unknown position codec '{entry.positions[0]}'"
    elif min(lengths, default=0) < 0:
        problem = "has a stream of negative length"
    for name, (codec, length) in entry.parts.items():
        shared = entry.shares is not None and name in PARAMETRISATIONS[entry.parametrisation].shared
        if not known(name, codec) or (codec == SHARED) != shared or (shared and length):
            problem = f"stores {name} by the unknown codec '{codec}'"
    if problem:
        raise FileFormatError(f"{path}: tensor '{entry.name}' {problem}.")
