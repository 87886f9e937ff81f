"""What every sparse selection shares: the weights stay as they are, something that stands for them is trained.

The network's own parameters hold what it computes with at the moment, so that everything else (forward, evaluation,
export) needs to know nothing of scores. Gradients reach the scores past the choice (straight-through estimator).
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ..dynamics import Dynamics, FlopCounter, no_cost


class LearnedScores(Dynamics):
    """Training of scores over frozen weights; a subclass says what the network computes with.

    Args:
        module: the network; its weights are w_0. Every parameter is frozen from here on.
        scores: the first scores by weight name, float32, in the weight's shape or with an axis more in front.
        flops: counts the operations of an example.
    """

    searches = True

    def __init__(self, module: nn.Module, scores: Mapping[str, torch.Tensor], flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in scores}
        self._initial = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._scores = {name: nn.Parameter(score.to(self._weights[name].device)) for name, score in scores.items()}
        self._trainable = {name: parameter.requires_grad for name, parameter in parameters.items()}
        # The forward pass still has to yield gradients for the chosen tensors; nothing else needs one.
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in self._weights)

    @abstractmethod
    def choose(self) -> None:
        """Choose by the scores, and write what the network computes with."""

    def score_gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of a score from that of the weight that the network computed with."""
        return gradient * self._initial[name]

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the scores."""
        return [(f"scores/{name}", score) for name, score in self._scores.items()]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group: the scores, decayed as the recipe says (the methods rely on it)."""
        return [{"params": list(self._scores.values())}]

    def after_backward(self, step: int) -> bool:
        """Turn the gradients of the weights into gradients of the scores."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                self._scores[name].grad = self.score_gradient(name, weight.grad.to(torch.float32))
                weight.grad = None
        return True

    def after_step(self, step: int) -> None:
        """Choose anew."""
        self.choose()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the scores and the frozen weights; everything else follows from them."""
        scores = {f"scores/{name}": score.detach() for name, score in self._scores.items()}
        return scores | {f"initial/{name}": weight for name, weight in self._initial.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back scores and frozen weights."""
        with torch.no_grad():
            for name, score in self._scores.items():
                score.copy_(tensors[f"scores/{name}"])
                self._initial[name].copy_(tensors[f"initial/{name}"])
        self.choose()

    def finish(self) -> None:
        """Let the network's parameters be what they were before; their values are those of the last choice."""
        for name, parameter in self.module.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(self._trainable[name])
