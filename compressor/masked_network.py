"""A network with its masks, and everything that a plan does to it between two trainings.

In: a recipe, its method, a network and what evidence may look at (data, tape, example inputs). Out: masks, seeds and
counted cost. The engine trains it from a recipe; a sparsifier lets the user's own loop train it.

Masks are on weights, and, where a structure removes whole units, on the biases and norm entries of these units too.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from typing import Protocol

import numpy as np
import torch
from torch import Tensor, nn

from ..errors import UsageError
from ..files import Array
from ..models.dataset import Dataset
from ..models.graph.coupled import couplings_of_module
from ..models.prunable import prunable_tensors
from ..models.seeding.candidates import candidate
from ..models.seeding.initialise import initialise
from ..models.seeding.philox import words
from ..models.seeding.record import SeedRecord
from ..models.source import ModelRecord
from ..models.tensors import to_numpy
from .counter import Counter, Totals, count_layers
from .coupling import Network
from .evidence import EVIDENCE
from .evidence.gradients import accumulate_gradients
from .evidence.probe import Probe
from .mask import BoolArray
from .methods import find_method
from .methods.pai.common import SALIENCY_OPTIONS
from .parametrisations import Handover
from .plans import Change, Record, Rewind, Select, Stage, Train, make_plan
from .rule import MaskRule, make_rule
from .saliency import UnitEvidence
from .scores import ScoreInputs, find_score
from .settings import PruneRecipe
from .training.devices import readable_errors
from .training.dynamics import Dynamics
from .training.table import DYNAMICS, Context
from .training.weights import set_some, set_state, state_arrays, weight_arrays
from .transforms import find_transform


class States(Protocol):
    """Where recorded states are kept: in a run's folder, or in memory."""

    def record(self, label: str, state: Mapping[str, Array]) -> None:
        """Keep a state."""

    def read(self, label: str) -> Mapping[str, Array]:
        """Return a kept state."""


