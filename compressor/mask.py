"""Masks as plain arrays: bool, in the tensor's own shape, True where the weight is kept."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..errors import FileFormatError

BoolArray = npt.NDArray[np.bool_]


def pack_bits(mask: BoolArray) -> npt.NDArray[np.uint8]:
    """Return the row-major mask as bits, eight a byte, lowest bit first; unused bits are zero."""
    return np.packbits(mask.reshape(-1), bitorder="little")


def unpack_bits(packed: npt.NDArray[np.uint8], shape: tuple[int, ...]) -> BoolArray:
    """Return the mask of ``shape`` that :func:`pack_bits` packed.

    Raises:
        FileFormatError: the bit count does not fit, or an unused bit is set (only one encoding is canonical).
    """
    count = int(np.prod(shape, dtype=np.int64))
    if packed.size != (count + 7) // 8:
        raise FileFormatError(f"a mask of shape {shape} needs {(count + 7) // 8} bytes, not {packed.size}.")
    bits = np.unpackbits(packed, bitorder="little")
    if bits[count:].any():
        raise FileFormatError(f"a mask of shape {shape} has bits set behind its end.")
    return bits[:count].view(np.bool_).reshape(shape)


def kept(masks: Mapping[str, BoolArray]) -> int:
    """Return how many entries all masks together keep."""
    return sum(int(np.count_nonzero(mask)) for mask in masks.values())


def density(masks: Mapping[str, BoolArray]) -> float:
    """Return kept over total entries; 1.0 for no masks at all."""
    total = sum(mask.size for mask in masks.values())
    return kept(masks) / total if total else 1.0


def empty_layers(masks: Mapping[str, BoolArray]) -> list[str]:
    """Return the names whose mask keeps nothing (layer collapse), in order."""
    return [name for name, mask in masks.items() if mask.size and not mask.any()]
