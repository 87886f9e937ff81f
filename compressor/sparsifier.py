"""The sparsifier: any method of the catalogue in a training loop of the user's own.

In: a network, a method and its settings. The loop keeps its data, loss, optimiser, precision and schedule, and calls
:meth:`Sparsifier.step` where it would step its optimiser. Out: the network, masked, and a sparse checkpoint.

    sparsifier = Sparsifier(model, example_inputs, method="rigl", sparsity=0.9, total_steps=1000)
    optimiser = torch.optim.SGD(sparsifier.parameters(), lr=0.1, momentum=0.9)
    sparsifier.attach(optimiser)
    for inputs, labels in loader:
        loss = cross_entropy(model(inputs), labels)
        loss.backward()
        sparsifier.step()
        optimiser.zero_grad()
    sparsifier.finish()
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

import msgspec
import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from ..errors import TrainingDivergedError, UsageError
from ..models.checked_data import make_dataset
from ..models.dataset import Dataset
from ..models.seeding.philox import check_seed
from ..models.source import InputSpec, ModelRecord, TorchSource, load_source
from ..models.tensors import to_numpy, to_torch
from .checkpoint import SparseCheckpoint
from .counter import Totals
from .masked_network import MaskedNetwork
from .plans import Train
from .recipe_defaults import Shared, complete
from .settings import OPTIMISERS, RunSettings
from .training.dynamics import Dynamics
from .training.frozen import FrozenPart
from .training.scaling import unscale
from .training.tape import MemoryTape, step_label
from .training.weights import state_arrays

# A checkpoint needs the name of a factory; until one is given, the recipe says whose network it is.
_OWN = "own:network"


class Sparsifier:
    """A method attached to the user's own loop.

    Args:
        module: the network, on its device, with its weights; they are changed in place.
        example_inputs: one batch of inputs, or several for a network with several.
        method: a name out of ``compress methods``.
        sparsity: share of the prunable weights to remove; None where the structure or densities by layer imply it.
        total_steps: optimiser steps of one training, by which schedules that follow it are laid out.
        structure: None for the method's default.
        allocation: None for the method's default, a name, or densities by layer.
        schedule: None for the method's default.
        rounds: of an iterative schedule.
        options: the method's own settings.
        exclude: names or globs of tensors that are never pruned.
        keep_alive: every layer keeps at least one weight or group.
        init: an initialiser to draw the network with; None keeps its weights.
        seed: of everything random.
        data: (inputs, labels) for methods that score with data, or a :class:`~sparsepack.models.dataset.Dataset`.

    Attributes:
        training: the title of the training that the loop has to carry out, None when the plan is done.
        steps: optimiser steps taken in it; one that goes on after a rewinding begins at the step rewound to.

    Raises:
        SparsepackError: a name, value or combination that cannot be.
    """

    def __init__(
        self,
        module: nn.Module,
        example_inputs: Tensor | tuple[Tensor, ...],
        *,
        method: str,
        sparsity: float | None = None,
        total_steps: int,
        structure: str | None = None,
        allocation: str | dict[str, float] | None = None,
        schedule: str | None = None,
        rounds: int | None = None,
        options: Mapping[str, Any] | None = None,
        exclude: tuple[str, ...] = (),
        keep_alive: bool = False,
        init: str | None = None,
        seed: int = 0,
        data: Dataset | tuple[Tensor, Tensor] | None = None,
    ) -> None:
        if total_steps < 1:
            raise UsageError(f"total_steps is {total_steps}; a training has at least one step.")
        examples = example_inputs if isinstance(example_inputs, tuple) else (example_inputs,)
        if not examples or any(example.dim() == 0 or len(example) == 0 for example in examples):
            raise UsageError("example_inputs hold no example; give a batch of at least one.")
        first = next(module.parameters(), None)
        if first is None:
            raise UsageError("the network has no parameters, so there is nothing to prune.")
        run = RunSettings(
            name="own",
            method=method,
            sparsity=sparsity,
            structure=structure,
            allocation=allocation,
            schedule=schedule,
            rounds=rounds,
            options=dict(options or {}),
            exclude=list(exclude),
            keep_alive=keep_alive,
            init=init,
        )
        device = first.device
        shared = Shared(_OWN, None, "own", check_seed(seed), torch.get_num_threads(), device.type, {"epochs": 1})
        specs = [
            InputSpec(f"input_{number}", tuple(example.shape[1:]), str(example.dtype).removeprefix("torch."))
            for number, example in enumerate(examples)
        ]
        self._total_steps = total_steps
        self._tape = MemoryTape()
        self._examples = tuple(example.detach().cpu() for example in examples)
        self._network = MaskedNetwork(
            complete(shared, run, ""),
            module,
            ModelRecord("factory", _OWN, specs),
            self._first_examples,
            _dataset(data),
            self._tape,
            device,
        )
        self._stage = -1
        self._dynamics = Dynamics(module)
        self._optimiser: torch.optim.Optimizer | None = None
        self._asked = False
        self.training: str | None = None
        self.steps = 0
        self._epochs = 0
        self._hook: RemovableHandle | None = None
        self._advance()

    @property
    def masks(self) -> dict[str, Tensor]:
        """The present masks by parameter name: bool tensors on the network's device, True = kept."""
        if self._dynamics.masks:
            return dict(self._dynamics.masks)
        return {name: torch.from_numpy(mask).to(self._network.device) for name, mask in self._network.masks.items()}

    @property
    def sparsity(self) -> float:
        """The share of the prunable weights that the present masks remove."""
        masks = self.masks
        space = () if self._network.rule is None else self._network.rule.space.tensors
        kept = sum(int(masks[tensor.name].sum()) if tensor.name in masks else tensor.size for tensor in space)
        total = sum(tensor.size for tensor in space)
        return 1 - kept / total if total else 0.0

    def parameters(self) -> Iterator[Tensor]:
        """Yield what the optimiser of the present training is to train: the weights, or a method's scores."""
        for _, parameter in self._dynamics.named_parameters():
            yield parameter

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser of the present training; its memory of weights that leave is cleared.

        Raises:
            UsageError: it trains other tensors than :meth:`parameters`.
        """
        held = {id(parameter) for group in optimiser.param_groups for parameter in group["params"]}
        if not all(id(parameter) in held for parameter in self.parameters()):
            raise UsageError(
                f"the optimiser does not hold what method '{self._network.method.name}' trains; build it with "
                "sparsifier.parameters()."
            )
        self._optimiser = optimiser
        self._dynamics.attach(optimiser)

    def loss(self, loss: Tensor, inputs: Tensor, outputs: Tensor, labels: Tensor) -> Tensor:
        """Return what to go back from: ``loss`` with what the method adds to it, for those that add something."""
        self._asked = True
        return self._dynamics.objective(loss, inputs, outputs, labels)

    def step(self, scaler: torch.amp.GradScaler | None = None, clip_norm: float | None = None) -> None:
        """Take one step with the gradients of the parameters; call it where the loop would step its optimiser.

        With accumulated gradients call it once for each update, not for each backward pass.

        Args:
            scaler: of a mixed-precision loop; gradients are unscaled here, and a step whose gradients overflowed is
                left out as the scaler does it.
            clip_norm: largest norm of all trained gradients together, measured after pruned ones are zero.

        Raises:
            UsageError: no optimiser is attached, the plan is done, or the method's loss was not asked for.
            TrainingDivergedError: a gradient that the method looks at is not finite.
        """
        optimiser = self._ready()
        if scaler is not None and not unscale(scaler, optimiser, self._network.module):
            # What overflowed is left out; a method does not get to see it.
            scaler.update()
            return
        if self._dynamics.after_backward(self.steps):
            if clip_norm is not None:
                torch.nn.utils.clip_grad_norm_(list(self.parameters()), clip_norm)
            if scaler is None:
                optimiser.step()
            else:
                scaler.step(optimiser)
        if scaler is not None:
            scaler.update()
        self._dynamics.after_step(self.steps)
        if isinstance(self._dynamics, FrozenPart):
            # Whatever optimiser the loop has, its decay and momentum do not reach what is frozen.
            self._dynamics.put_back()
        self.steps += 1
        self._asked = False
        self._record()

    def end_epoch(self) -> bool:
        """Tell the method that an epoch is over; return whether it wants another."""
        self._epochs += 1
        return self._dynamics.after_epoch(self._epochs)

    def finish(self) -> bool:
        """End the present training and do what comes before the next one; return whether there is a next one.

        Raises:
            TrainingDivergedError: a weight is not finite.
        """
        for name, parameter in self._network.module.named_parameters():
            if not bool(torch.isfinite(parameter).all()):
                raise TrainingDivergedError(f"'{name}' is not finite after step {self.steps}; lower the learning rate.")
        self._dynamics.finish()
        self._network.conclude(self._dynamics, 0, 0.0)
        self._advance()
        return self.training is not None

    def state_dict(self) -> dict[str, Any]:
        """Return where the method stands, as tensors and numbers; model and optimiser have state dicts of their own."""
        network = self._network
        return {
            "stage": self._stage,
            "steps": self.steps,
            "epochs": self._epochs,
            "masks": {name: torch.from_numpy(mask.copy()) for name, mask in network.masks.items()},
            "fixed": {name: torch.from_numpy(mask.copy()) for name, mask in network.fixed.items()},
            "dynamics": {name: tensor.detach().clone() for name, tensor in self._dynamics.tensors().items()},
            # What later stages look back on: weights to rewind to, those that the last mask was chosen by.
            "tape": {
                label: {name: to_torch(array.copy()) for name, array in state.items()}
                for label, state in self._tape.states.items()
            },
            "trained": {name: to_torch(array.copy()) for name, array in network.trained.items()},
            "totals": vars(network.totals).copy(),
            "warnings": list(network.warnings),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from :meth:`state_dict`; load the model first, this second, then attach the optimiser and load it.

        Raises:
            UsageError: the state is of another method or plan.
        """
        network = self._network
        plan = network.plan
        if not 0 <= state["stage"] <= len(plan):
            raise UsageError("the state is of another method: its stage is not one of this plan.")
        network.masks = {name: to_numpy(mask).astype(np.bool_) for name, mask in state["masks"].items()}
        network.fixed = {name: to_numpy(mask).astype(np.bool_) for name, mask in state["fixed"].items()}
        self._tape.states = {
            label: {name: to_numpy(tensor).copy() for name, tensor in kept.items()}
            for label, kept in state["tape"].items()
        }
        network.trained = {name: to_numpy(tensor).copy() for name, tensor in state["trained"].items()}
        network.totals = Totals(**state["totals"])
        network.warnings = list(state["warnings"])
        self._stage = state["stage"]
        self._optimiser = None
        stage = plan[self._stage] if self._stage < len(plan) else None
        if isinstance(stage, Train):
            self._begin(stage)
            self._dynamics.restore(state["dynamics"])
        else:
            self.training = None
            self._unhook()
        self.steps, self._epochs = state["steps"], state["epochs"]

    def checkpoint(self, model: str) -> SparseCheckpoint:
        """Return the sparse checkpoint of the network as it is.

        Args:
            model: the factory that builds it (``file.py:factory`` or ``package.module:factory``), for exports that
                need the network itself. It is run once.

        Raises:
            UsageError: the plan is not done.
            ModelError: the factory does not build this network.
        """
        from .assemble import assemble

        if self.training is not None:
            raise UsageError(f"the training '{self.training}' is not finished; call finish() when it is.")
        network = self._network
        source = load_source(model, inputs=network.record.inputs, allow_import=True)
        if not isinstance(source, TorchSource):
            raise UsageError(f"'{model}' is no factory.")
        network.record = source.record
        network.recipe = msgspec.structs.replace(network.recipe, model=model)
        made = assemble(network, network.recipe.threads or 1)
        network.module.to(network.device)
        return made

    def _ready(self) -> torch.optim.Optimizer:
        if self.training is None:
            raise UsageError("the method's plan is done; there is nothing left to train.")
        if self._optimiser is None:
            raise UsageError("no optimiser is attached to this training; call attach(optimiser) before the first step.")
        if not self._asked and type(self._dynamics).objective is not Dynamics.objective:
            raise UsageError(
                f"method '{self._network.method.name}' adds to the loss; go back from "
                "sparsifier.loss(loss, inputs, outputs, labels)."
            )
        return self._optimiser

    def _advance(self) -> None:
        """Carry out stages up to the next training, and begin that."""
        network = self._network
        self.training, self._optimiser = None, None
        self._unhook()
        for number in range(self._stage + 1, len(network.plan)):
            stage = network.plan[number]
            self._stage = number
            if isinstance(stage, Train):
                self._begin(stage)
                return
            network.carry_out(stage)
        self._stage = len(network.plan)
        self._dynamics = Dynamics(network.module)

    def _begin(self, stage: Train) -> None:
        if (stage.data, stage.view, stage.examples) != (None, None, None):
            raise UsageError("this plan trains on other data in between, which a loop of your own cannot be told.")
        if stage.first_step > self._total_steps or (stage.record_step or 0) > self._total_steps:
            raise UsageError(f"rewind_step is beyond the {self._total_steps} steps of the training.")
        # The loop's own optimiser decays weights; dynamics that would do it in its place are told of no decay.
        settings = msgspec.structs.replace(stage.settings, weight_decay=0.0, optimiser=OPTIMISERS[0])
        self._dynamics = self._network.dynamics(replace(stage, settings=settings), self._total_steps)
        self.training = stage.title
        self._unhook()
        self._hook = self._network.module.register_forward_pre_hook(self._before_forward)
        self.steps, self._epochs = stage.first_step, 0
        self._record()

    def _unhook(self) -> None:
        """Leave the network as it came: while it holds the hook, a copy of it is a copy of all that hangs on that."""
        if self._hook is not None:
            self._hook.remove()
            self._hook = None

    def _record(self) -> None:
        plan = self._network.plan
        stage = plan[self._stage] if self._stage < len(plan) else None
        if isinstance(stage, Train) and stage.record_step == self.steps:
            self._network.tape.record(step_label(self.steps), state_arrays(self._network.module))

    def _before_forward(self, module: nn.Module, inputs: tuple[Any, ...]) -> None:
        if module.training and self.training is not None:
            self._dynamics.before_forward(self.steps)

    def _first_examples(self, batch: int) -> tuple[Tensor, ...]:
        return tuple(torch.cat([example] * (-(-batch // len(example))))[:batch] for example in self._examples)


def _dataset(data: Dataset | tuple[Tensor, Tensor] | None) -> Dataset | None:
    if data is None or isinstance(data, Dataset):
        return data
    inputs, labels = (to_numpy(tensor.detach().cpu()) for tensor in data)
    return make_dataset("own", inputs, labels, inputs, labels)
