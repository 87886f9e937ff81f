"""What a tensor's seed drew where values are stored, and whether these are shorter told from there."""

from __future__ import annotations

import numpy as np

from ..compressor.mask import BoolArray
from ..files import Array
from ..models.seeding.rebuild import rebuild
from ..models.seeding.record import SeedRecord
from .codecs.drift import applies, encode_drift, probe_size, promises
from .parts import Part


def encode_drifted(part: Part, size: int) -> bytes | None:
    """Return a part's values as distances from what its seed drew; None where that does not apply or hardly pays.

    Args:
        part: with values that are no codes.
        size: the bytes of their smallest other stream.
    """
    if part.values is None or part.seed is None or part.coded is not None or not applies(part.values.dtype):
        return None
    count, shape, dtype = part.values.size, part.entry.shape, part.values.dtype
    if count == 0 or not promises(
        part.values, drawn_values(part.seed, shape, part.mask, dtype, probe_size(count)), size
    ):
        return None
    stream = encode_drift(part.values, drawn_values(part.seed, shape, part.mask, dtype, count))
    return stream if len(stream) < size else None


def drawn_values(
    seed: SeedRecord, shape: tuple[int, ...], mask: BoolArray | None, dtype: np.dtype[np.generic], count: int
) -> Array:
    """Return what a seed draws at the first ``count`` (> 0) places that a mask keeps (None: all); 1-D, rounded."""
    if mask is None:
        return rebuild(seed, shape, 0, count).astype(dtype, copy=False)
    places = np.flatnonzero(mask)[:count]
    return rebuild(seed, shape, 0, int(places[-1]) + 1)[places].astype(dtype, copy=False)
