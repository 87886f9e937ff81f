"""``projection``: the seeded initial tensor plus a seeded random matrix times a short stored vector.

Source: intrinsic dimension (Li et al. 2018). The vector is shared by every tensor of the network (or by a group); each
tensor has its own random matrix [weights, d], which is never built: it is the first d columns, cropped to the tensor's
weights, of a fast structured matrix in the manner of Fastfood (Le, Sarlos and Smola 2013),

    H D3 H D2 H D1 / n,     n = the smallest power of two that is at least the weights and d

where H is the Hadamard matrix of size n (entries +-1) and D1, D2, D3 are diagonals of random signs. Its entries have
mean square 1 and the n columns are orthogonal, of length sqrt(n). A training that wants unit columns over D weights in
all stores its coordinates divided by sqrt(D).

A sign is the top bit of a word of the stream ``NAME/projection`` of the record's seed, D1's first: 1 = negative. The
transform takes its additions in one order (:func:`hadamard`), so that every machine gets the same bits; time and memory
are those of a sort, not those of a matrix.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from ...files import Array
from ...models.seeding.philox import words
from ...models.seeding.rebuild import rebuild
from ...models.seeding.record import SeedRecord
from ..mask import BoolArray
from ..tensor_record import TensorRecord
from .base import Parametrisation, Parts, PartSpec, narrowed, one_part, seed_of, size_of

COORDINATES, INITIAL = "coordinates", "initial"
FloatArray = npt.NDArray[np.float32]


def parts_of(coordinates: FloatArray, initial: Array | None = None) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        coordinates: float32 [d].
        initial: the tensor that the projection is added to, float32; None: the seed draws it.
    """
    parts: dict[str, Array] = {COORDINATES: np.ascontiguousarray(coordinates, np.float32)}
    if initial is not None:
        parts[INITIAL] = np.ascontiguousarray(initial)
    return parts


def length_of(weights: int, dimension: int) -> int:
    """Return n, the size of the transform for a tensor of ``weights`` and ``dimension`` coordinates."""
    return 1 << (max(1, weights, dimension) - 1).bit_length()


def signs_of(record: SeedRecord, length: int) -> FloatArray:
    """Return the three diagonals, float32 [3, length], each entry 1 or -1."""
    negative = words(record.seed, f"{record.name}/projection", 0, 3 * length) >> np.uint32(31)
    return (1.0 - 2.0 * negative.astype(np.float32)).reshape(3, length).astype(np.float32)


def hadamard(vector: FloatArray) -> FloatArray:
    """Return H times a vector of a power of two entries: sums and differences at distance 1, then 2, then 4 ..."""
    result = vector
    distance = 1
    while distance < vector.size:
        pairs = result.reshape(-1, 2, distance)
        result = np.stack([pairs[:, 0] + pairs[:, 1], pairs[:, 0] - pairs[:, 1]], axis=1)
        distance *= 2
    return result.reshape(vector.shape)


def project(record: SeedRecord, weights: int, coordinates: FloatArray) -> FloatArray:
    """Return what the coordinates add to a tensor, float32 [weights]."""
    length = length_of(weights, coordinates.size)
    vector = np.zeros(length, np.float32)
    vector[: coordinates.size] = coordinates
    for diagonal in signs_of(record, length):
        vector = hadamard(vector * diagonal)
    return (vector * np.float32(1.0 / length))[:weights]


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    known = {COORDINATES: PartSpec("float32", (record.count,)), INITIAL: PartSpec(record.dtype, record.shape)}
    return {part: known[part] for part in record.parts}


@np.errstate(over="ignore", invalid="ignore")
def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    seed = seed_of(record)
    initial = one_part(record, parts, INITIAL) if INITIAL in record.parts else rebuild(seed, record.shape)
    moved = project(seed, size_of(record), one_part(record, parts, COORDINATES).astype(np.float32, copy=False))
    return narrowed(record, initial.reshape(-1) + moved)


def _problem(record: TensorRecord) -> str | None:
    if record.dtype != "float32":
        return f"is of {record.dtype}; a projection moves float32 tensors"
    if record.count < 1:
        return f"has {record.count} coordinates; there is at least one"
    return None


PROJECTION = Parametrisation(
    name="projection",
    summary="the seeded tensor plus a seeded random matrix times a short stored vector",
    mask="refused",
    variants=((COORDINATES,), (COORDINATES, INITIAL)),
    zero_outside=False,
    specify=_specify,
    decode=_decode,
    shared=(COORDINATES,),
    exact=False,
    problem_of=_problem,
)
