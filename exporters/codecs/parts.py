"""How ``packed`` stores the parts of a parametrisation: sign bits, choices, masks of tasks, short rows of numbers.

    raw, floats, deflate ...  the value codecs: numbers as they are, or bits eight a byte (``signs``)
    bits                      choices in as many bits as the number of candidates needs, side by side
    codes                     choices entropy coded, several a byte (:mod:`.coded`)
    positions                 one mask a task: the place of a position codec in the table below (one byte), the number
                              of kept weights and the bytes of its stream (a varint each), the stream; task after task
    shared                    nothing: another tensor stores the same part

Each part takes the smallest that applies.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

import numpy as np

from ...compressor.mask import BoolArray, pack_bits, unpack_bits
from ...compressor.parametrisations import PartSpec
from ...compressor.parametrisations.masks import MASKS
from ...compressor.parametrisations.options import CHOICES
from ...errors import FileFormatError
from ...files import Array, numpy_dtype
from . import bits
from .base import Layout, PositionCodec, ValueCodec
from .bitmap import Bitmap, Channels, DeflatedBitmap, Everything, Nothing
from .blocks import Blocks
from .coded import decode_codes, encode_codes, read_varint, varint
from .floats import Floats
from .gaps import Gaps
from .magnitudes import Magnitudes
from .plain import Deflated, Raw
from .tiles import Tiles

SHARED, BITS, CODES, POSITIONS = "shared", "bits", "codes", "positions"
# The byte in the file is the place here: it is only ever added to.
_POSITIONS: tuple[PositionCodec, ...] = (
    Everything(),
    Nothing(),
    Channels(),
    Blocks(),
    Gaps(),
    Bitmap(),
    DeflatedBitmap(),
    Tiles(),
)
_VALUES: dict[str, ValueCodec] = {codec.id: codec for codec in (Raw(), Floats(), Deflated(), Magnitudes())}
_LARGEST_CODE = 256
EncodeMask = Callable[[BoolArray, Layout], tuple[str, bytes]]


def encode_part(name: str, array: Array, count: int, layout: Layout) -> tuple[str, bytes]:
    """Return codec and stream of one part.

    Args:
        name: as its parametrisation names it.
        array: as its parametrisation specifies it.
        count: of candidates, for ``choices``.
        layout: of the tensor; ``kept`` does not matter.
    """
    if name == MASKS:
        return POSITIONS, b"".join(_encode_mask(unpack_bits(row, layout.shape), layout) for row in array)
    flat = np.ascontiguousarray(array).reshape(-1)
    streams: dict[str, bytes | None] = {}
    if name == CHOICES:
        streams[BITS] = bits.pack(flat, choice_bits(count)).tobytes()
        if count <= _LARGEST_CODE and flat.size:
            streams[CODES] = encode_codes(flat)
    else:
        streams = {codec.id: codec.encode(flat) for codec in _VALUES.values()}
    sizes = {codec: len(stream) for codec, stream in streams.items() if stream is not None}
    winner = min(sizes, key=lambda codec: sizes[codec])
    return winner, streams[winner] or b""


def decode_part(name: str, codec: str, stream: bytes, spec: PartSpec, count: int, layout: Layout) -> Array:
    """Return the array that :func:`encode_part` encoded, in the shape and type of its specification.

    Raises:
        FileFormatError: the stream is malformed, or the codec is not one of this part.
    """
    size, dtype = math.prod(spec.shape), numpy_dtype(spec.dtype)
    if name == MASKS:
        if codec != POSITIONS:
            raise FileFormatError(f"its masks are stored by the unknown codec '{codec}'.")
        return _decode_masks(stream, spec, layout)
    if name == CHOICES and codec == BITS:
        return bits.unpack(stream, size, choice_bits(count)).astype(dtype)
    if name == CHOICES and codec == CODES and size and count <= _LARGEST_CODE:
        return decode_codes(stream, size).astype(dtype)
    if name == CHOICES or codec not in _VALUES:
        raise FileFormatError(f"its {name} are stored by the unknown codec '{codec}'.")
    return _VALUES[codec].decode(stream, size, dtype).reshape(spec.shape)


def known(name: str, codec: str) -> bool:
    """Tell whether a part may be stored by a codec of this name."""
    if name == MASKS:
        return codec == POSITIONS
    return codec in (BITS, CODES) if name == CHOICES else codec in (*_VALUES, SHARED)


def choice_bits(count: int) -> int:
    """Return the bits of one choice among ``count`` candidates."""
    return max(1, (count - 1).bit_length())


def _encode_mask(mask: BoolArray, layout: Layout) -> bytes:
    layout = replace(layout, kept=int(np.count_nonzero(mask)))
    streams = [(number, codec.encode(mask, layout)) for number, codec in enumerate(_POSITIONS)]
    number, stream = min(((n, s) for n, s in streams if s is not None), key=lambda entry: len(entry[1]))
    return bytes([number]) + varint(layout.kept) + varint(len(stream)) + stream


def _decode_masks(stream: bytes, spec: PartSpec, layout: Layout) -> Array:
    rows = np.zeros(spec.shape, np.uint8)
    place = 0
    for row in rows:
        if place >= len(stream) or stream[place] >= len(_POSITIONS):
            raise FileFormatError("a mask of a task is missing, or has an unknown codec.")
        codec = _POSITIONS[stream[place]]
        kept, place = read_varint(stream, place + 1)
        length, place = read_varint(stream, place)
        if kept > layout.size or length > len(stream) - place:
            raise FileFormatError(f"a mask of {kept} weights in {length} bytes does not fit its tensor.")
        row[:] = pack_bits(codec.decode(stream[place : place + length], replace(layout, kept=kept)))
        place += length
    if place != len(stream):
        raise FileFormatError("bytes follow the mask of the last task.")
    return rows
