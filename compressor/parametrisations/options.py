"""``options``: every kept weight is one of K seeded candidates, and what is stored is the number of the one chosen.

Source: slot machines (Aladago and Torresani 2021); a weight that is drawn again from time to time (IteRand, Chijiwa et
al. 2021) is the same thing, its number being the draw that it stayed at. Candidate 0 is what the seed draws for the
tensor itself; :mod:`sparsepack.models.seeding.candidates` says how the others follow.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...errors import FileFormatError
from ...files import Array, numpy_dtype
from ...models.seeding.candidates import chosen
from ...models.seeding.keyed_product import matrix_shape
from ...models.seeding.record import PHILOX
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import Parametrisation, Parts, PartSpec, one_part, placed, seed_of, size_of

CHOICES = "choices"
MOST_CANDIDATES = 4096
# Column keys of a keyed product that may be drawn for a tensor: as many as this, or as eight times its weights.
_FREE_KEYS, _KEYS_A_WEIGHT = 2**16, 8


def parts_of(choices: npt.NDArray[np.integer], count: int, mask: BoolArray | None = None) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        choices: the number of each weight's candidate, dense shape; what the mask leaves out is ignored.
        count: K, the number of candidates.
        mask: bool, dense shape; None: every weight is kept.
    """
    kept = choices.reshape(-1) if mask is None else choices[mask]
    return {CHOICES: kept.astype(_dtype(count))}


def _dtype(count: int) -> str:
    return "uint8" if count <= 256 else "uint16"


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    return {CHOICES: PartSpec(_dtype(record.count), (kept,))}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    dtype = numpy_dtype(record.dtype)
    choices = one_part(record, parts, CHOICES)
    places = np.arange(size_of(record)) if mask is None else np.flatnonzero(mask)
    values = chosen(seed_of(record), record.shape, places, choices).astype(dtype, copy=False)
    return values.reshape(record.shape) if mask is None else placed(mask, values, np.zeros(record.shape, dtype))


def _problem(record: TensorRecord) -> str | None:
    if not 2 <= record.count <= MOST_CANDIDATES:
        return f"has {record.count} candidates a weight; there are 2 to {MOST_CANDIDATES}"
    keys = record.count * matrix_shape(record.shape)[1]
    keyed = record.seed is not None and record.seed.generator != PHILOX
    if keyed and keys > max(_FREE_KEYS, _KEYS_A_WEIGHT * size_of(record)):
        return f"needs {keys} keys for {record.count} candidates a weight; the generator {PHILOX} needs none"
    return None


def _check(record: TensorRecord, parts: Parts) -> None:
    choices = one_part(record, parts, CHOICES)
    if choices.size and int(choices.max()) >= record.count:
        raise FileFormatError(
            f"tensor '{record.name}' chooses candidate {int(choices.max())}, and there are {record.count}."
        )


OPTIONS = Parametrisation(
    name="options",
    summary="one of K seeded candidates for each kept weight, its number stored; zero elsewhere",
    mask="optional",
    variants=((CHOICES,),),
    zero_outside=True,
    specify=_specify,
    decode=_decode,
    problem_of=_problem,
    check=_check,
)
