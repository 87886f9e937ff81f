"""The codecs of ``packed`` files, by the id that stands in the file. An id is never reused for another encoding."""

from __future__ import annotations

from .base import Layout, PositionCodec, ValueCodec
from .bitmap import Bitmap, Channels, DeflatedBitmap, Everything, Nothing
from .blocks import Blocks
from .coded import CODED
from .floats import Floats
from .gaps import Gaps
from .magnitudes import Magnitudes
from .plain import Deflated, Raw
from .seeded import SeededMask
from .tiles import Tiles

__all__ = ["CODECS", "CODED", "POSITIONS", "SEEDED", "VALUES", "Layout", "PositionCodec", "ValueCodec"]

# In the order in which ties are decided.
POSITIONS: dict[str, PositionCodec] = {
    codec.id: codec
    for codec in (
        *(Everything(), Nothing(), SeededMask(), Channels(), Blocks(), Tiles()),
        *(Gaps(), Bitmap(), DeflatedBitmap()),
    )
}
VALUES: dict[str, ValueCodec] = {codec.id: codec for codec in (Raw(), Floats(), Deflated(), Magnitudes())}

# The value id of a tensor that its seed draws again: nothing is stored, nothing is coded.
SEEDED = "seeded"

CODECS: dict[str, PositionCodec | ValueCodec] = {**POSITIONS, **VALUES}
