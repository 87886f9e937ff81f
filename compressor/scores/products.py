"""Scores that are products of a weight with what the network says about it: flow, curvature, gradients (at init).

All are computed in float64; where signs matter the sum of absolute values is what they are divided by.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...errors import UnsupportedError
from ...files import Array
from .units import per_unit

Arrays = Mapping[str, Array]


def grasp(weights: Arrays, products: Arrays) -> dict[str, Array]:
    """Return ``w Hg / sum |w Hg|``: what keeping a weight adds to the gradient's norm (Wang et al. 2020).

    Signed: a weight whose removal makes the gradient grow comes last. (Some surveys print the opposite reading; the
    authors' code removes the largest ``-w Hg``.)
    """
    return shares({name: times(weight, products, name) for name, weight in weights.items()})


def gradient_norm_preservation(
    weights: Arrays, products: Arrays, axes: Mapping[str, int] | None = None
) -> dict[str, Array]:
    """Return ``|w Hg|``: how much the gradient's norm changes either way (Lubana and Dick 2021), adding up to 1.

    Args:
        weights: by tensor name.
        products: Hg, in the weights' shapes.
        axes: the axis of output units by name, where these stand or fall as a whole: ``|sum w Hg|`` of each, in equal
            parts, because what one weight adds to the norm another may take away.
    """
    signed = {name: times(weight, products, name) for name, weight in weights.items()}
    return shares(per_unit(signed, axes or {}, lambda rows: np.abs(rows.sum(axis=1, dtype=np.float64))))


def loss_preservation(weights: Arrays, gradients: Arrays) -> dict[str, Array]:
    """Return ``|g| w^2``: loss preservation aware of magnitude (Lubana and Dick 2021, section 5), adding up to 1."""
    return shares({name: np.abs(times(weight, gradients, name)) * np.abs(weight) for name, weight in weights.items()})


def synflow(weights: Arrays, flow: Arrays) -> dict[str, Array]:
    """Return ``|w| dR/d|w|`` (Tanaka et al. 2020, eq. 2), float64: its size grows with the depth."""
    return {name: np.abs(weight) * flow[name] for name, weight in weights.items()}


def path_norm(weights: Arrays, flow: Arrays) -> dict[str, Array]:
    """Return ``w^2 dR/d(w^2)``: the share of the squared path norm that passes through each weight, float64."""
    return {name: np.square(weight, dtype=np.float64) * flow[name] for name, weight in weights.items()}


def times(weight: Array, others: Arrays, name: str) -> Array:
    """Return a weight times what stands under its name, in float64.

    Raises:
        UnsupportedError: there is nothing of that name.
    """
    require_reached(name, others)
    return np.multiply(weight, others[name], dtype=np.float64)


def require_reached(name: str, others: Arrays) -> None:
    """Check that the network says something about a weight.

    Raises:
        UnsupportedError: there is nothing of that name.
    """
    if name not in others:
        raise UnsupportedError(
            f"no gradient reaches '{name}', so its weights cannot be scored: no output depends on it, or its "
            f"requires_grad is False. Leave it out (--exclude '{name}'), or choose another method."
        )


def shares(values: Mapping[str, Array]) -> dict[str, Array]:
    """Return the values divided by the sum of their absolute values, float32.

    Raises:
        UnsupportedError: all are zero.
    """
    total = math.fsum(float(np.abs(array).sum()) for array in values.values())
    if total == 0:
        raise UnsupportedError(
            "the score of every weight is zero, so nothing can be ranked; look at the initialisation and at the data."
        )
    return {name: (array / total).astype(np.float32) for name, array in values.items()}
