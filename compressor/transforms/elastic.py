"""Elastic tickets: a ticket of one depth becomes one of another by repeating or leaving out blocks.

Chen et al. 2021 ("The Elastic Lottery Ticket Hypothesis"): within a family of networks whose stages repeat a block, the
mask and the early values of each block are copied as they are. A stage's first block, which changes the shape, is never
repeated.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import ModelError, UsageError
from ..checkpoint import SparseCheckpoint
from ..run_folder import RunFolder
from ..training.tape import Tape, step_label
from ..training.weights import state_tensors
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe

Shapes = Mapping[str, tuple[int, ...]]
ORDERS = ("interpolate", "append")


def elastic_ticket(probe: Probe) -> Outcome:
    """Take mask and early values from the run that the option ``ticket`` names, block by block.

    Raises:
        UsageError: no run is named, or it is not that of a ticket.
        ModelError: the run's network is not of the same family.
    """
    if not probe.options["ticket"]:
        raise UsageError(
            "an elastic ticket is made from another one; name the folder of its run with the option ticket."
        )
    folder = RunFolder(Path(probe.options["ticket"]))
    checkpoint = SparseCheckpoint.load(folder.checkpoint)
    tape, label = Tape(folder.tape), step_label(checkpoint.metadata.recipe["options"].get("rewind_step", 0))
    if not tape.has(label):
        raise UsageError(
            f"{folder.path} keeps no weights of an early step, so it is no ticket's run; make one with the method "
            "lottery-ticket."
        )
    state = tape.read(label)
    wanted = {name: tuple(tensor.shape) for name, tensor in state_tensors(probe.module).items()}
    origin = block_map({name: array.shape for name, array in state.items()}, wanted, probe.options["order"])
    masks = {}
    for name in probe.names:
        kept = checkpoint.tensors[origin[name]].mask
        masks[name] = np.ones(wanted[name], np.bool_) if kept is None else kept.copy()
    return Outcome(masks=masks, weights={name: state[source] for name, source in origin.items()})


def block_map(given: Shapes, wanted: Shapes, order: str) -> dict[str, str]:
    """Return for each tensor of a network the tensor of another depth that it is copied from.

    Args:
        given: shapes of the other network's tensors, by name.
        wanted: shapes of this one's.
        order: ``interpolate``: copies stand beside their block (1 1 2 2); ``append``: behind the last (1 2 1 2). Where
            blocks are left out, those at even distances or the first ones stay.

    Raises:
        ModelError: the networks differ in more than the number of blocks.
    """
    counts = {stage: (_count(given, stage), _count(wanted, stage)) for stage in _stages(given) & _stages(wanted)}
    origin = {}
    for name, shape in wanted.items():
        source = name
        for stage, (have, need) in counts.items():
            if have != need and name.startswith(stage):
                number, _, rest = name.removeprefix(stage).partition(".")
                source = f"{stage}{_source_block(int(number), have, need, order)}.{rest}"
        if given.get(source) != shape:
            raise ModelError(
                f"the ticket's network is of another family: it has no tensor for '{name}' of shape {shape}; networks "
                "of one family differ in the number of blocks alone."
            )
        origin[name] = source
    for name in given.keys() - wanted.keys():
        if not any(name.startswith(stage) for stage in counts):
            raise ModelError(f"the ticket's network is of another family: this one has no '{name}'.")
    return origin


def _source_block(number: int, have: int, need: int, order: str) -> int:
    if number == 0 or have == 1:
        return 0
    place, others = number - 1, have - 1
    return 1 + (place % others if order == "append" else place * others // (need - 1))


def _stages(shapes: Shapes) -> set[str]:
    """Return the beginnings of names (``layer1.``) that blocks numbered from 0 follow."""
    found = set()
    for name in shapes:
        parts = name.split(".")
        found |= {"".join(f"{part}." for part in parts[:at]) for at, part in enumerate(parts[:-1]) if part.isdecimal()}
    return {stage for stage in found if _alike(shapes, stage)}


def _count(shapes: Shapes, stage: str) -> int:
    return len(_blocks(shapes, stage))


def _blocks(shapes: Shapes, stage: str) -> dict[str, dict[str, tuple[int, ...]]]:
    blocks: dict[str, dict[str, tuple[int, ...]]] = {}
    for name, shape in shapes.items():
        if name.startswith(stage):
            number, _, rest = name.removeprefix(stage).partition(".")
            blocks.setdefault(number, {})[rest] = shape
    return blocks


def _alike(shapes: Shapes, stage: str) -> bool:
    """Return whether these are the blocks of a stage: numbered from 0, and equal from the second on."""
    blocks = _blocks(shapes, stage)
    names = [str(number) for number in range(len(blocks))]
    return set(names) == set(blocks) and all(blocks[name] == blocks[names[-1]] for name in names[1:])
