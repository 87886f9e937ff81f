"""``signs``: mask x sign x magnitude, where each of the two is stored once or comes from the seed.

    parts            sign                        magnitude                    for instance
    signs, scale     a stored bit a kept weight  one stored number a tensor   binarised weights on any initialisation
    scale            the seed's own              one stored number a tensor   biprop (Diffenderfer and Kailkhura 2021)
    signs            a stored bit a kept weight  the seed's own               Peek-a-Boo (Chen et al. 2022), signed
                                                                              supermasks (Koster et al. 2022)

``signs`` holds a bit for each kept weight in row-major order, lowest bit first, 1 = negative; ``scale`` is one number
of the tensor's dtype, and a negative scale turns every sign round.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...files import Array, numpy_dtype
from ...models.seeding.rebuild import rebuild
from ..mask import BoolArray, pack_bits, unpack_bits
from ..tensor_record import TensorRecord
from .base import Parametrisation, Parts, PartSpec, mask_of, one_part, placed, seed_of

SIGNS, SCALE = "signs", "scale"


def parts_of(
    mask: BoolArray, negative: BoolArray | None = None, scale: Array | np.floating[Any] | None = None
) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        mask: bool, dense shape.
        negative: bool, dense shape, True where the weight is negative; None: the seed's own signs.
        scale: the magnitude of all kept weights, one number in the tensor's dtype; None: the seed's own magnitudes.
    """
    parts: dict[str, Array] = {}
    if negative is not None:
        parts[SIGNS] = pack_bits(negative[mask])
    if scale is not None:
        parts[SCALE] = np.asarray(scale).reshape(1)
    return parts


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    known = {SIGNS: PartSpec("uint8", ((kept + 7) // 8,)), SCALE: PartSpec(record.dtype, (1,))}
    return {part: known[part] for part in record.parts}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    kept = mask_of(record, mask)
    places = np.flatnonzero(kept)
    drawn: Array = np.zeros(0, np.float32)
    if len(record.parts) < 2:
        drawn = rebuild(seed_of(record), record.shape).reshape(-1)[places]
    if SIGNS in record.parts:
        negative = unpack_bits(one_part(record, parts, SIGNS), (places.size,))
    else:
        negative = np.signbit(drawn)
    dtype = numpy_dtype(record.dtype)
    magnitudes = one_part(record, parts, SCALE) if SCALE in record.parts else np.abs(drawn).astype(dtype)
    values = np.where(negative, -magnitudes, magnitudes).astype(dtype, copy=False)
    return placed(kept, values, np.zeros(record.shape, dtype))


SIGNS_AND_SCALES = Parametrisation(
    name="signs",
    summary="mask x sign (stored, or the seed's) x magnitude (one scale, or the seed's)",
    mask="required",
    variants=((SCALE,), (SIGNS,), (SCALE, SIGNS)),
    unseeded=((SCALE, SIGNS),),
    zero_outside=True,
    specify=_specify,
    decode=_decode,
)
