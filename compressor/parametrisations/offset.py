"""``offset``: sparse values plus a fixed dense matrix, the discrete cosine transform, times one stored number.

Source: DCT plus sparse (Price and Tanner 2021): W = scale * C + S, where S is sparse and C is the orthonormal type-II
DCT of size n = max(rows, columns), cropped to the rows and columns of the weight seen as a matrix (output units by
everything else):

    C[k, j] = sqrt(2 / n) * cos(pi (2 j + 1) k / (2 n)),   row 0 divided by sqrt(2)

Cosines are computed by a polynomial in plain additions and multiplications, not by a library function whose last bit
differs between machines, so that a file decodes to the same bits everywhere.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import numpy.typing as npt

from ...files import Array
from ...models.seeding.keyed_product import matrix_shape
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import VALUES, Parametrisation, Parts, PartSpec, arithmetic, mask_of, narrowed, one_part, placed
from .identity import kept_values

SCALE = "scale"
# Rows of the matrix that are computed together.
_CHUNK = 1 << 18
# Terms of both series up to pi / 4, where the next one is below 1e-18.
_TERMS = 9


def parts_of(sparse: Array, mask: BoolArray, scale: Array | np.floating[Any]) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        sparse: S, in the weight's shape and dtype; what the mask leaves out is ignored.
        mask: bool, in the weight's shape.
        scale: one number in the weight's dtype.
    """
    return {VALUES: sparse[mask], SCALE: np.asarray(scale).reshape(1)}


def cosine_transform(rows: int, columns: int, begin: int = 0, end: int | None = None) -> npt.NDArray[np.float64]:
    """Return rows ``begin`` to ``end`` of the cropped orthonormal type-II DCT matrix [rows, columns], float64."""
    n = max(rows, columns)
    quarter = _quarter_wave(n)
    row = np.arange(begin, rows if end is None else end, dtype=np.int64)[:, None]
    phase = (2 * np.arange(columns, dtype=np.int64)[None, :] + 1) * row % (4 * n)
    # The cosine of pi m / (2 n) for m up to 4 n from its first quarter.
    phase = np.where(phase > 2 * n, 4 * n - phase, phase)
    cosine = np.where(phase > n, -quarter[np.minimum(2 * n - phase, n)], quarter[np.minimum(phase, n)])
    factor = np.where(row == 0, np.sqrt(1.0 / n), np.sqrt(2.0 / n))
    result: npt.NDArray[np.float64] = cosine * factor
    return result


def _quarter_wave(n: int) -> npt.NDArray[np.float64]:
    """Return cos(pi m / (2 n)) for m = 0 .. n."""
    steps = np.arange(n + 1)
    # Beyond pi / 4 the cosine is the sine of what is left to pi / 2: exactly 0 at its end.
    far = 2 * steps > n
    x = np.where(far, n - steps, steps) * (math.pi / (2 * n))
    square = x * x
    cosine, sine = np.zeros_like(x), np.zeros_like(x)
    for term in range(_TERMS, -1, -1):
        sign = -1.0 if term % 2 else 1.0
        cosine = cosine * square + sign / math.factorial(2 * term)
        sine = sine * square + sign / math.factorial(2 * term + 1)
    return np.where(far, sine * x, cosine)


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    return {**kept_values(record, kept), SCALE: PartSpec(record.dtype, (1,))}


@np.errstate(over="ignore", invalid="ignore")
def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    dtype = arithmetic(record)
    dense = np.zeros(record.shape, dtype)
    placed(mask_of(record, mask), one_part(record, parts, VALUES).astype(dtype), dense)
    rows, columns = matrix_shape(record.shape)
    scale = one_part(record, parts, SCALE).astype(dtype)
    matrix = dense.reshape(rows, columns)
    step = max(1, _CHUNK // max(1, columns))
    for begin in range(0, rows, step):
        end = min(begin + step, rows)
        matrix[begin:end] += cosine_transform(rows, columns, begin, end).astype(dtype) * scale
    return narrowed(record, matrix)


OFFSET = Parametrisation(
    name="offset",
    summary="sparse values plus one stored number times a fixed cosine transform",
    mask="required",
    variants=((SCALE,),),
    unseeded=((SCALE,),),
    zero_outside=False,
    specify=_specify,
    decode=_decode,
    exact=False,
)
