"""The stages that a plan is made of: each is one thing that the engine can carry out."""

from __future__ import annotations

from dataclasses import dataclass

from ..settings import TrainSettings


@dataclass(frozen=True)
class Record:
    """Put the present state on the tape.

    Attributes:
        title: for log and progress.
        label: of the state.
        masks: whether the present masks go with it, as ``mask:NAME``.
    """

    title: str
    label: str
    masks: bool = False


@dataclass(frozen=True)
class Train:
    """Train from ``first_step`` to the end of the settings' schedule.

    Attributes:
        title: for log and progress.
        settings: the training.
        dynamics: what becomes of the mask: an entry of ``DYNAMICS``.
        first_step: 0, or the step that the weights were set back to.
        record_step: the step before which the state goes on the tape, or None.
        data: another data source than the run's, or None.
        sparsity: the one that this training leads to, where that is not the run's final one.
        examples: label of the tape's record of the training examples to use (see ``transforms.critical_examples``), or
            None for all; epochs and milestones shrink with their share.
        view: an entry of ``VIEWS``, the corruption of that data, or of ``TASK_VIEWS`` where there are tasks, or None.
        task: the number of the task that is trained on, from 0.
        tasks: how many there are; 0 where the data is one.
    """

    title: str
    settings: TrainSettings
    dynamics: str
    first_step: int = 0
    record_step: int | None = None
    data: str | None = None
    view: str | None = None
    sparsity: float | None = None
    examples: str | None = None
    task: int = 0
    tasks: int = 0


@dataclass(frozen=True)
class Select:
    """Score the weights and choose the mask.

    Attributes:
        title: for log and progress.
        score: entry of ``SCORES``.
        sparsity: of the space after it.
        number: of the round, from 0.
        within: whether the new mask lies within the present one.
        share: every tensor loses this share of the groups that it has left, whatever sparsity that makes; None: the
            allocation divides ``sparsity``.
    """

    title: str
    score: str
    sparsity: float
    number: int
    within: bool = True
    share: float | None = None


@dataclass(frozen=True)
class Change:
    """Apply a transform to masks and weights.

    Attributes:
        title: for log and progress.
        transform: entry of ``TRANSFORMS``.
        sparsity: what the round under way reaches.
        number: of the round, from 0.
    """

    title: str
    transform: str
    sparsity: float
    number: int = 0


@dataclass(frozen=True)
class Rewind:
    """Set all weights and statistics back to a state on the tape.

    Attributes:
        title: for log and progress.
        label: of the state.
    """

    title: str
    label: str


Stage = Record | Train | Select | Change | Rewind
