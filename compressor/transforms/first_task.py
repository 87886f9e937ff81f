"""The masks of several tasks in one network, of which the first computes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..parametrisations import Handover
from ..parametrisations.masks import parts_of
from ..training.sparse_selection.tasks import task_label
from ..training.tape import INITIAL
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe


def first_task(probe: Probe) -> Outcome:
    """Return the masks of the first task and the initial weights within them, both from the tape.

    Args:
        probe: of a run whose tasks are trained.
    """
    initial = probe.tape(INITIAL)
    masks = {name: mask.astype(np.bool_) for name, mask in probe.tape(task_label(0)).items()}
    weights = {name: np.where(mask, initial[name], np.zeros((), initial[name].dtype)) for name, mask in masks.items()}
    tasks = [masks]
    for task in range(1, probe.options["tasks"]):
        tasks.append({name: mask.astype(np.bool_) for name, mask in probe.tape(task_label(task)).items()})
    handed = {
        # A tensor that no seed draws is stored once for all tasks.
        name: Handover(
            "masks",
            parts_of([task[name] for task in tasks], None if name in probe.seeds else initial[name]),
            count=len(tasks),
        )
        for name in masks
    }
    return Outcome(masks=masks, weights=weights, handed=handed)
