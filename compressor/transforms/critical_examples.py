"""The training examples that the next round of a ticket's search needs: the hard ones, and those that pruning changes.

Zhang et al. 2021 ("Efficient Lottery Ticket Finding: Less Data is More"): examples that were forgotten more often than
a threshold (or never learned) in the last training, and those on which the sparse network says something else than the
dense one did.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt
import torch
from torch.func import functional_call

from ...files import Array
from ...models.class_scores import class_scores
from ...models.evaluating import evaluating
from ...models.tensors import to_numpy, to_torch
from ..training.forgetting import LABEL, NEVER
from ..training.tape import DENSE, examples_label
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe

_BATCH = 256


def critical_examples(probe: Probe) -> Outcome:
    """Put the indices of the next round's examples on the tape; the options ``threshold`` and ``fewest`` bear on it.

    The network is looked at as it was trained, before the last mask was applied.
    """
    everything = len(probe.dataset.train_labels)
    looked_at = np.arange(everything) if probe.draw == 0 else probe.tape(examples_label(probe.draw - 1))["examples"]
    hard = looked_at[is_hard(probe.tape(LABEL)["counts"], probe.options["threshold"])]
    changed: npt.NDArray[np.int64] = np.empty(0, np.int64)
    if probe.draw:
        # In the first round the network that was trained is the dense one itself.
        changed = np.flatnonzero(_answers(probe, probe.trained) != _answers(probe, probe.tape(DENSE)))
    found = np.union1d(hard, changed).astype(np.int64)
    warnings: tuple[str, ...] = ()
    if len(found) < probe.options["fewest"]:
        warnings = (
            f"round {probe.draw + 1} found {len(found)} critical examples, fewer than {probe.options['fewest']}; the "
            "next one trains on all.",
        )
        found = np.arange(everything)
    return Outcome(records={examples_label(probe.draw): {"examples": found}}, warnings=warnings)


def is_hard(counts: Array, threshold: int) -> npt.NDArray[np.bool_]:
    """Return which examples were forgotten more than ``threshold`` times, or never learned (-1)."""
    hard: npt.NDArray[np.bool_] = (counts > threshold) | (counts == NEVER)
    return hard


def _answers(probe: Probe, weights: Mapping[str, Array]) -> npt.NDArray[np.int64]:
    """Return the class that the network with these tensors gives each training example."""
    given = {name: to_torch(array).to(probe.device) for name, array in weights.items()}
    found = []
    examples = 0
    with evaluating(probe.module), torch.no_grad():
        for inputs, _ in probe.dataset.batches("train", _BATCH, shuffle=False, device=probe.device, augment=False):
            outputs = class_scores(functional_call(probe.module, given, (inputs,)))
            found.append(to_numpy(outputs.argmax(dim=1)))
            examples += len(inputs)
    # Forward passes alone: a third of what the counter knows.
    probe.charge(examples, 1 / 3)
    return np.concatenate(found)
