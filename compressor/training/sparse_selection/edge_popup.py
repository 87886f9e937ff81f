"""edge-popup: the weights never change, scores are trained, and a layer computes with its best-scored weights.

Each tensor is w = w_0 * mask(|s|), where the mask keeps the k largest |s|. Backward passes the mask by
(straight-through estimator), so that dL/d|s| = dL/dw * w_0, also for scores whose weight is out (Ramanujan et al.
2020); the chain rule through |s| then gives dL/ds = dL/dw * w_0 * sign(s).
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ....files import Array
from ....models.seeding.initialisers import draw
from ....models.tensors import to_numpy
from ...mask import BoolArray
from ...rule import MaskRule
from ...structure import Element
from ..dynamics import FlopCounter, no_cost
from ..exact import keep_largest
from .learned import LearnedScores


class EdgePopup(LearnedScores):
    """Training of scores over frozen weights, of which the best-scored compute.

    Args:
        module: the network; its weights are w_0. Every parameter is frozen from here on.
        rule: space, structure and allocation; a ``global`` allocation ranks all scores together.
        sparsity: the share of weights left out.
        seed: the run's seed; scores are drawn from streams of their own.
        scores: the first scores by weight name; None: :func:`initial_scores`.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        seed: int,
        scores: Mapping[str, torch.Tensor] | None = None,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, scores or drawn_scores(rule, seed), flops)
        self._rule = rule
        self._sparsity = sparsity
        self._quota = rule.quota(sparsity)
        self.choose()
        self.flops_per_example = self._count_flops(self.masks)

    def ranking(self, score: torch.Tensor) -> torch.Tensor:
        """Return what the mask keeps the largest of."""
        return score.abs()

    def shown(self, name: str, kept: torch.Tensor, out: torch.Tensor) -> None:
        """Write into ``out`` what the network computes with, where ``kept`` is the tensor's mask."""
        torch.mul(self._initial[name], kept, out=out)

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return dL/dw * w_0 * sign(s), for every score."""
        return gradient.mul_(self._initial[name]).mul_(self._scores[name].detach().sign())

    def choose(self) -> None:
        """Choose the best-scored weights."""
        rankings = {name: to_numpy(self.ranking(score.detach())) for name, score in self._scores.items()}
        for name, mask in self._select(rankings).items():
            self.masks[name] = torch.from_numpy(mask).to(self._weights[name].device)
        with torch.no_grad():
            for name, weight in self._weights.items():
                self.shown(name, self.masks[name], weight.data)

    def _select(self, rankings: Mapping[str, Array]) -> dict[str, BoolArray]:
        if isinstance(self._rule.structure, Element) and not isinstance(self._quota, int):
            return {
                name: keep_largest(scores.reshape(-1), self._quota[name]).reshape(scores.shape)
                for name, scores in rankings.items()
            }
        return self._rule.select(rankings, self._sparsity)


def initial_scores(shape: tuple[int, ...], fan_in: int, seed: int, name: str) -> Array:
    """Return the first scores: Kaiming-uniform with a = sqrt(5), which is U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    Args:
        shape: the weight's shape.
        fan_in: inputs of one output unit.
        seed: the run's seed.
        name: the weight's name; the scores' stream is ``name/scores``.

    Returns:
        float32, in ``shape``.
    """
    return draw("uniform", shape, fan_in, 0, seed, f"{name}/scores")[0]


def drawn_scores(rule: MaskRule, seed: int) -> dict[str, torch.Tensor]:
    """Return :func:`initial_scores` of every tensor of a rule's space, by name."""
    return {
        tensor.name: torch.from_numpy(initial_scores(tensor.shape, tensor.fan_in, seed, tensor.name))
        for tensor in rule.space.tensors
    }
