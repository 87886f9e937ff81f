"""Gradient saliency: how much the loss reacts when a weight is switched off (Lee et al. 2019, SNIP).

A gate c on a weight has the gradient dL/dc = w * dL/dw at c = 1, so weights and gradients are all that is needed.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np

from ...errors import UnsupportedError
from ...files import Array
from .products import require_reached


def saliency(weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return ``|w * g|`` of every weight divided by the sum over all of them: float32, adding up to 1.

    Args:
        weights: by tensor name.
        gradients: of the loss, in the same shapes; over several batches they are added with their signs first, and the
            absolute value is taken here, once.

    Raises:
        UnsupportedError: a gradient is missing or of another shape, or the loss depends on no weight at all.
    """
    for name, weight in weights.items():
        require_reached(name, gradients)
        if gradients[name].shape != weight.shape:
            raise UnsupportedError(
                f"the gradient of '{name}' has shape {gradients[name].shape}, its weights have {weight.shape}."
            )
    total = math.fsum(float(_product(weight, gradients[name]).sum()) for name, weight in weights.items())
    if total == 0:
        raise UnsupportedError(
            "the loss does not depend on any prunable weight (every gradient is zero), so nothing can be ranked; "
            "look at the initialisation and at the data."
        )
    return {name: (_product(weight, gradients[name]) / total).astype(np.float32) for name, weight in weights.items()}


def _product(weight: Array, gradient: Array) -> Array:
    # In float64, because tiny gradients times tiny weights leave the range of float32 before they are normalised.
    return np.abs(np.multiply(weight, gradient, dtype=np.float64))
