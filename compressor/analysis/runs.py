"""A finished run as the sequence of its rounds: masks, states, and what each round set out from.

In: a RUN folder, or a checkpoint alone. Out: a :class:`History`. States stay in their files until they are asked for.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ...errors import FileFormatError, UsageError
from ...files import Array
from ..checkpoint import SparseCheckpoint
from ..mask import BoolArray
from ..recipe import load_recipe
from ..run_folder import RunFolder
from ..settings import PruneRecipe
from ..training.tape import Tape, round_label, step_label
from ..transforms.kept_weights import signed_scale

_MASK = "mask:"


@dataclass(frozen=True)
class Round:
    """One round of a run.

    Attributes:
        number: from 0, the dense training; None for a checkpoint whose rounds were not kept.
        masks: of the prunable weights, by name, in order; all True before anything was pruned.
        read: returns the whole state at the round's end.
    """

    number: int | None
    masks: Mapping[str, BoolArray]
    read: Callable[[], Mapping[str, Array]]

    @property
    def kept(self) -> int:
        """How many prunable weights are kept."""
        return sum(int(np.count_nonzero(mask)) for mask in self.masks.values())


@dataclass(frozen=True)
class History:
    """A run, round by round.

    Attributes:
        name: what the report calls it.
        path: as given.
        checkpoint: the result.
        recipe: with paths as seen from here; None for a checkpoint that was given without its folder.
        rounds: in order; the result alone where no rounds were kept.
        tape: of the run's folder; None for a checkpoint.
    """

    name: str
    path: Path
    checkpoint: SparseCheckpoint
    recipe: PruneRecipe | None
    rounds: Sequence[Round]
    tape: Tape | None

    @property
    def data(self) -> str:
        """The data source of the run, as its recipe names it."""
        return self.recipe.data if self.recipe is not None else str(self.checkpoint.metadata.recipe.get("data", "none"))

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """The prunable weights' shapes by name, in order."""
        return {name: mask.shape for name, mask in self.rounds[-1].masks.items()}

    def begin(self, place: int) -> Mapping[str, Array] | None:
        """Return the state that the training of a round set out from, before its masks; None where it is not known.

        Args:
            place: of the round in ``rounds``.
        """
        label = step_label(int(self.checkpoint.metadata.recipe.get("options", {}).get("rewind_step", 0)))
        kept = self.checkpoint.metadata.recipe.get("options", {}).get("kept", "rewind")
        if self.tape is None or self.rounds[place].number is None:
            return None
        if kept == "finetune" and place:
            return self.rounds[place - 1].read()
        if kept not in ("rewind", "finetune", "sign-sigma", "sign") or not self.tape.has(label):
            return None
        early = self.tape.read(label)
        if place == 0 or kept in ("rewind", "finetune"):
            return early
        masked = set(self.shapes)
        signs = masked | {f"{name.removesuffix('weight')}bias" for name in masked if self._treats_biases}
        change = signed_scale if kept == "sign-sigma" else np.sign
        return {name: change(array) if name in signs else array for name, array in early.items()}

    @property
    def _treats_biases(self) -> bool:
        return bool(self.checkpoint.metadata.recipe.get("options", {}).get("biases", False))


def open_runs(paths: Sequence[Path]) -> list[History]:
    """Open finished runs or checkpoints of one network.

    Args:
        paths: RUN folders or checkpoint files.

    Raises:
        UsageError: one is not finished, given twice, or its network is not the first one's.
        FileFormatError: a file is damaged, or the tape lacks a round.
    """
    found = [_open(path, name) for path, name in zip(paths, short_names(paths), strict=True)]
    for other in found[1:]:
        _check_same_network(found[0], other)
    return found


def short_names(paths: Sequence[Path]) -> list[str]:
    """Return as few of each path's last parts as tell it from the others.

    Raises:
        UsageError: a path is given twice.
    """
    resolved = [Path(os.path.realpath(path)) for path in paths]
    for place, path in enumerate(resolved):
        if path in resolved[:place]:
            raise UsageError(f"{paths[place]} is given twice; give each run once.")
    longest = max((len(path.parts) for path in resolved), default=1)
    for count in range(1, longest + 1):
        names = ["/".join(path.parts[-count:]) for path in resolved]
        if len(set(names)) == len(names):
            return names
    return [str(path) for path in resolved]


def _open(path: Path, name: str) -> History:
    folder = RunFolder(path) if path.is_dir() else None
    file = folder.checkpoint if folder else path
    if not file.exists():
        raise UsageError(
            f"no checkpoint at {path}; give a folder that 'compress prune' finished, or its checkpoint file."
        )
    checkpoint = SparseCheckpoint.load(file)
    tape = None if folder is None else Tape(folder.tape)
    last = _result(checkpoint)
    if not last.masks:
        raise UsageError(f"{path} has no prunable tensor; there is nothing to analyse.")
    recipe = None
    if folder is not None and folder.recipe.exists():
        recipe = load_recipe(folder.recipe).prune_recipes()[0]
    rounds = [] if tape is None else _rounds(tape, last)
    return History(name, path, checkpoint, recipe, rounds or [last], tape)


def _result(checkpoint: SparseCheckpoint) -> Round:
    masks = {
        name: tensor.mask if tensor.mask is not None else np.ones(tensor.record.shape, np.bool_)
        for name, tensor in checkpoint.tensors.items()
        if tensor.record.role == "prunable" and tensor.record.alias_of is None
    }
    return Round(None, masks, checkpoint.dense_state)


def _rounds(tape: Tape, last: Round) -> list[Round]:
    numbers = sorted(int(file.stem.removeprefix("round-")) for file in tape.folder.glob("round-*.safetensors"))
    for expected, number in enumerate(numbers):
        if number != expected:
            raise FileFormatError(
                f"{tape.folder} lacks round {expected}, and has round {number}; run the recipe again with --force."
            )
    return [_round(tape, number, last) for number in numbers]


def _round(tape: Tape, number: int, last: Round) -> Round:
    label = round_label(number)
    stored = tape.read(label)
    masks = {}
    for name, mask in last.masks.items():
        bits = stored.get(_MASK + name, np.ones(mask.shape, np.uint8))
        if bits.shape != mask.shape or bits.dtype != np.uint8:
            raise FileFormatError(f"{tape.path(label)}: the mask of '{name}' is not that of this run.")
        masks[name] = bits.astype(np.bool_)

    def read() -> Mapping[str, Array]:
        return {name: array for name, array in tape.read(label).items() if not name.startswith(_MASK)}

    return Round(number, masks, read)


def _check_same_network(first: History, other: History) -> None:
    for name in [*first.shapes, *other.shapes]:
        mine, theirs = first.shapes.get(name), other.shapes.get(name)
        if mine != theirs:
            sizes = [f"{'x'.join(map(str, shape))} in" if shape else "missing in" for shape in (mine, theirs)]
            raise UsageError(
                f"{first.path} and {other.path} are runs of different networks: '{name}' is {sizes[0]} the first and "
                f"{sizes[1]} the second; analyse them apart."
            )
