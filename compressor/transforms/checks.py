"""Sanity checks of a mask: what is left of a ticket when only its layer densities are, or only its places.

Sources: Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020; Frankle et al.,
Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..evidence.probe import Probe
from ..mask import BoolArray
from ..training.tape import step_label
from . import Outcome
from .kept_weights import drawn_again, shuffled

# ``invert`` is a matter of the score, and the corrupted data one of the training: none of them changes a finished mask.
CHECKS = ("shuffle-mask", "shuffle-weights", "reinitialise", "invert", "random-labels", "shuffled-pixels")


def shuffled_masks(masks: Mapping[str, BoolArray], seed: int) -> dict[str, BoolArray]:
    """Return each mask with its entries in a random order: the count of every tensor stays."""
    return {name: shuffled(mask, seed, f"{name}/shuffled-mask") for name, mask in masks.items()}


def sanity_check(probe: Probe) -> Outcome:
    """Apply the option ``check`` to the final mask or to the weights under it."""
    check = probe.options["check"]
    early = probe.tape(step_label(probe.options["rewind_step"]))
    if check == "shuffle-mask":
        return Outcome(
            masks=shuffled_masks(probe.masks, probe.seed), weights={name: early[name] for name in probe.masks}
        )
    if check == "shuffle-weights":
        return Outcome(
            weights={name: shuffled(early[name], probe.seed, f"{name}/shuffled-weights") for name in probe.names}
        )
    if check == "reinitialise":
        return Outcome(weights=drawn_again(probe, probe.names))
    return Outcome()
