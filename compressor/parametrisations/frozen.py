"""``frozen``: kept values, the seeded initialisation elsewhere; every value where the initialisation has no seed."""

from __future__ import annotations

from ...files import Array, numpy_dtype
from ...models.seeding.rebuild import rebuild
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import VALUES, Parametrisation, Parts, PartSpec, one_part, placed


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    return {VALUES: PartSpec(record.dtype, (kept,) if record.masked and record.seed else record.shape)}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    values = one_part(record, parts, VALUES)
    if mask is None or record.seed is None:
        return values.reshape(record.shape)
    return placed(mask, values, rebuild(record.seed, record.shape).astype(numpy_dtype(record.dtype), copy=False))


FROZEN = Parametrisation(
    name="frozen",
    summary="the kept values; the seeded initialisation elsewhere",
    mask="optional",
    variants=((),),
    unseeded=((),),
    zero_outside=False,
    specify=_specify,
    decode=_decode,
)