class MaskedNetwork:
    """One network under its masks.

    Attributes:
        recipe: complete.
        method: its declaration.
        module: the network, on ``device``.
        record: where it comes from.
        example_inputs: draws inputs for a batch size.
        data: training and test examples, or None.
        tape: recorded states.
        device: where it is.
        seeds: by name, the parameters that rebuild from a seed.
        prunable: every prunable tensor, in order.
        rule: space, structure and allocation; None for a dense run.
        sparsity: the run's final one.
        plan: the stages.
        counter: counts operations.
        totals: what the run has cost.
        masks: the present masks by name; empty before the first selection.
        fixed: entries within the masks that are not trained.
        trained: the space's weights when the last mask was chosen; kept only for transforms.
        evidence: what the last selection gathered.
        handed: what the last training handed over in place of weights, by tensor name.
        warnings: what transforms had to tell, in full sentences.
    """

    def __init__(
        self,
        recipe: PruneRecipe,
        module: nn.Module,
        record: ModelRecord,
        example_inputs: Callable[[int], tuple[Tensor, ...]],
        data: Dataset | None,
        tape: States,
        device: torch.device,
    ) -> None:
        self.recipe = recipe
        self.method = find_method(recipe.method)
        self.module = module
        self.record = record
        self.example_inputs = example_inputs
        self.data = data
        self.tape = tape
        self.device = device
        self.seeds: dict[str, SeedRecord] = {}
        if recipe.init is not None:
            self.seeds = initialise(module, recipe.init, recipe.seed, recipe.generator)
        self.prunable = prunable_tensors(module)
        self.rule: MaskRule | None = None
        self.sparsity = 0.0
        if self.method.mask_from is not None:
            prunable = self.prunable[:-1] if self.method.spares_head else self.prunable
            prunable = prunable[-1:] if self.method.only_head else prunable
            # What is frozen still computes, so freezing a unit takes nothing away from others.
            couplings = None if self.method.frozen else self._couplings
            self.rule, self.sparsity = make_rule(recipe, prunable, couplings)
        self.plan = make_plan(recipe, self.method, self.sparsity)
        self.counter = count_layers(module, example_inputs) if self.plan_computes else Counter(self.prunable)
        self.totals = Totals()
        self.masks: dict[str, BoolArray] = {}
        self.fixed: dict[str, BoolArray] = {}
        self.trained: dict[str, Array] = {}
        self.evidence: dict[str, Mapping[str, Array]] = {}
        self.handed: dict[str, Handover] = {}
        self.warnings: list[str] = []
        module.to(device)

    @property
    def plan_computes(self) -> bool:
        """Whether anything in the plan runs the network, so that its operations are to be counted."""
        return any(
            isinstance(stage, (Train, Change)) or (isinstance(stage, Select) and find_score(stage.score).evidence)
            for stage in self.plan
        )

    @property
    def chosen(self) -> MaskRule:
        """The rule; asked for only by stages that mask."""
        if self.rule is None:
            raise UsageError(f"method '{self.method.name}' selects nothing.")
        return self.rule

    def required_data(self) -> Dataset:
        """Return the data.

        Raises:
            UsageError: there is none.
        """
        if self.data is None:
            raise UsageError(f"method '{self.method.name}' needs data here; name it with data.")
        return self.data

    def carry_out(self, stage: Stage) -> bool:
        """Carry out one stage that is no training; return whether it chose or changed masks.

        Raises:
            SparsepackError: what the network, the data or the rule does not allow.
        """
        if not isinstance(stage, Record):
            # What is done to the weights now, nothing that was handed over knows of.
            self.handed = {}
        if isinstance(stage, Record):
            masks = {f"mask:{name}": mask.view(np.uint8) for name, mask in self.masks.items()} if stage.masks else {}
            self.tape.record(stage.label, {**state_arrays(self.module), **masks})
        elif isinstance(stage, Rewind):
            self._rewind(stage)
        elif isinstance(stage, Select):
            self._select(stage)
            return True
        elif isinstance(stage, Change):
            self._change(stage)
            return True
        return False

    def kept(self) -> int:
        """Return how many weights of the space the masks keep."""
        return sum(int(np.count_nonzero(self.masks[name])) for name in self.chosen.space.names)

    def dynamics(self, stage: Train, total_steps: int, data: Dataset | None = None) -> Dynamics:
        """Return what moves masks during a training of ``total_steps`` steps, on ``data`` if its order is known."""
        context = Context(
            self.module,
            self.masks,
            self.rule,
            self.sparsity if stage.sparsity is None else stage.sparsity,
            stage.settings,
            total_steps,
            self.recipe.options,
            self.recipe.seed,
            self.counter,
            self.fixed,
            data,
            self.seeds,
            self.recipe.generator,
            self._redraw,
            self.tape.read,
            stage.task,
        )
        return DYNAMICS["partly-frozen" if self.fixed else stage.dynamics](context)

    def conclude(self, dynamics: Dynamics, flops: int, seconds: float) -> None:
        """Take over what a training that is done has led to: masks, recordings, cost.

        Args:
            dynamics: of the training. Where it only looked for the mask, no weight that comes out was trained.
            flops: that it cost.
            seconds: that it took.
        """
        if dynamics.masks:
            self.masks = {name: to_numpy(mask).copy() for name, mask in dynamics.masks.items()}
        self.handed = dynamics.handover()
        self.warnings += dynamics.remarks()
        for label, found in dynamics.recordings().items():
            self.tape.record(label, {name: to_numpy(tensor) for name, tensor in found.items()})
        self.totals.seconds += seconds
        if dynamics.searches:
            self.totals.search_flops += flops
            self.totals.trained = 0
            return
        self.totals.training_flops += flops
        self.totals.trained = sum(
            int(np.count_nonzero(self.masks[name])) if name in self.masks else parameter.numel()
            for name, parameter in self.module.named_parameters()
            if parameter.requires_grad and name not in dynamics.untrained
        )
        self.totals.trained += dynamics.added

    def _couplings(self) -> Network:
        graph = couplings_of_module(self.module, self.example_inputs(2), self.record.inputs)
        return Network(graph, {name: tuple(p.shape) for name, p in self.module.named_parameters()})

    def _select(self, stage: Select) -> None:
        rule = self.chosen
        score = find_score(stage.score)
        probe = self._probe(stage.sparsity, stage.number)
        with readable_errors(self.device):
            self.evidence = {kind: EVIDENCE[kind].gather(probe) for kind in score.evidence}
        self.totals.search_flops += probe.flops
        within = self._trained_masks() if stage.within and self.masks else None
        units = self._unit_evidence(stage.number)

        def choose(scores: Mapping[str, Array]) -> dict[str, BoolArray]:
            return rule.select(scores, stage.sparsity, within, units, stage.share)

        given = ScoreInputs(
            probe.weights(), self.evidence, self.recipe.seed, stage.number, self.recipe.options, choose, probe.unit_axes
        )
        self.masks = choose(score.compute(given))
        self.fixed = {}
        if self.method.transforms:
            self.trained = {name: weight.copy() for name, weight in given.weights.items()}
        if self.method.zeroes:
            self._zero_pruned()

    def _unit_evidence(self, draw: int) -> UnitEvidence | None:
        """Return what coupled units are scored by: their biases and norm entries too, not the space's tensors alone."""
        rule = self.chosen
        if rule.units is None:
            return None
        gradients: dict[str, Array] = {}
        if rule.needs_gradients:
            options = {option.name: self.recipe.options.get(option.name, option.default) for option in SALIENCY_OPTIONS}
            with readable_errors(self.device):
                gradients, examples = accumulate_gradients(
                    self.module,
                    self.required_data(),
                    rule.names,
                    seed=self.recipe.seed,
                    epoch=draw,
                    device=self.device,
                    **options,
                )
            self.totals.search_flops += self.counter.scoring(examples)
        weights = weight_arrays(self.module, list(rule.names))
        macs = {tensor.name: tensor.macs for tensor in self.counter.tensors if tensor.macs is not None}
        return UnitEvidence({}, weights, gradients, self.recipe.seed, draw, macs)

    def _change(self, stage: Change) -> None:
        probe = self._probe(stage.sparsity, stage.number)
        with readable_errors(self.device):
            outcome = find_transform(stage.transform).apply(probe)
        if outcome.fitted:
            self.totals.training_flops += probe.flops
            self.totals.trained = outcome.fitted
        else:
            self.totals.search_flops += probe.flops
        if outcome.masks is not None:
            self.masks = dict(outcome.masks)
        if outcome.fixed is not None:
            self.fixed = dict(outcome.fixed)
        if outcome.handed is not None:
            self.handed = dict(outcome.handed)
        if outcome.weights is not None:
            set_some(self.module, outcome.weights)
        for label, arrays in outcome.records.items():
            self.tape.record(label, arrays)
        self.warnings += outcome.warnings
        if self.method.zeroes:
            self._zero_pruned()

    def _probe(self, sparsity: float, number: int) -> Probe:
        return Probe(
            self.module,
            self.chosen,
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
            self.example_inputs,
            self.trained,
            self.evidence,
            self.seeds,
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

    def _redraw(self, number: int) -> Mapping[str, Array]:
        if not all(name in self.seeds for name in self.chosen.space.names):
            return self._fresh(number)
        space = self.chosen.space.tensors
        return {tensor.name: candidate(self.seeds[tensor.name], tensor.shape, number) for tensor in space}

    def _rewind(self, stage: Rewind) -> None:
        set_state(self.module, self.tape.read(stage.label))
        self._zero_pruned()
        # The weights that the trainings so far have led to are given up.
        self.totals.search_flops += self.totals.training_flops
        self.totals.training_flops = 0

    def _zero_pruned(self) -> None:
        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(torch.from_numpy(~mask).to(self.device), 0.0)

    def _trained_masks(self) -> dict[str, BoolArray]:
        return {name: mask & ~self.fixed[name] if name in self.fixed else mask for name, mask in self.masks.items()}
