"""``identity``: kept values, zero elsewhere; a tensor without a mask is its values."""

from __future__ import annotations

import numpy as np

from ...files import Array, numpy_dtype
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import VALUES, Parametrisation, Parts, PartSpec, one_part, placed


def kept_values(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    """Return the specification of one value for each kept weight, or of the whole tensor."""
    return {VALUES: PartSpec(record.dtype, (kept,) if record.masked else record.shape)}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    values = one_part(record, parts, VALUES)
    if mask is None:
        return values.reshape(record.shape)
    return placed(mask, values, np.zeros(record.shape, numpy_dtype(record.dtype)))


IDENTITY = Parametrisation(
    name="identity",
    summary="the kept values; zero elsewhere",
    mask="optional",
    variants=((),),
    unseeded=((),),
    zero_outside=True,
    specify=kept_values,
    decode=_decode,
)
