"""Filters as coefficients of a basis: which tensors have one, the bases to begin with, and the way there and back.

Wimmer, Mehnert and Condurache 2022 ("Interspace Pruning"): a filter of N = prod(kernel) weights is a sum of N basis
filters. With orthonormal ones B (one a row) the coefficients of weights W [filters, N] are W B^T, and W is coefficients
times B; gradients of the coefficients come of those of the weights in the same way.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt

from ..files import Array
from ..models.seeding.normals import orthogonal

BASES = ("standard", "random")
SHARING = ("layer", "network")
# A kernel of more points is no filter, and its basis would be larger than its layer.
_LARGEST = 1024


def filter_length(shape: tuple[int, ...]) -> int:
    """Return N, the weights of a filter; 0 where a tensor has none that a basis could serve (linear, 1x1)."""
    length = math.prod(shape[2:])
    return length if len(shape) > 2 and 1 < length <= _LARGEST else 0


def basis_owners(shapes: Mapping[str, tuple[int, ...]], sharing: str) -> dict[str, str]:
    """Return for each tensor with filters the name of the tensor whose basis it takes.

    Args:
        shapes: of the tensors, in order.
        sharing: ``layer``: each its own; ``network``: the first with filters as long.
    """
    owners: dict[str, str] = {}
    first: dict[int, str] = {}
    for name, shape in shapes.items():
        if length := filter_length(shape):
            owners[name] = name if sharing == "layer" else first.setdefault(length, name)
    return owners


def first_basis(kind: str, length: int, seed: int, name: str) -> npt.NDArray[np.float32]:
    """Return the basis [N, N] that training begins with: the unit filters, or a random orthonormal one.

    Args:
        kind: one of :data:`BASES`.
        length: N.
        seed: the run's.
        name: of the tensor that owns it.
    """
    if kind == "standard":
        return np.eye(length, dtype=np.float32)
    return orthogonal(seed, f"{name}/filter-basis", (length, length))


def coefficients_of(array: Array, basis: Array) -> Array:
    """Return W B^T in the shape and dtype of ``array`` (weights, or their gradients)."""
    rows = array.reshape(-1, len(basis)).astype(np.float64) @ basis.T.astype(np.float64)
    result: Array = rows.reshape(array.shape).astype(array.dtype)
    return result


def in_interspace(arrays: Mapping[str, Array], kind: str, sharing: str, seed: int) -> dict[str, Array]:
    """Return the arrays with those of filters as coefficients of their first basis; the others as they are."""
    owners = basis_owners({name: array.shape for name, array in arrays.items()}, sharing)
    return {
        name: coefficients_of(array, first_basis(kind, filter_length(array.shape), seed, owners[name]))
        if name in owners and kind != "standard"
        else array
        for name, array in arrays.items()
    }
