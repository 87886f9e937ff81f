"""LAMP: magnitude relative to the weights of the same layer that are not smaller (Lee et al. 2021, eq. 3)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...files import Array


def layer_adaptive_magnitude(weights: Mapping[str, Array]) -> dict[str, Array]:
    """Return ``w_u**2 / sum of w_v**2 over the v of the same tensor with |w_v| >= |w_u|``, float64, in [0, 1].

    The largest weight of each tensor scores 1, so that ranking all tensors together empties none of them before the
    others are down to one weight; within a tensor the order is that of magnitude. Equal magnitudes are ranked by
    position, the first one highest, as selection breaks ties. Wimmer et al. (arXiv 2205.08099, table 1) print the
    formula without squares; the authors' experiments square.

    Args:
        weights: by tensor name, pruned ones zero (they score 0).
    """
    return {name: _scores(weight.reshape(-1)).reshape(weight.shape) for name, weight in weights.items()}


def _scores(weights: Array) -> Array:
    squares = np.square(weights, dtype=np.float64)
    # Descending and stable: the first of equals has the smallest sum, and so the highest score.
    order = np.argsort(-squares, kind="stable")
    sums = np.cumsum(squares[order])
    scores = np.zeros(squares.size)
    np.divide(squares[order], sums, out=sums, where=sums > 0)
    scores[order] = sums
    return scores
