"""Masks that move over weights which stay: movement pruning, dynamic network surgery, N:M with straight-through."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ...files import Array
from ...models.seeding.philox import words
from ...models.tensors import to_numpy
from ..rule import MaskRule
from ..schedule import cubic
from .behind import WeightsBehind
from .dynamics import FlopCounter, no_cost


class Movement(WeightsBehind):
    """Movement pruning: weights that training moves away from zero stay (Sanh et al. 2020).

    S <- S - rate * dL/dW' * W at every step, also where the mask is 0 (straight-through). The hard form keeps the best
    of S at a sparsity that rises along a cubic; the soft form keeps whatever exceeds a threshold in sigmoid(S), with a
    penalty on sigmoid(S), and only its final mask has the asked size.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the final one.
        rate: learning rate of the scores.
        start: step at which the hard form's sparsity begins to rise.
        end: step from which on it is the final one.
        soft: which form.
        threshold: of sigmoid(S), soft form.
        penalty: weight of the mean of sigmoid(S), soft form.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        rate: float,
        start: int,
        end: int,
        soft: bool = False,
        threshold: float = 0.1,
        penalty: float = 1.0,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._rate, self._start, self._end = rate, start, end
        self._soft, self._threshold, self._penalty = soft, threshold, penalty
        self._scores = {name: torch.zeros_like(weight) for name, weight in self._behind.items()}

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Move the scores; a weight that is out gets no gradient."""
        scores = self._scores[name]
        if self._soft:
            shares = torch.sigmoid(scores)
            total = sum(score.numel() for score in self._scores.values())
            scores.sub_(shares * (1 - shares), alpha=self._rate * self._penalty / total)
        scores.addcmul_(gradient, self._behind[name], value=-self._rate)
        return gradient * self.masks[name]

    def advance(self, step: int) -> None:
        """Choose the mask by the scores."""
        if self._soft:
            self.masks = {name: torch.sigmoid(s) > self._threshold for name, s in self._scores.items()}
            self._recount()
        else:
            # Where scores are equal, as at the very beginning, magnitude decides.
            self._choose(self._ranked(), cubic(step + 1, self._start, self._end, self._sparsity))

    def final_scores(self) -> Mapping[str, Array]:
        """Return the scores."""
        return {name: to_numpy(score) for name, score in self._ranked().items()}

    def _ranked(self) -> dict[str, torch.Tensor]:
        return {
            name: score + torch.finfo(score.dtype).tiny * self._behind[name].abs()
            for name, score in self._scores.items()
        }

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the scores too."""
        return super().tensors() | {f"scores/{name}": score for name, score in self._scores.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        for name, score in self._scores.items():
            score.copy_(tensors[f"scores/{name}"])


class Surgery(WeightsBehind):
    """Dynamic network surgery: what was pruned learns on and is spliced back once it has grown (Guo et al. 2016).

    Two thresholds a layer, 0.9 t and 1.1 t, keep weights between them as they are. The paper sets t to
    mean + c * deviation of the trained layer's magnitudes with a c for each layer; here c is what makes t the magnitude
    below which the asked share of the layer lies. Masks move with probability (1 + gamma * step)**-power, and not
    after ``end``.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the final one.
        gamma: see above.
        power: see above.
        end: step from which on the masks stay.
        seed: the run's.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        gamma: float,
        power: float,
        end: int,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._gamma, self._power, self._end, self._seed = gamma, power, end, seed
        magnitudes = {name: to_numpy(weight.abs()) for name, weight in self._behind.items()}
        kept = choose_kept(rule, magnitudes, sparsity)
        self._limits = {
            name: torch.tensor(float(np.partition(m.reshape(-1), m.size - k)[m.size - k]) if k else float(m.max()))
            for (name, m), k in zip(magnitudes.items(), kept, strict=True)
        }

    def advance(self, step: int) -> None:
        """Prune below the lower threshold and splice above the upper one, now and then."""
        if step >= self._end:
            return
        drawn = int(words(self._seed, "surgery", step, 1)[0]) * 2.0**-32
        if drawn >= (1 + self._gamma * step) ** -self._power:
            return
        for name, weight in self._behind.items():
            limit = self._limits[name].to(weight.device)
            magnitude = weight.abs()
            self.masks[name] = (self.masks[name] & (magnitude > 0.9 * limit)) | (magnitude > 1.1 * limit)
        self._recount()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the thresholds too: they are those of the weights at the beginning."""
        return super().tensors() | {f"limit/{name}": limit for name, limit in self._limits.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        self._limits = {name: tensors[f"limit/{name}"] for name in self._limits}


def choose_kept(rule: MaskRule, scores: Mapping[str, Array], sparsity: float) -> list[int]:
    """Return how many weights of each tensor a rule would keep by these scores."""
    return [int(np.count_nonzero(mask)) for mask in rule.select(scores, sparsity).values()]


class StraightThrough(WeightsBehind):
    """N:M from scratch: every step computes with the largest of each block and trains all (Zhou et al. 2021, SR-STE).

    The gradient passes the mask by; ``decay`` times the weights that are out is added to it, so that what is out at one
    step is less likely to come back at the next. 0 is the plain straight-through estimator.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the structure's.
        decay: lambda_w.
        flops: counts the operations of an example.
    """

    def __init__(
        self, module: nn.Module, rule: MaskRule, sparsity: float, *, decay: float, flops: FlopCounter = no_cost
    ) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._decay = decay
        self.advance(-1)

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient as it came, plus the decay of what is out."""
        return gradient + self._decay * self._behind[name] * ~self.masks[name]

    def advance(self, step: int) -> None:
        """Choose the largest of each block."""
        self._choose({name: weight.abs() for name, weight in self._behind.items()}, self._sparsity)
