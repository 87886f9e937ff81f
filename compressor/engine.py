"""The interpreter: carries out a plan on a network, stage by stage, and can be killed between any two steps.

In: a resolved recipe, a network, data, a RUN folder. Out: the masked network in its final state. Every stage is a pure
function of the state at its beginning, so a run that goes on from a snapshot (taken inside a training, or where one
begins) ends in the same bits as one that was never stopped.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from ..errors import FileFormatError, UsageError
from ..files import Array
from ..models.data import load_data
from ..models.dataset import Dataset
from ..models.source import TorchSource
from ..models.tensors import to_numpy, to_torch
from .counter import Totals
from .interrupts import Interrupts
from .masked_network import MaskedNetwork
from .plans import Change, Select, Train
from .progress import Progress
from .run_folder import RunFolder
from .settings import PruneRecipe
from .shared_training import Outcome, SharedTrainings
from .training.devices import readable_errors
from .training.evaluation import test_accuracy
from .training.rates import shortened
from .training.resume import Position, Snapshots, group_of
from .training.tape import Tape, step_label
from .training.trainer import Trainer
from .training.views import TASK_VIEWS, VIEWS
from .training.weights import set_state, state_arrays


class Engine:
    """One run under way.

    Args:
        recipe: resolved.
        source: where the network comes from.
        data: training and test examples, or None.
        folder: where tape, snapshot and log go.
        device: where training runs.
        progress: told of stages and steps.
        snapshot_seconds: between two periodic snapshots.
        shared: dense trainings that runs of a job have in common, or None.

    Attributes:
        network: the network and its masks.
    """

    def __init__(
        self,
        recipe: PruneRecipe,
        source: TorchSource,
        data: Dataset | None,
        folder: RunFolder,
        device: torch.device,
        progress: Progress,
        snapshot_seconds: float,
        shared: SharedTrainings | None = None,
    ) -> None:
        self.tape = Tape(folder.tape)
        self.network = MaskedNetwork(
            recipe, source.build(), source.record, source.example_inputs, data, self.tape, device
        )
        self.snapshots = Snapshots(folder.snapshot, snapshot_seconds)
        self.progress = progress
        self._recipe = recipe
        self._folder = folder
        self._device = device
        self._shared = shared

    def run(self, interrupts: Interrupts) -> None:
        """Carry out the plan, from its beginning or from the snapshot.

        Args:
            interrupts: asked between steps.

        Raises:
            KeyboardInterrupt: the user asked to stop; a snapshot was written.
            TrainingDivergedError: a loss is not finite; the last good snapshot is kept.
        """
        found = self.snapshots.read()
        begin, training = 0, None
        tensors: dict[str, Array] = {}
        if found is not None:
            position, tensors = found
            begin, training = position.stage, position.training
            self._take_up(position, tensors)
        plan = self.network.plan
        for number in range(begin, len(plan)):
            stage = plan[number]
            if interrupts.pending:
                raise KeyboardInterrupt
            if isinstance(stage, Train):
                self._train_once(number, stage, training, tensors, interrupts)
            else:
                if isinstance(stage, (Select, Change)):
                    self.progress.stage(stage.title)
                if self.network.carry_out(stage):
                    self.log("mask", stage.title, kept=self.network.kept(), total=self.network.chosen.space.total)
            training, tensors = None, {}

    def snapshot(self, number: int, trainer: Trainer | None) -> None:
        """Write a snapshot of stage ``number``, at its beginning or (with a trainer) between two of its steps."""
        network = self.network
        if trainer is None:
            arrays = {f"model:{name}": array for name, array in state_arrays(network.module).items()}
        else:
            arrays = {name: to_numpy(tensor) for name, tensor in trainer.tensors().items()}
        arrays |= {f"mask:{name}": mask.view(np.uint8) for name, mask in network.masks.items()}
        arrays |= {f"fixed:{name}": mask.view(np.uint8) for name, mask in network.fixed.items()}
        position = Position(
            number,
            None if trainer is None else trainer.facts(),
            vars(network.totals).copy(),
            self._folder.log_size(),
            network.warnings,
        )
        self.snapshots.write(position, arrays)

    def log(self, event: str, stage: str, **figures: Any) -> None:
        """Append one line to the run's log."""
        self._folder.append({"event": event, "stage": stage, **figures})

    def _take_up(self, position: Position, tensors: Mapping[str, Array]) -> None:
        network = self.network
        if not 0 <= position.stage < len(network.plan):
            raise FileFormatError(f"{self._folder.snapshot} is of another run; give --force to begin anew.")
        set_state(network.module, group_of(tensors, "model"))
        network.masks = {name: array.astype(np.bool_) for name, array in group_of(tensors, "mask").items()}
        network.fixed = {name: array.astype(np.bool_) for name, array in group_of(tensors, "fixed").items()}
        network.totals = Totals(**position.totals)  # type: ignore[arg-type]  # the snapshot holds the fields of Totals
        network.warnings = list(position.warnings)
        self._folder.cut_log(position.log_bytes)

    def _train_once(
        self,
        number: int,
        stage: Train,
        facts: dict[str, Any] | None,
        tensors: Mapping[str, Array],
        interrupts: Interrupts,
    ) -> None:
        """Train, or take over what another run of the job came to by the very same training."""
        shared = self._shared
        key = None if shared is None else shared.key(self._recipe, self.network.plan, number)
        if shared is None or key is None:
            self._train(number, stage, facts, tensors, interrupts)
            return
        with shared.turn(key, interrupts):
            outcome = None if facts is not None else shared.find(key)
            if outcome is None:
                self._train(number, stage, facts, tensors, interrupts)
                shared.keep(key, self._outcome(stage))
                return
        self.progress.stage(f"{stage.title} (shared)")
        set_state(self.network.module, outcome.state)
        self.network.totals = Totals(**outcome.totals)  # type: ignore[arg-type]  # as in _take_up
        self._folder.put_log(outcome.log)
        self.log("shared", stage.title)
        if stage.record_step is not None:
            self.tape.record(step_label(stage.record_step), outcome.recorded)

    def _outcome(self, stage: Train) -> Outcome:
        recorded = {} if stage.record_step is None else self.tape.read(step_label(stage.record_step))
        state = state_arrays(self.network.module)
        return Outcome(state, vars(self.network.totals).copy(), self._folder.log.read_bytes(), recorded)

    def _train(
        self,
        number: int,
        stage: Train,
        facts: dict[str, Any] | None,
        tensors: Mapping[str, Array],
        interrupts: Interrupts,
    ) -> None:
        network = self.network
        # What the last selection looked at can be many copies of the weights.
        network.evidence = {}
        data = self._stage_data(stage)
        if stage.examples is not None:
            share = len(data.train_labels) / len(network.required_data().train_labels)
            stage = replace(stage, settings=shortened(stage.settings, share))
        steps = stage.settings.epochs * data.steps(stage.settings.batch_size)
        trainer = Trainer(
            network.module,
            data,
            stage.settings,
            network.dynamics(stage, steps, data),
            seed=self._recipe.seed,
            device=self._device,
            first_step=stage.first_step,
        )
        if stage.first_step > trainer.total_steps or (stage.record_step or 0) > trainer.total_steps:
            raise UsageError(
                f"rewind_step is {max(stage.first_step, stage.record_step or 0)}, and the training has only "
                f"{trainer.total_steps} steps."
            )
        self.progress.stage(stage.title, trainer.total_steps - stage.first_step)
        if facts is not None:
            trainer.restore({name: to_torch(array) for name, array in tensors.items()}, facts)
            self.progress.advance(trainer.step - stage.first_step)
        else:
            self.snapshot(number, None)
        watch = _Watch(self, number, stage, interrupts)
        watch.record(trainer)
        with readable_errors(self._device):
            trainer.run(watch)
        network.conclude(trainer.dynamics, trainer.flops, trainer.seconds)
        accuracy = test_accuracy(network.module, data, self._device)
        self.log(
            "stage", stage.title, seconds=round(trainer.seconds, 3), accuracy=accuracy, **trainer.dynamics.figures()
        )

    def _stage_data(self, stage: Train) -> Dataset:
        data = self.network.required_data()
        if stage.data is not None:
            other = load_data(stage.data, augment=stage.settings.augment)
            other = other and other.shaped(data.input_spec.shape)
            if other is None or (other.classes, other.input_spec) != (data.classes, data.input_spec):
                raise UsageError(
                    f"the source data '{stage.data}' does not have the inputs and the number of classes of "
                    f"'{data.name}', so one network cannot take both."
                )
            data = other
        if stage.examples is not None:
            data = data.subset(self.tape.read(stage.examples)["examples"])
        if stage.view is None:
            return data
        if stage.tasks:
            return TASK_VIEWS[stage.view](data, self._recipe.seed, stage.task, stage.tasks)
        return VIEWS[stage.view](data, self._recipe.seed)


class _Watch:
    """Looks between the steps of one training."""

    def __init__(self, engine: Engine, number: int, stage: Train, interrupts: Interrupts) -> None:
        self._engine = engine
        self._number = number
        self._stage = stage
        self._interrupts = interrupts

    def after_step(self, trainer: Trainer) -> None:
        engine = self._engine
        engine.progress.advance(1)
        self.record(trainer)
        if self._interrupts.pending or engine.snapshots.due:
            engine.snapshot(self._number, trainer)
            if self._interrupts.pending:
                raise KeyboardInterrupt

    def record(self, trainer: Trainer) -> None:
        if trainer.step == self._stage.record_step:
            self._engine.tape.record(step_label(trainer.step), state_arrays(trainer.module))

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        self._engine.log("epoch", self._stage.title, **figures)
