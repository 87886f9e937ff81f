"""Masks of convolutions as pictures: a row of kernels for each output channel, a column for each input channel."""

from __future__ import annotations

import base64
from collections.abc import Sequence

import numpy as np

from ....compressor.mask import BoolArray
from ....files import Array
from .canvas import WIDTH, frame, text
from .pictures import png

KEPT, PRUNED, BETWEEN = 20, 235, 150
_GAP, _TOP = 16, 34
_HIGHEST = 260


def kernel_levels(mask: BoolArray) -> Array:
    """Return the picture of one mask, uint8 [height, width]: kept dark, pruned light, a line between kernels.

    Args:
        mask: of a convolution [outputs, inputs, height, width], [outputs, inputs, width], or of a linear layer.
    """
    kernels = mask.reshape(*mask.shape[:2], -1, mask.shape[-1] if mask.ndim > 2 else 1)
    outputs, inputs, height, width = kernels.shape
    levels = np.full((outputs * (height + 1) + 1, inputs * (width + 1) + 1), BETWEEN, np.uint8)
    shades = np.where(kernels, np.uint8(KEPT), np.uint8(PRUNED))
    for row in range(height):
        for column in range(width):
            levels[1 + row :: height + 1, 1 + column :: width + 1][:outputs, :inputs] = shades[:, :, row, column]
    return levels


def kernel_pictures(masks: Sequence[tuple[str, BoolArray]], *, title: str) -> str:
    """Return the masks of one layer side by side, each under its name.

    Args:
        masks: (name, mask), all of one shape; at least one.
        title: what they show.
    """
    pictures = [kernel_levels(mask) for _, mask in masks]
    height, width = pictures[0].shape
    columns = min(len(masks), 4)
    room = (WIDTH - _GAP * (columns + 1)) / columns
    scale = min(8.0, room / width, _HIGHEST / height)
    parts = []
    for place, ((name, _), levels) in enumerate(zip(masks, pictures, strict=True)):
        row, column = divmod(place, columns)
        left, top = _GAP + column * (room + _GAP), _TOP + row * (height * scale + _TOP)
        data = base64.b64encode(png(levels)).decode()
        parts.append(text(left, top - 6, name))
        parts.append(
            f'<image x="{left:.1f}" y="{top:.1f}" width="{width * scale:.1f}" height="{height * scale:.1f}" '
            f'preserveAspectRatio="none" style="image-rendering:pixelated" href="data:image/png;base64,{data}"/>'
        )
    rows = (len(masks) + columns - 1) // columns
    return frame(parts, title, height=rows * (height * scale + _TOP) + _GAP)
