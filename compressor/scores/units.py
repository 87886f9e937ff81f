"""From the weights of an output unit to one number, given back to each of them in equal parts.

A structure adds the scores of a unit's weights up. A score whose unit form is no sum (a norm, the square of a sum)
therefore gives every weight its unit's value divided by the unit's size: the sum is then the value, and the mean, by
which units of different layers are compared, is the value per weight.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import numpy.typing as npt

from ...files import Array

Reduce = Callable[[Array], npt.NDArray[np.float64]]


def per_unit(arrays: Mapping[str, Array], axes: Mapping[str, int], reduce: Reduce) -> dict[str, Array]:
    """Return each weight's share of what ``reduce`` makes of its unit.

    Args:
        arrays: by tensor name.
        axes: the axis of the output units; a tensor that is not named has weights that stand alone, and each of them is
            a unit.
        reduce: rows [units, weights of a unit] -> float64 [units].

    Returns:
        float64, in the tensors' shapes.
    """
    found: dict[str, Array] = {}
    for name, array in arrays.items():
        if name not in axes:
            found[name] = reduce(array.reshape(-1, 1)).reshape(array.shape)
            continue
        rows = np.moveaxis(array, axes[name], 0).reshape(array.shape[axes[name]], -1)
        extent = [1] * array.ndim
        extent[axes[name]] = -1
        share = (reduce(rows) / max(1, rows.shape[1])).reshape(extent)
        found[name] = np.ascontiguousarray(np.broadcast_to(share, array.shape))
    return found


def square_of_sum(rows: Array) -> npt.NDArray[np.float64]:
    """Return (sum of the row)**2: the terms cancel inside before they are squared (Molchanov et al. 2019, eq. 8)."""
    totals: npt.NDArray[np.float64] = np.square(rows.sum(axis=1, dtype=np.float64))
    return totals


def norm(rows: Array, order: float) -> npt.NDArray[np.float64]:
    """Return the L1, L2, L-infinity (largest) or L-minus-infinity (smallest magnitude) norm of each row."""
    magnitudes = np.abs(rows)
    result: npt.NDArray[np.float64]
    if order == 1:
        result = magnitudes.sum(axis=1, dtype=np.float64)
    elif order == 2:
        result = np.sqrt(np.square(magnitudes, dtype=np.float64).sum(axis=1))
    else:
        result = (magnitudes.max(axis=1) if order > 0 else magnitudes.min(axis=1)).astype(np.float64)
    return result
