"""Magnitude: a weight is worth its absolute value (Han et al. 2015; LeCun et al. 1990 discuss it as the baseline)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...files import Array


def magnitude(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return ``|w|`` for each tensor, in its own shape and dtype.

    The d largest are the best d-sparse approximation of w in every norm. In an iterative schedule give the masked
    weights, so that groups are ranked by what is left of them.
    """
    return {name: np.abs(array) for name, array in weights.items()}
