"""Parametrisations that a graph rebuilds by what it has already: a seed under a mask, or a codebook of a few values.

    masks     the mask of the task that computes, over the seeded tensor (the other tasks' masks are not in the graph)
    signs     with the seed's own signs: a signed constant of the same random words, its bound the scale
    signs, options of a few values    a codebook without loss: a bit a weight where there are two values

Everything else is stored as values. What comes out has the hash of the tensor that went in.
"""

from __future__ import annotations

import msgspec
import numpy as np

from ...compressor.checkpoint import SparseTensor
from ...compressor.parametrisations.masks import INITIAL
from ...compressor.parametrisations.signs import SCALE
from ...files import Array, sha256_array
from ..codecs.floats import FLOATS
from ..quantise import Coded
from ..value_types import CODEBOOK

# Parametrisations of which a graph needs no values, as a rule.
REDUCED = ("masks", "signs")
# Signs and choices have few values where magnitudes are constant; with more, codes of eight bits gain little.
_FEW = 16


def reduced(tensor: SparseTensor) -> SparseTensor:
    """Return a tensor as ``selected`` where that gives the same bits, else the tensor itself."""
    record = tensor.record
    seed = record.seed
    if tensor.mask is None or seed is None:
        return tensor
    if record.parametrisation == "signs" and record.parts == (SCALE,):
        if seed.initialiser == "constant" or not seed.bound > 0 or record.dtype == "float64":
            return tensor
        seed = msgspec.structs.replace(seed, initialiser="signed-constant", bound=float(tensor.parts[SCALE][0]))
    elif record.parametrisation != "masks" or INITIAL in record.parts:
        return tensor
    made = msgspec.structs.replace(record, parametrisation="selected", seed=seed, parts=(), count=0, task=0)
    found = SparseTensor(made, tensor.mask, None)
    return found if sha256_array(found.dense()) == record.sha256 else tensor


def few_values(tensor: SparseTensor, values: Array) -> Coded | None:
    """Return the values of signs or choices as a codebook without loss; None where there are many.

    Args:
        tensor: as the checkpoint has it.
        values: its kept values, 1-D, in its own dtype.
    """
    if tensor.record.parametrisation not in ("signs", "options") or not values.size or values.dtype.name not in FLOATS:
        return None
    bits = values.view(f"u{values.dtype.itemsize}")
    found, codes = np.unique(bits, return_inverse=True)
    if found.size > _FEW:
        return None
    return Coded(CODEBOOK, codes.astype(np.uint8), found.view(values.dtype))
