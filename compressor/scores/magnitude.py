"""Magnitude: a weight is worth its absolute value (Han et al. 2015; LeCun et al. 1990 discuss it as the baseline)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...files import Array
from .units import norm as norm_of
from .units import per_unit

# Norms of a unit by their option's names.
NORMS = {"l1": 1.0, "l2": 2.0, "l-inf": math.inf, "l-minus-inf": -math.inf}


def magnitude(
    weights: Mapping[str, Array], norm: str = "l1", axes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Return ``|w|`` for each tensor, in its own shape and dtype; for whole units, their norm in equal parts.

    The d largest are the best d-sparse approximation of w in every norm. In an iterative schedule give the masked
    weights, so that groups are ranked by what is left of them.

    Args:
        weights: by tensor name.
        norm: of a unit: a key of :data:`NORMS`. Single weights have the same order under all of them.
        axes: the axis of output units by name, where these stand or fall as a whole.
    """
    # The sum of magnitudes is what a structure makes of single weights by itself.
    if norm == "l1" or not axes:
        return {name: np.abs(array) for name, array in weights.items()}
    return per_unit(weights, axes, lambda rows: norm_of(rows, NORMS[norm]))
