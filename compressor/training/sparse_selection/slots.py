"""Slot machines: every weight is one of K random values, and training learns which (Aladago and Torresani 2021)."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch
from torch import nn

from ....models.prunable import PrunableTensor
from ....models.seeding.candidates import candidate
from ....models.seeding.initialisers import float32
from ....models.seeding.philox import words
from ....models.seeding.record import SeedRecord
from ....models.tensors import to_numpy
from ...parametrisations import Handover, options
from ..dynamics import FlopCounter, no_cost
from .learned import LearnedScores


class SlotMachines(LearnedScores):
    """Training of K scores for each weight, one for each of its values; the weight is a value of a high score.

    The gradient reaches all scores of a weight: dL/ds_k = dL/dw * w_k, by the values that were not chosen too.

    Args:
        module: the network; its own initial weights are not used.
        tensors: what is chosen.
        values: K, of each weight.
        sampled: whether training draws a value by softmax(scores) at every step, instead of the best-scored one; the
            network that comes out has the best-scored ones in either case.
        seed: the run's seed.
        generator: that the values are drawn with.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        tensors: Sequence[PrunableTensor],
        *,
        values: int,
        sampled: bool,
        seed: int,
        generator: str,
        flops: FlopCounter = no_cost,
    ) -> None:
        self._values: dict[str, torch.Tensor] = {}
        self._seeds: dict[str, SeedRecord] = {}
        scores: dict[str, torch.Tensor] = {}
        parameters = dict(module.named_parameters())
        for tensor in tensors:
            device = parameters[tensor.name].device
            drawn, self._seeds[tensor.name] = slot_values(tensor, values, seed, generator)
            self._values[tensor.name] = drawn.to(device)
            scores[tensor.name] = slot_scores(tensor, values, seed)
        super().__init__(module, scores, flops)
        self._sampled = sampled
        self.choices: dict[str, torch.Tensor] = {}
        self.choose()

    def before_forward(self, step: int) -> None:
        """Draw the values of this step, where they are drawn."""
        if self._sampled:
            for name, score in self._scores.items():
                # The largest of scores with Gumbel noise is a draw from their softmax.
                noise = -torch.empty_like(score).exponential_().log_()
                self._pull(name, score.detach() + noise)

    def after_step(self, step: int) -> None:
        """Choose anew; where values are drawn, the next step does it."""
        if not self._sampled:
            self.choose()

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w_k for every value of every weight, in the scores' shape."""
        return gradient.unsqueeze(0) * self._values[name]

    def choose(self) -> None:
        """Let every weight be its best-scored value; of equal scores the first counts."""
        for name, score in self._scores.items():
            self._pull(name, score.detach())

    def finish(self) -> None:
        """Leave the best-scored values."""
        self.choose()
        super().finish()

    def handover(self) -> dict[str, Handover]:
        """Return the number of each weight's value."""
        found = {}
        for name, choices in self.choices.items():
            count = len(self._values[name])
            parts = options.parts_of(to_numpy(choices), count)
            found[name] = Handover("options", parts, seed=self._seeds[name], count=count)
        return found

    def _pull(self, name: str, scores: torch.Tensor) -> None:
        self.choices[name] = scores.argmax(dim=0)
        with torch.no_grad():
            torch.gather(self._values[name], 0, self.choices[name].unsqueeze(0), out=self._weights[name].data[None])


def slot_values(tensor: PrunableTensor, count: int, seed: int, generator: str) -> tuple[torch.Tensor, SeedRecord]:
    """Return the values of every weight, U(-s, s) with s the standard deviation of Glorot and Bengio.

    Args:
        tensor: of which shape and fans.
        count: K.
        seed: the run's seed.
        generator: that draws.

    Returns:
        float32 of shape [K, *tensor.shape], and the seed record whose candidates these are.
    """
    spread = float32(math.sqrt(2 / (tensor.fan_in + tensor.fan_out)))
    record = SeedRecord(generator=generator, seed=seed, name=tensor.name, initialiser="uniform", bound=spread)
    return torch.from_numpy(np.stack([candidate(record, tensor.shape, k) for k in range(count)])), record


def slot_scores(tensor: PrunableTensor, count: int, seed: int) -> torch.Tensor:
    """Return the first scores, U(0, l * s): l is 1 for convolutions and 0.1 for linear layers; [K, *tensor.shape]."""
    spread = math.sqrt(2 / (tensor.fan_in + tensor.fan_out)) * (1.0 if tensor.kind == "conv" else 0.1)
    shape = (count, *tensor.shape)
    uniform = words(seed, f"{tensor.name}/scores", 0, math.prod(shape))
    return torch.from_numpy(uniform.astype("float32") * (spread * 2.0**-32)).reshape(shape).to(torch.float32)
