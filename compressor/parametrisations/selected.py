"""``selected``: the seeded initialisation where the mask is 1, zero elsewhere; nothing but the mask is stored."""

from __future__ import annotations

from ...files import Array, numpy_dtype
from ...models.seeding.rebuild import rebuild
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import Parametrisation, Parts, PartSpec, mask_of, seed_of


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    return {}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    kept = mask_of(record, mask)
    seeded = rebuild(seed_of(record), record.shape).astype(numpy_dtype(record.dtype), copy=False)
    seeded[~kept] = 0
    return seeded


SELECTED = Parametrisation(
    name="selected",
    summary="the seeded initialisation where the mask is 1; zero elsewhere",
    mask="required",
    variants=((),),
    zero_outside=True,
    specify=_specify,
    decode=_decode,
)
