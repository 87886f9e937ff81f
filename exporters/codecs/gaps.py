"""Positions as gaps: how many weights are skipped before each kept one, entropy coded.

For a mask without structure gaps are geometric, and coding them costs exactly the entropy of the positions. A gap is
split as ``quotient * 2**shift + remainder``: remainders (nearly uniform) are stored as bits, quotients as bytes through
Huffman-only deflate, where 255 means "skip 255 more and read on", which spends no value slot. The shift keeps escapes
and alphabets small in very sparse or very small tensors. Where most weights are kept, the gaps run between the pruned
ones instead.

Stream: one control byte (bits 0-5 the shift, bit 7 set when pruned positions are listed), the remainders
(``shift`` bits each, :mod:`.bits`), the deflated quotient bytes.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...compressor.mask import BoolArray
from ...errors import FileFormatError
from . import bits
from .base import Layout
from .deflate import huffman, inflate
from .huffman import estimate

_ESCAPE = 255
_INVERTED = 0x80
_MAX_SHIFT = 40
# Shifts that are coded to see which is smallest.
_TRIED = 2


class Gaps:
    """Gaps with an escape, Huffman-only deflate; the smallest shift that gives the smallest stream."""

    id = "gaps"

    def encode(self, mask: BoolArray, layout: Layout) -> bytes | None:
        """Return the stream; None for a mask with nothing to list."""
        listed = min(layout.kept, layout.size - layout.kept)
        if listed == 0:
            return None
        inverted = layout.kept > layout.size - layout.kept
        flat = mask.reshape(-1)
        positions = np.flatnonzero(~flat if inverted else flat)
        gaps = np.diff(positions, prepend=-1) - 1
        shifts = range((layout.size // listed).bit_length() + 1)
        likely = sorted(shifts, key=lambda shift: _estimate(gaps, shift))[:_TRIED]
        return min((_encode(gaps, shift, inverted) for shift in sorted(likely)), key=len)

    def decode(self, stream: bytes, layout: Layout) -> BoolArray:
        """Return the mask; see :class:`.base.PositionCodec`."""
        if not stream:
            raise FileFormatError("a gap stream is empty.")
        inverted, shift = bool(stream[0] & _INVERTED), stream[0] & ~_INVERTED
        if shift > _MAX_SHIFT:
            raise FileFormatError(f"a gap stream has an impossible shift of {shift} bits.")
        listed = layout.size - layout.kept if inverted else layout.kept
        positions = _decode(stream[1:], shift, listed, layout.size)
        mask = np.full(layout.size, inverted)
        mask[positions] = not inverted
        return mask.reshape(layout.shape)


def _encode(gaps: npt.NDArray[np.int64], shift: int, inverted: bool) -> bytes:
    remainders = (gaps & ((1 << shift) - 1)).astype(np.uint64)
    control = shift | (_INVERTED if inverted else 0)
    return bytes([control]) + bits.pack(remainders, shift).tobytes() + huffman(_symbols(gaps, shift).tobytes())


def _estimate(gaps: npt.NDArray[np.int64], shift: int) -> float:
    """Return about how many bytes remainders and quotients take."""
    return bits.packed_size(gaps.size, shift) + estimate(_symbols(gaps, shift))


def _symbols(gaps: npt.NDArray[np.int64], shift: int) -> npt.NDArray[np.uint8]:
    quotients = gaps >> shift
    if int(quotients.max()) < _ESCAPE:
        return quotients.astype(np.uint8)
    escapes, last = np.divmod(quotients, _ESCAPE)
    ends = np.cumsum(escapes + 1)
    symbols = np.full(int(ends[-1]), _ESCAPE, np.uint8)
    symbols[ends - 1] = last
    return symbols


def _decode(stream: bytes, shift: int, listed: int, size: int) -> npt.NDArray[np.int64]:
    low = bits.packed_size(listed, shift)
    if listed == 0 or low > len(stream):
        raise FileFormatError(f"a gap stream of {len(stream)} bytes cannot list {listed} positions.")
    remainders = bits.unpack(stream[:low], listed, shift).astype(np.int64)
    # Every escape skips 255 quotients, so there cannot be more of them than fit in the tensor.
    limit = listed + (size >> shift) // _ESCAPE + 1
    symbols = np.frombuffer(inflate(stream[low:], limit), np.uint8)
    entries = np.flatnonzero(symbols != _ESCAPE)
    if entries.size != listed or int(entries[-1]) != symbols.size - 1:
        raise FileFormatError(
            f"a gap stream lists {entries.size} positions instead of {listed}, or has a loose escape."
        )
    positions: npt.NDArray[np.int64]
    if symbols.size == listed:
        # No escapes: the gaps are there at once, and one sum is enough.
        positions = np.cumsum((symbols.astype(np.int64) << shift) + remainders + 1)
        positions -= 1
    else:
        positions = (np.cumsum(symbols, dtype=np.int64)[entries] << shift) + np.cumsum(remainders + 1) - 1
    # All of them, not the last alone: the sum of large forged gaps wraps around and comes back.
    if int(positions.min()) < 0 or int(positions.max()) >= size:
        raise FileFormatError(f"a gap stream runs to position {int(positions[-1])} of a tensor of {size} weights.")
    return positions
