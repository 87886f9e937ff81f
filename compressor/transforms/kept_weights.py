"""f2 of lottery tickets: what the kept weights become beside their early values.

Sources: Frankle and Carbin, ICLR 2019 (re-initialisation); Zhou et al., NeurIPS 2019 (constant times sign, reshuffling
and the random-sign control); On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020
(sign, and sign times standard deviation, of biases too).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

import numpy as np

from ...files import Array
from ...models.seeding.philox import words
from ...models.seeding.shuffle import permutation
from ..evidence.probe import Probe
from ..training.tape import step_label
from . import Outcome

# One tensor's early values (dense), the run's seed and the name of a stream of its own -> its new values (dense).
_Rule = Callable[[Array, int, str], Array]


def signed_scale(early: Array) -> Array:
    """Return ``sigma * sign(w)``: sigma is the sample standard deviation of the tensor's early values."""
    sigma = np.std(early, ddof=1) if early.size > 1 else np.abs(early).max(initial=0)
    scaled: Array = (sigma * np.sign(early)).astype(early.dtype)
    return scaled


def _random_sign(early: Array, seed: int, stream: str) -> Array:
    signs = np.where(words(seed, stream, 0, early.size) & np.uint32(1), 1.0, -1.0).reshape(early.shape)
    return (np.abs(signed_scale(early)) * signs).astype(early.dtype)


def shuffled(early: Array, seed: int, stream: str) -> Array:
    """Return an array (a tensor's values, or its mask) with its entries in a random order."""
    return early.reshape(-1)[permutation(seed, stream, early.size)].reshape(early.shape)


RULES: dict[str, _Rule] = {
    "sign-sigma": lambda early, seed, stream: signed_scale(early),
    "sign": lambda early, seed, stream: np.sign(early),
    "random-sign": _random_sign,
    "shuffle": shuffled,
}
# ``rewind`` leaves what the rewinding put there; ``reinitialise`` draws the network again from another seed.
ACTIONS = ("rewind", "reinitialise", *RULES)


def kept_weights(probe: Probe) -> Outcome:
    """Apply the option ``kept`` (one of :data:`ACTIONS`); with the option ``biases`` to the biases of those layers too.

    The engine zeroes what the masks do not keep.
    """
    action = probe.options["kept"]
    if action == "rewind":
        return Outcome()
    early = probe.tape(step_label(probe.options["rewind_step"]))
    names = _with_biases(probe, early) if probe.options.get("biases") else list(probe.names)
    if action == "reinitialise":
        return Outcome(weights=drawn_again(probe, names))
    rule = RULES[action]
    return Outcome(weights={name: rule(early[name], probe.seed, f"{name}/{action}/{probe.draw}") for name in names})


def drawn_again(probe: Probe, names: Iterable[str]) -> dict[str, Array]:
    """Return new values of these tensors, from a seed of the round's own."""
    fresh = probe.fresh(probe.draw)
    return {name: fresh[name] for name in names}


def fresh_classifier(probe: Probe) -> Outcome:
    """Draw the last layer again: a ticket from another task keeps its connections there, not their values."""
    last = probe.names[-1]
    early = probe.tape(step_label(probe.options["rewind_step"]))
    return Outcome(weights=drawn_again(probe, [name for name in (last, _bias_of(last)) if name in early]))


def _with_biases(probe: Probe, state: Mapping[str, Array]) -> list[str]:
    return [found for name in probe.names for found in (name, _bias_of(name)) if found in state]


def _bias_of(weight: str) -> str:
    return f"{weight.removesuffix('weight')}bias"
