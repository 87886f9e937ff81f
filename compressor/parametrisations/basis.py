"""``basis``: masked coefficients times a small stored basis that the filters of a layer, or of the network, share.

Source: interspace pruning (Wimmer, Mehnert and Condurache 2022). A convolution [O, I, *kernel] with N = prod(kernel)
has O x I filters; filter f is sum over n of coefficient[f, n] * basis[n], the coefficients laid out as the weights are.

Sums are taken in order of n by one multiplication and one addition an element: every machine gets the same bits.
"""

from __future__ import annotations

import math

import numpy as np

from ...files import Array
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import VALUES, Parametrisation, Parts, PartSpec, arithmetic, narrowed, one_part, placed
from .identity import kept_values

BASIS = "basis"
# A kernel of more than 32 x 32 points is no filter, and its basis would be larger than its layer.
_LARGEST_BASIS = 1024


def parts_of(coefficients: Array, basis: Array, mask: BoolArray | None = None) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        coefficients: in the weight's shape and dtype; what the mask leaves out is ignored.
        basis: [N, N] in the weight's dtype, one basis filter a row.
        mask: of the coefficients, bool, in the weight's shape; None: all are kept.
    """
    return {VALUES: coefficients if mask is None else coefficients[mask], BASIS: np.ascontiguousarray(basis)}


def _length(record: TensorRecord) -> int:
    return math.prod(record.shape[2:])


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    return {**kept_values(record, kept), BASIS: PartSpec(record.dtype, (_length(record), _length(record)))}


@np.errstate(over="ignore", invalid="ignore")
def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    dtype, length = arithmetic(record), _length(record)
    coefficients = one_part(record, parts, VALUES).astype(dtype)
    if mask is not None:
        coefficients = placed(mask, coefficients, np.zeros(record.shape, dtype))
    basis = one_part(record, parts, BASIS).astype(dtype)
    filters = coefficients.reshape(-1, length)
    total = np.zeros_like(filters)
    for number in range(length):
        total += filters[:, number : number + 1] * basis[number]
    return narrowed(record, total)


def _problem(record: TensorRecord) -> str | None:
    if len(record.shape) < 3 or not 1 < _length(record) <= _LARGEST_BASIS:
        return f"of shape {record.shape} has no filters of 2 to {_LARGEST_BASIS} weights for a basis"
    return None


FILTER_BASIS = Parametrisation(
    name="basis",
    summary="masked coefficients times a small stored basis of filters",
    mask="optional",
    variants=((BASIS,),),
    unseeded=((BASIS,),),
    zero_outside=False,
    specify=_specify,
    decode=_decode,
    shared=(BASIS,),
    exact=False,
    problem_of=_problem,
)
