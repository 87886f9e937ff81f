"""How a tensor of a sparse checkpoint is put together: the closed list that records name, one file each.

    identity    kept values, zero elsewhere
    frozen      kept values, the seeded initialisation elsewhere
    selected    the seeded initialisation where the mask is 1, zero elsewhere
    signs       mask x sign x magnitude, each stored once or from the seed
    options     one of K seeded candidates for each weight, its number stored
    masks       one mask a task over one seeded tensor
    basis       masked coefficients times a small stored basis of filters
    offset      sparse values plus one number times a fixed cosine transform
    projection  the seeded tensor plus a seeded random matrix times a short stored vector

A training says what it leaves by :meth:`.training.dynamics.Dynamics.handover`.
"""

from .base import VALUES, Handover, Parametrisation, Parts, PartSpec
from .basis import FILTER_BASIS
from .frozen import FROZEN
from .identity import IDENTITY
from .masks import ONE_A_TASK
from .offset import OFFSET
from .options import OPTIONS
from .projection import PROJECTION
from .selected import SELECTED
from .signs import SIGNS_AND_SCALES

PARAMETRISATIONS: dict[str, Parametrisation] = {
    kind.name: kind
    for kind in (
        IDENTITY,
        FROZEN,
        SELECTED,
        SIGNS_AND_SCALES,
        OPTIONS,
        ONE_A_TASK,
        FILTER_BASIS,
        OFFSET,
        PROJECTION,
    )
}

__all__ = ["PARAMETRISATIONS", "VALUES", "Handover", "Parametrisation", "PartSpec", "Parts"]
