"""The training loop: one optimiser, one schedule, one loss, and something that may move a mask.

In: a network, data, settings, dynamics. Out: the network, trained in place. Guaranteed: the state after any step is a
pure function of the state before it and the step's number, so a training that is stopped between two steps and goes on
from what :meth:`Trainer.tensors` and :meth:`Trainer.facts` hold ends in the same bits.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import AbstractContextManager, nullcontext
from itertools import islice
from typing import Any, Protocol

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import DataError, ModelError, TrainingDivergedError
from ...models.class_scores import class_scores
from ...models.dataset import Dataset
from ...models.seeding.philox import words
from ..settings import TrainSettings
from .dynamics import Dynamics
from .losses import LossMeter
from .optimisers import make_optimiser, optimiser_tensors, restore_optimiser
from .rates import learning_rate
from .scaling import unscale
from .weights import state_tensors


class Watch(Protocol):
    """Whoever wants to look between two steps: to record a state, write a snapshot, stop, or draw a bar."""

    def after_step(self, trainer: Trainer) -> None:
        """Step ``trainer.step - 1`` is done."""

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        """An epoch is done; ``figures`` are its number, mean loss, learning rate and seconds."""


class Trainer:
    """One training, from its first step to its last.

    Attributes:
        module: the network.
        dynamics: what moves the mask.
        step: the next step to take.
        total_steps: where it ends.
        flops: counted operations so far.
        seconds: time spent in :meth:`run` so far, over all resumptions.
        stopped: whether the dynamics ended the training before its last step.
    """

    def __init__(
        self,
        module: nn.Module,
        data: Dataset,
        settings: TrainSettings,
        dynamics: Dynamics,
        *,
        seed: int,
        device: torch.device,
        first_step: int = 0,
    ) -> None:
        self.module = module
        self.dynamics = dynamics
        self.step = first_step
        self.flops = 0
        self.seconds = 0.0
        self.stopped = False
        self._data = data
        self._settings = settings
        self._seed = seed
        self._device = device
        self.steps_per_epoch = data.steps(settings.batch_size)
        self.total_steps = settings.epochs * self.steps_per_epoch
        self._losses = LossMeter()
        self._epoch_seconds = 0.0
        self._optimiser = make_optimiser(dynamics.parameter_groups(), settings)
        self._scaler = torch.amp.GradScaler(device.type) if settings.precision == "float16" else None
        # Dropout draws from torch's own generator; a rewound training draws as a training from that step would.
        torch.manual_seed(int(words(seed, f"training/{first_step}", 0, 1)[0]))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return every tensor that the next step depends on, by name."""
        groups = {
            "model": state_tensors(self.module),
            "optimiser": optimiser_tensors(self._optimiser, self.dynamics.named_parameters()),
            "dynamics": self.dynamics.tensors(),
            "random": {"cpu": torch.get_rng_state()},
        }
        if self._device.type == "cuda":
            groups["random"]["cuda"] = torch.cuda.get_rng_state(self._device)
        return {f"{group}:{name}": tensor for group, tensors in groups.items() for name, tensor in tensors.items()}

    def facts(self) -> dict[str, Any]:
        """Return every number that the next step and the log depend on, as plain data.

        Raises:
            TrainingDivergedError: a loss since the last look, or a weight, is not finite; such a state is not kept.
        """
        self._losses.flush(self.step)
        for name, tensor in state_tensors(self.module).items():
            if tensor.is_floating_point() and not bool(torch.isfinite(tensor).all()):
                raise TrainingDivergedError(
                    f"'{name}' is not finite after step {self.step - 1}; lower the learning rate or add warm-up. "
                    "The last good state is kept in the run's folder."
                )
        return {
            "step": self.step,
            "stopped": self.stopped,
            "flops": self.flops,
            "seconds": self.seconds,
            "epoch_seconds": self._epoch_seconds,
            "loss_total": self._losses.total,
            "loss_examples": self._losses.examples,
            "scaler": self._scaler.state_dict() if self._scaler else None,
        }

    def restore(self, tensors: Mapping[str, torch.Tensor], facts: Mapping[str, Any]) -> None:
        """Take up the training where :meth:`tensors` and :meth:`facts` were taken.

        The network's own state is the caller's to put back, before the dynamics are made.
        """
        parts: dict[str, dict[str, torch.Tensor]] = {"optimiser": {}, "dynamics": {}, "random": {}}
        for key, tensor in tensors.items():
            group, _, name = key.partition(":")
            if group in parts:
                parts[group][name] = tensor
        self.dynamics.restore(parts["dynamics"])
        restore_optimiser(self._optimiser, self.dynamics.named_parameters(), parts["optimiser"])
        self.step, self.flops, self.stopped = facts["step"], facts["flops"], facts["stopped"]
        self.seconds, self._epoch_seconds = facts["seconds"], facts["epoch_seconds"]
        self._losses.total, self._losses.examples = facts["loss_total"], facts["loss_examples"]
        if self._scaler is not None:
            self._scaler.load_state_dict(facts["scaler"])
        torch.set_rng_state(parts["random"]["cpu"])
        if "cuda" in parts["random"]:
            torch.cuda.set_rng_state(parts["random"]["cuda"], self._device)

    def run(self, watch: Watch) -> None:
        """Train to the last step.

        Raises:
            TrainingDivergedError: the loss is not finite.
        """
        self.module.train()
        self.dynamics.attach(self._optimiser)
        clock = time.monotonic()
        while self.step < self.total_steps and not self.stopped:
            epoch, done = divmod(self.step, self.steps_per_epoch)
            for inputs, labels in self._batches(epoch, done):
                self._train_on(inputs, labels)
                now = time.monotonic()
                self.seconds += now - clock
                self._epoch_seconds += now - clock
                clock = now
                # The epoch's end belongs to its last step: whoever looks next sees both done or neither.
                if self.step % self.steps_per_epoch == 0:
                    self._end_epoch(epoch, watch)
                watch.after_step(self)
            if self.step // self.steps_per_epoch == epoch:
                raise DataError(
                    f"epoch {epoch + 1} ended after {self.step % self.steps_per_epoch} batches; the data promised "
                    f"{self.steps_per_epoch}."
                )
        self.dynamics.finish()

    def _batches(self, epoch: int, done: int) -> Any:
        batches = self._data.batches(
            "train",
            self._settings.batch_size,
            seed=self._seed,
            epoch=epoch,
            shuffle=True,
            device=self._device,
        )
        return islice(batches, done, self.steps_per_epoch)

    def _end_epoch(self, epoch: int, watch: Watch) -> None:
        self._losses.flush(self.step)
        figures = {
            "epoch": epoch + 1,
            "loss": self._losses.mean,
            "learning_rate": learning_rate(self._settings, self.step - 1, self.steps_per_epoch),
            "seconds": round(self._epoch_seconds, 3),
        }
        self.stopped = not self.dynamics.after_epoch(epoch + 1)
        watch.after_epoch(self, figures)
        self._losses.start_epoch()
        self._epoch_seconds = 0.0

    def _train_on(self, inputs: torch.Tensor, labels: torch.Tensor) -> None:
        optimiser, dynamics = self._optimiser, self.dynamics
        rate = learning_rate(self._settings, self.step, self.steps_per_epoch)
        for group in optimiser.param_groups:
            group["lr"] = rate
            for parameter in group["params"]:
                parameter.grad = None
        dynamics.before_forward(self.step)
        with self._precision():
            outputs = self._outputs(inputs)
            loss = F.cross_entropy(outputs, labels, label_smoothing=self._settings.label_smoothing)
            loss = dynamics.objective(loss, inputs, outputs, labels)
        if not loss.requires_grad:
            raise ModelError(
                "the loss depends on no parameter that is trained, so there is nothing to learn; the model's forward "
                "must not detach its outputs."
            )
        if self._scaler is None:
            torch.autograd.backward(loss)
            if dynamics.after_backward(self.step):
                optimiser.step()
        else:
            torch.autograd.backward(self._scaler.scale(loss))
            # What overflowed is left out; the dynamics do not get to see it.
            finite = unscale(self._scaler, optimiser, self.module)
            if finite and dynamics.after_backward(self.step):
                self._scaler.step(optimiser)
            self._scaler.update()
        dynamics.after_step(self.step)
        examples = len(labels)
        self.flops += dynamics.flops_per_example * examples
        self.step += 1
        if self._losses.add(loss, examples):
            self._losses.flush(self.step)

    def _outputs(self, inputs: torch.Tensor) -> torch.Tensor:
        try:
            outputs = self.module(inputs)
        except (AttributeError, LookupError, TypeError, ValueError) as error:
            raise ModelError(
                f"the model failed at step {self.step} of its training, on inputs of shape {tuple(inputs.shape)}: "
                f"{type(error).__name__}: {error}"
            ) from error
        return class_scores(outputs)

    def _precision(self) -> AbstractContextManager[Any]:
        if self._settings.precision == "float32":
            return nullcontext()
        return torch.autocast(self._device.type, dtype=getattr(torch, self._settings.precision))
