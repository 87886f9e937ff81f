"""The interpreter: carries out a plan on a network, stage by stage, and can be killed between any two steps.

In: a resolved recipe, a network, data, a RUN folder. Out: the network's final state, masks, seeds and counted cost.
Every stage is a pure function of the state at its beginning, so a run that goes on from a snapshot (taken inside a
training, or where one begins) ends in the same bits as one that was never stopped.

Masks are on weights, and, where a structure removes whole units, on the biases and norm entries of these units too.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch

from ..errors import FileFormatError, UsageError
from ..files import Array
from ..models.data import load_data
from ..models.dataset import Dataset
from ..models.graph.coupled import couplings_of_module
from ..models.prunable import prunable_tensors
from ..models.seeding.initialise import initialise
from ..models.seeding.philox import words
from ..models.seeding.record import SeedRecord
from ..models.source import TorchSource
from ..models.tensors import to_numpy, to_torch
from .counter import Counter, Totals, count_layers
from .coupling import Network
from .evidence import EVIDENCE
from .evidence.gradients import accumulate_gradients
from .evidence.probe import Probe
from .interrupts import Interrupts
from .mask import BoolArray
from .methods import Method
from .methods.pai.sensitivity import SALIENCY_OPTIONS
from .plans import Change, Record, Rewind, Select, Train, make_plan
from .progress import Progress
from .rule import MaskRule, make_rule
from .run_folder import RunFolder
from .saliency import UnitEvidence
from .scores import ScoreInputs, find_score
from .settings import PruneRecipe
from .training.devices import readable_errors
from .training.evaluation import test_accuracy
from .training.resume import Position, Snapshots
from .training.table import DYNAMICS, Context
from .training.tape import Tape
from .training.trainer import Trainer
from .training.views import VIEWS
from .training.weights import set_some, set_state, state_arrays, weight_arrays
from .transforms import find_transform


@dataclass
class Engine:
    """One run under way.

    Attributes:
        recipe: resolved.
        method: its declaration.
        source: where the network comes from.
        data: training and test examples, or None.
        folder: where tape, snapshot and log go.
        device: where training runs.
        progress: told of stages and steps.
        snapshot_seconds: between two periodic snapshots.
    """

    recipe: PruneRecipe
    method: Method
    source: TorchSource
    data: Dataset | None
    folder: RunFolder
    device: torch.device
    progress: Progress
    snapshot_seconds: float
    masks: dict[str, BoolArray] = field(default_factory=dict)
    totals: Totals = field(default_factory=Totals)
    evidence: dict[str, Mapping[str, Array]] = field(default_factory=dict)
    fixed: dict[str, BoolArray] = field(default_factory=dict)
    trained: dict[str, Array] = field(default_factory=dict)
    warnings: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        """Build the network and everything that follows from the recipe alone."""
        self.module = self.source.build()
        self.seeds: dict[str, SeedRecord] = {}
        if self.recipe.init is not None:
            self.seeds = initialise(self.module, self.recipe.init, self.recipe.seed, self.recipe.generator)
        self.prunable = prunable_tensors(self.module)
        self.rule: MaskRule | None = None
        self.sparsity = 0.0
        if self.method.mask_from is not None:
            prunable = self.prunable[:-1] if self.method.spares_head else self.prunable
            self.rule, self.sparsity = make_rule(self.recipe, prunable, self._network)
        self.tape = Tape(self.folder.tape)
        self.snapshots = Snapshots(self.folder.snapshot, self.snapshot_seconds)
        self.plan = make_plan(self.recipe, self.method, self.sparsity)
        self.counter = count_layers(self.module, self.source) if self.plan_computes else Counter(self.prunable)
        self.module.to(self.device)

    def _network(self) -> Network:
        graph = couplings_of_module(self.module, self.source.example_inputs(2), self.source.record.inputs)
        return Network(graph, {name: tuple(p.shape) for name, p in self.module.named_parameters()})

    @property
    def plan_computes(self) -> bool:
        """Whether anything in the plan runs the network, so that its operations are to be counted."""
        return any(
            isinstance(stage, (Train, Change)) or (isinstance(stage, Select) and find_score(stage.score).evidence)
            for stage in self.plan
        )

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
        for number in range(begin, len(self.plan)):
            stage = self.plan[number]
            if interrupts.pending:
                raise KeyboardInterrupt
            if isinstance(stage, Train):
                self._train(number, stage, training, tensors, interrupts)
            elif isinstance(stage, Select):
                self._select(stage)
            elif isinstance(stage, Change):
                self._change(stage)
            elif isinstance(stage, Rewind):
                self._rewind(stage)
            elif isinstance(stage, Record):
                self.tape.record(stage.label, state_arrays(self.module))
            training, tensors = None, {}

    def _take_up(self, position: Position, tensors: Mapping[str, Array]) -> None:
        if not 0 <= position.stage < len(self.plan):
            raise FileFormatError(f"{self.folder.snapshot} is of another run; give --force to begin anew.")
        set_state(self.module, _part(tensors, "model"))
        self.masks = {name: array.astype(np.bool_) for name, array in _part(tensors, "mask").items()}
        self.fixed = {name: array.astype(np.bool_) for name, array in _part(tensors, "fixed").items()}
        self.totals = Totals(**position.totals)  # type: ignore[arg-type]
        self.warnings = list(position.warnings)
        self.folder.cut_log(position.log_bytes)

    def _train(
        self,
        number: int,
        stage: Train,
        facts: dict[str, Any] | None,
        tensors: Mapping[str, Array],
        interrupts: Interrupts,
    ) -> None:
        # What the last selection looked at can be many copies of the weights.
        self.evidence = {}
        data = self._stage_data(stage)
        trainer = self._trainer(stage, data)
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
            self._snapshot(number, None)
        watch = _Watch(self, number, stage, interrupts)
        watch.record(trainer)
        with readable_errors(self.device):
            trainer.run(watch)
        if trainer.dynamics.masks:
            self.masks = {name: to_numpy(mask).copy() for name, mask in trainer.dynamics.masks.items()}
        for label, found in trainer.dynamics.recordings().items():
            self.tape.record(label, {name: to_numpy(tensor) for name, tensor in found.items()})
        self._account(stage, trainer)
        self._log(
            "stage",
            stage.title,
            seconds=round(trainer.seconds, 3),
            accuracy=test_accuracy(self.module, data, self.device),
        )

    def _trainer(self, stage: Train, data: Dataset) -> Trainer:
        steps = stage.settings.epochs * data.steps(stage.settings.batch_size)
        context = Context(
            self.module,
            self.masks,
            self.rule,
            self.sparsity,
            stage.settings,
            steps,
            self.recipe.options,
            self.recipe.seed,
            self.counter,
            self.fixed,
        )
        return Trainer(
            self.module,
            data,
            stage.settings,
            DYNAMICS["partly-frozen" if self.fixed else stage.dynamics](context),
            seed=self.recipe.seed,
            device=self.device,
            first_step=stage.first_step,
        )

    def _account(self, stage: Train, trainer: Trainer) -> None:
        self.totals.seconds += trainer.seconds
        if trainer.dynamics.searches:
            # Training scores is a search for the mask; the weights that come out were never trained.
            self.totals.search_flops += trainer.flops
            self.totals.trained = 0
            return
        self.totals.training_flops += trainer.flops
        masked = sum(mask.size - int(np.count_nonzero(mask)) for mask in self.masks.values())
        self.totals.trained = sum(p.numel() for p in self.module.parameters() if p.requires_grad) - masked

    def _select(self, stage: Select) -> None:
        self.progress.stage(stage.title)
        rule = self._rule()
        score = find_score(stage.score)
        probe = self._probe(stage.sparsity, stage.number)
        with readable_errors(self.device):
            self.evidence = {kind: EVIDENCE[kind].gather(probe) for kind in score.evidence}
        self.totals.search_flops += probe.flops
        within = self._trained_masks() if stage.within and self.masks else None
        units = self._unit_evidence(stage.number)

        def choose(scores: Mapping[str, Array]) -> dict[str, BoolArray]:
            return rule.select(scores, stage.sparsity, within, units)

        given = ScoreInputs(
            probe.weights(), self.evidence, self.recipe.seed, stage.number, self.recipe.options, choose, probe.unit_axes
        )
        self.masks = choose(score.compute(given))
        self.fixed = {}
        if self.method.transforms:
            self.trained = {name: weight.copy() for name, weight in given.weights.items()}
        if not self.method.frozen:
            self._zero_pruned()
        self._log_masks(stage.title)

    def _unit_evidence(self, draw: int) -> UnitEvidence | None:
        """Return what coupled units are scored by: their biases and norm entries too, not the space's tensors alone."""
        rule = self._rule()
        if rule.units is None:
            return None
        gradients: dict[str, Array] = {}
        if rule.needs_gradients:
            options = {option.name: self.recipe.options.get(option.name, option.default) for option in SALIENCY_OPTIONS}
            with readable_errors(self.device):
                gradients, examples = accumulate_gradients(
                    self.module, self._data(), rule.names, seed=self.recipe.seed, device=self.device, **options
                )
            self.totals.search_flops += self.counter.scoring(examples)
        weights = weight_arrays(self.module, list(rule.names))
        return UnitEvidence({}, weights, gradients, self.recipe.seed, draw)

    def _change(self, stage: Change) -> None:
        self.progress.stage(stage.title)
        probe = self._probe(stage.sparsity, stage.number)
        with readable_errors(self.device):
            outcome = find_transform(stage.transform).apply(probe)
        self.totals.search_flops += probe.flops
        if outcome.masks is not None:
            self.masks = dict(outcome.masks)
        if outcome.fixed is not None:
            self.fixed = dict(outcome.fixed)
        if outcome.weights is not None:
            set_some(self.module, outcome.weights)
        self.warnings += outcome.warnings
        if not self.method.frozen:
            self._zero_pruned()
        self._log_masks(stage.title)

    def _probe(self, sparsity: float, number: int) -> Probe:
        return Probe(
            self.module,
            self._rule(),
            self.masks,
            sparsity,
            self.recipe.options,
            self.recipe.seed,
            number,
            self.device,
            self.counter,
            self.data,
            self.tape.read,
            self._fresh,
            self.source.example_inputs,
            self.trained,
            self.evidence,
        )

    def _fresh(self, number: int) -> Mapping[str, Array]:
        if self.recipe.init is None:
            raise UsageError(
                f"method '{self.method.name}' draws weights again, and the model brings its own; name an initialiser "
                "with init."
            )
        module = copy.deepcopy(self.module).cpu()
        seed = int(words(self.recipe.seed, f"reinitialise/{number}", 0, 1)[0])
        initialise(module, self.recipe.init, seed, self.recipe.generator)
        return state_arrays(module)

    def _log_masks(self, title: str) -> None:
        space = self._rule().space
        kept = sum(int(np.count_nonzero(self.masks[name])) for name in space.names)
        self._log("mask", title, kept=kept, total=space.total)

    def _zero_pruned(self) -> None:
        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(torch.from_numpy(~mask).to(self.device), 0.0)

    def _trained_masks(self) -> dict[str, BoolArray]:
        return {name: mask & ~self.fixed[name] if name in self.fixed else mask for name, mask in self.masks.items()}

    def _rewind(self, stage: Rewind) -> None:
        set_state(self.module, self.tape.read(stage.label))
        self._zero_pruned()
        # The weights that the trainings so far have led to are given up.
        self.totals.search_flops += self.totals.training_flops
        self.totals.training_flops = 0

    def _snapshot(self, number: int, trainer: Trainer | None) -> None:
        """Write a snapshot of stage ``number``, at its beginning or (with a trainer) between two of its steps."""
        if trainer is None:
            arrays = {f"model:{name}": array for name, array in state_arrays(self.module).items()}
        else:
            arrays = {name: to_numpy(tensor) for name, tensor in trainer.tensors().items()}
        arrays |= {f"mask:{name}": mask.view(np.uint8) for name, mask in self.masks.items()}
        arrays |= {f"fixed:{name}": mask.view(np.uint8) for name, mask in self.fixed.items()}
        position = Position(
            number,
            None if trainer is None else trainer.facts(),
            vars(self.totals).copy(),
            self.folder.log_size(),
            self.warnings,
        )
        self.snapshots.write(position, arrays)

    def _log(self, event: str, stage: str, **figures: Any) -> None:
        self.folder.append({"event": event, "stage": stage, **figures})

    def _data(self) -> Dataset:
        if self.data is None:
            raise UsageError(f"method '{self.method.name}' needs data here; name it with data.")
        return self.data

    def _stage_data(self, stage: Train) -> Dataset:
        data = self._data()
        if stage.data is not None:
            other = load_data(stage.data, augment=stage.settings.augment)
            if other is None or (other.classes, other.input_spec) != (data.classes, data.input_spec):
                raise UsageError(
                    f"the source data '{stage.data}' does not have the inputs and the number of classes of "
                    f"'{data.name}', so one network cannot take both."
                )
            data = other
        return data if stage.view is None else VIEWS[stage.view](data, self.recipe.seed)

    def _rule(self) -> MaskRule:
        if self.rule is None:
            raise UsageError(f"method '{self.method.name}' selects nothing.")
        return self.rule


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
            engine._snapshot(self._number, trainer)
            if self._interrupts.pending:
                raise KeyboardInterrupt

    def record(self, trainer: Trainer) -> None:
        if trainer.step == self._stage.record_step:
            self._engine.tape.record(f"step-{trainer.step}", state_arrays(trainer.module))

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        self._engine._log("epoch", self._stage.title, **figures)


def _part(arrays: Mapping[str, Array], group: str) -> dict[str, Array]:
    return {key.partition(":")[2]: array for key, array in arrays.items() if key.startswith(f"{group}:")}
