"""Dense trainings that several runs of a job begin with are done once: found by what they depend on, kept for the next.

A training can be shared when nothing was done to the network before it (states may have been recorded) and nothing but
the optimiser acts on it. The key is the SHA-256 of all that decides its outcome, so a state that is taken over is, bit
for bit, the one that the run would have come to itself.
"""

from __future__ import annotations

import hashlib
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import msgspec
import numpy as np

from ..files import Array, canonical_json
from .exclusive import try_hold
from .interrupts import Interrupts
from .plans import Record, Stage, Train
from .settings import PruneRecipe
from .training.resume import Position, Snapshots, group_of

# What a recipe says that has a part in a dense training; the rest is about masks.
_DECISIVE = ("model", "weights", "data", "seed", "device", "init", "generator")
_LOG = "log"
_WAIT_SECONDS = 0.1


@dataclass(frozen=True)
class Outcome:
    """What a training led to.

    Attributes:
        state: the network's arrays by name.
        totals: what the run has cost up to here.
        log: the log's bytes up to here.
        recorded: the state that the training put on the tape, or nothing.
    """

    state: Mapping[str, Array]
    totals: dict[str, int | float]
    log: bytes
    recorded: Mapping[str, Array]


class SharedTrainings:
    """A folder of finished dense trainings.

    Args:
        folder: made with the first one.
        files: SHA-256 of the model files that the recipe names.
        threads: that the run trains with.
    """

    def __init__(self, folder: Path, files: Mapping[str, str], threads: int) -> None:
        self.folder = folder
        self._facts = {"files": dict(files), "threads": threads}

    def key(self, recipe: PruneRecipe, plan: Sequence[Stage], number: int) -> str | None:
        """Return what stage ``number`` is kept under; None when it is no training that can be shared."""
        stage = plan[number]
        if not isinstance(stage, Train) or not all(isinstance(earlier, Record) for earlier in plan[:number]):
            return None
        if (stage.dynamics, stage.first_step, stage.data, stage.view) != ("none", 0, None, None):
            return None
        facts: dict[str, Any] = {name: getattr(recipe, name) for name in _DECISIVE}
        facts["training"] = {**asdict(stage), "title": None, "settings": msgspec.to_builtins(stage.settings)}
        return hashlib.sha256(canonical_json({**facts, **self._facts})).hexdigest()

    @contextmanager
    def turn(self, key: str, interrupts: Interrupts) -> Iterator[None]:
        """Hold a training against other processes: who waits here finds it finished.

        Raises:
            KeyboardInterrupt: the user asked to stop while we waited.
        """
        self.folder.mkdir(parents=True, exist_ok=True)
        with (self.folder / f"{key}.lock").open("ab") as stream:
            while not try_hold(stream):
                if interrupts.pending:
                    raise KeyboardInterrupt
                time.sleep(_WAIT_SECONDS)
            yield

    def find(self, key: str) -> Outcome | None:
        """Return a finished training, or None.

        Raises:
            FileFormatError: its file is corrupt.
        """
        found = Snapshots(self._file(key), 0).read()
        if found is None:
            return None
        position, arrays = found
        log = arrays.pop(_LOG)
        return Outcome(group_of(arrays, "model"), position.totals, log.tobytes(), group_of(arrays, "tape"))

    def keep(self, key: str, outcome: Outcome) -> None:
        """Keep a finished training."""
        arrays = {f"model:{name}": array for name, array in outcome.state.items()}
        arrays |= {f"tape:{name}": array for name, array in outcome.recorded.items()}
        arrays[_LOG] = np.frombuffer(outcome.log, np.uint8)
        Snapshots(self._file(key), 0).write(Position(0, None, outcome.totals, 0), arrays)

    def _file(self, key: str) -> Path:
        return self.folder / f"{key}.safetensors"
