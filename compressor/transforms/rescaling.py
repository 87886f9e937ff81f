"""Kept weights rescaled for the fewer inputs that a mask leaves: edge of chaos, and a smaller fan-in."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe

# The edge of chaos of ReLU networks without bias variance: sigma_w^2 = 2 (Hayou et al. 2021, section 2).
RELU_VARIANCE = 2.0


def edge_of_chaos(probe: Probe) -> Outcome:
    """Scale each layer by rho so that fan_in mean(rho^2 w^2 m) = 2, as the rescaling trick of Hayou et al. 2021 does.

    The mean runs over all entries, masked ones too, so that a layer's pre-activations keep their second moment.
    """
    weights = probe.weights()
    found = {}
    for tensor in probe.rule.space.tensors:
        weight = weights[tensor.name]
        moment = tensor.fan_in * float(np.square(weight, dtype=np.float64).mean())
        # An empty layer cannot be scaled up.
        scale = math.sqrt(RELU_VARIANCE / moment) if moment > 0 else 1.0
        found[tensor.name] = (weight * np.float64(scale)).astype(weight.dtype)
    return Outcome(weights=found)


def smaller_fan_in(probe: Probe) -> Outcome:
    """Scale each layer as if it had been drawn for the inputs that live units still give it.

    The standard deviation of an initialisation falls with the square root of the fan-in, so a draw for the smaller
    network is the same draw times sqrt(fan_in / live fan_in). A unit is live while its layer keeps a weight of it.
    """
    weights = probe.weights()
    live = live_inputs(probe)
    return Outcome(
        weights={
            name: (weights[name] * np.float64(1 / math.sqrt(share))).astype(weights[name].dtype)
            for name, share in live.items()
            if 0 < share < 1
        }
    )


def live_inputs(probe: Probe) -> dict[str, float]:
    """Return, by weight name, the share of its layer's inputs that are not constant zero whatever the input is.

    Found by sending ones through the network of absolute weights without biases and shifts: exactly what no live path
    reaches stays zero.
    """
    from ..evidence.reach import reached_inputs

    return reached_inputs(probe)
