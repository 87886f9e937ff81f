"""What stands where a ticket's mask is 0, element by element: zero, or the initial value frozen there.

Source: Zhou et al., Deconstructing Lottery Tickets, NeurIPS 2019, section 4: weights that training moved away from zero
are better frozen at their initial value, those that it moved towards zero are better set to zero.
"""

from __future__ import annotations

import numpy as np

from ...files import Array
from ..evidence.probe import Probe
from ..mask import BoolArray
from ..training.tape import step_label
from . import Outcome

ACTIONS = ("zero", "freeze", "freeze-or-zero")


def moved_away(first: Array, last: Array) -> BoolArray:
    """Return where training did not decrease the magnitude.

    What an earlier round froze has not moved and so stays frozen; what it set to zero stays zero.
    """
    return np.asarray(np.abs(last) >= np.abs(first))


def pruned_weights(probe: Probe) -> Outcome:
    """Apply the option ``pruned`` (one of :data:`ACTIONS`).

    What is frozen belongs to the checkpoint's mask, because it computes and is stored, and is listed as fixed, because
    it is not trained.
    """
    action = probe.options["pruned"]
    if action == "zero":
        return Outcome()
    early = probe.tape(step_label(probe.options["rewind_step"]))
    present = probe.weights()
    masks, fixed, weights = {}, {}, {}
    for name, mask in probe.masks.items():
        frozen = ~mask
        if action == "freeze-or-zero":
            frozen &= moved_away(early[name], probe.trained[name])
        masks[name] = mask | frozen
        fixed[name] = frozen
        weights[name] = np.where(frozen, early[name], present[name])
    return Outcome(masks=masks, weights=weights, fixed=fixed)
