"""Scores from gradients of gates: of weights after some training steps, or of weights and units on equal footing."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...files import Array
from .products import shares, times

Arrays = Mapping[str, Array]


def gate_sensitivity(gates: Arrays) -> dict[str, Array]:
    """Return ``|dL/dc|`` divided by the sum over all weights (Alizadeh et al. 2022, ProsPr)."""
    return shares({name: np.abs(gate).astype(np.float64) for name, gate in gates.items()})


def weights_and_units(weights: Arrays, gradients: Arrays, gates: Arrays) -> dict[str, Array]:
    """Return the smaller of a weight's own sensitivity and that of its output unit (Verdenius et al. 2020, CNIP).

    One threshold for weights and units together keeps a weight when both reach it: when the smaller of the two does.

    Args:
        weights: by name, output units first.
        gradients: of the loss, in the weights' shapes.
        gates: dL/dc of gates on output units [units]; a weight without is judged by itself.
    """
    found = {}
    for name, weight in weights.items():
        own = np.abs(times(weight, gradients, name))
        if name in gates:
            unit = np.abs(gates[name]).astype(np.float64)
            own = np.minimum(own, unit.reshape(-1, *[1] * (weight.ndim - 1)))
        found[name] = own
    return shares(found)


def jacobian_sensitivity(weights: Arrays, gradients: Arrays, *, normalise: bool) -> dict[str, Array]:
    """Return ``|w dchi/dw|``, chi the size of a recurrent network's Jacobian (Zhang and Stadie 2020).

    Args:
        weights: by name.
        gradients: dchi/dw.
        normalise: divide by the mean ``|dchi/dw|`` of the tensor, so that matrices of other scale compare.

    Raises:
        UnsupportedError: the Jacobian does not depend on one of the weights.
    """
    found = {}
    for name, weight in weights.items():
        score = np.abs(times(weight, gradients, name))
        typical = float(np.abs(gradients[name]).mean(dtype=np.float64)) if normalise else 1.0
        found[name] = score / typical if typical > 0 else score
    return shares(found)
