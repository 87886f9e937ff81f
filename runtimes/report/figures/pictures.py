"""Pictures of arrays: a PNG of grey levels as an image element, for masks and filters."""

from __future__ import annotations

import base64
import struct
import zlib
from html import escape

import numpy as np

from ....files import Array

_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def png(levels: Array) -> bytes:
    """Return an 8-bit grey-scale PNG file (ISO/IEC 15948).

    Args:
        levels: [height, width], uint8, neither extent zero.
    """
    height, width = levels.shape
    # Each line begins with its filter: none.
    lines = np.zeros((height, width + 1), np.uint8)
    lines[:, 1:] = levels
    header = struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0)
    chunks = ((b"IHDR", header), (b"IDAT", zlib.compress(lines.tobytes(), 9)), (b"IEND", b""))
    return _SIGNATURE + b"".join(_chunk(kind, content) for kind, content in chunks)


def picture(levels: Array, title: str, *, scale: int = 1) -> str:
    """Return an image element that carries its picture.

    Args:
        levels: [height, width], uint8: 0 black, 255 white.
        title: what it shows.
        scale: page pixels a pixel; they stay sharp squares.
    """
    height, width = levels.shape
    data = base64.b64encode(png(levels)).decode()
    return (
        f'<img class="pixels" width="{width * scale}" height="{height * scale}" alt="{escape(title)}" '
        f'title="{escape(title)}" src="data:image/png;base64,{data}">'
    )


def _chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))
