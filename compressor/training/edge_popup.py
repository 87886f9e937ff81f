"""edge-popup: the weights never change, scores are trained, and a layer computes with its best-scored weights.

Each tensor is w = w_0 * mask(|s|), where the mask keeps the k largest |s|. Backward passes the mask by
(straight-through estimator), so that dL/d|s| = dL/dw * w_0, also for scores whose weight is out (Ramanujan et al.
2020); the chain rule through |s| then gives dL/ds = dL/dw * w_0 * sign(s). The network's own parameters hold w, so
that everything else (forward, evaluation, export) needs to know nothing of scores.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ...files import Array
from ...models.seeding.initialisers import draw
from ...models.tensors import to_numpy
from ..mask import BoolArray
from ..rule import MaskRule
from ..structure import Element
from .dynamics import Dynamics, FlopCounter, no_cost
from .exact import keep_largest


class EdgePopup(Dynamics):
    """Training of scores over frozen weights.

    Args:
        module: the network; its weights are w_0. Every parameter is frozen from here on.
        rule: space, structure and allocation; a ``global`` allocation ranks all scores together.
        sparsity: the share of weights left out.
        seed: the run's seed; scores are drawn from streams of their own.
        flops: counts the operations of an example.
    """

    searches = True

    def __init__(
        self, module: nn.Module, rule: MaskRule, sparsity: float, *, seed: int, flops: FlopCounter = no_cost
    ) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._rule = rule
        self._sparsity = sparsity
        self._quota = rule.quota(sparsity)
        self._weights = {name: parameters[name] for name in rule.space.names}
        self._initial = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._scores = {
            tensor.name: torch.nn.Parameter(
                torch.from_numpy(initial_scores(tensor.shape, tensor.fan_in, seed, tensor.name)).to(
                    self._weights[tensor.name].device
                )
            )
            for tensor in rule.space.tensors
        }
        self._trainable = {name: parameter.requires_grad for name, parameter in parameters.items()}
        # The forward pass still has to yield gradients for the masked tensors; nothing else needs one.
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in self._weights)
        self._choose()
        self.flops_per_example = self._count_flops(self.masks)

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the scores."""
        return [(f"scores/{name}", score) for name, score in self._scores.items()]

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return one group: the scores, decayed as the recipe says (the method relies on it)."""
        return [{"params": list(self._scores.values())}]

    def after_backward(self, step: int) -> bool:
        """Turn the gradients of the weights into gradients of the scores."""
        for name, weight in self._weights.items():
            if weight.grad is not None:
                score = self._scores[name]
                score.grad = weight.grad.to(torch.float32).mul_(self._initial[name]).mul_(score.detach().sign())
                weight.grad = None
        return True

    def after_step(self, step: int) -> None:
        """Choose the best-scored weights anew."""
        self._choose()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the scores and the frozen weights; the masks follow from the scores."""
        scores = {f"scores/{name}": score.detach() for name, score in self._scores.items()}
        return scores | {f"initial/{name}": weight for name, weight in self._initial.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back scores and frozen weights."""
        with torch.no_grad():
            for name, score in self._scores.items():
                score.copy_(tensors[f"scores/{name}"])
                self._initial[name].copy_(tensors[f"initial/{name}"])
        self._choose()

    def finish(self) -> None:
        """Let the network's parameters be what they were before; their values are those that the last masks give."""
        for name, parameter in self.module.named_parameters():
            parameter.grad = None
            parameter.requires_grad_(self._trainable[name])

    def _choose(self) -> None:
        magnitudes = {name: to_numpy(score.detach().abs()) for name, score in self._scores.items()}
        for name, mask in self._select(magnitudes).items():
            kept = torch.from_numpy(mask).to(self._weights[name].device)
            self.masks[name] = kept
            with torch.no_grad():
                torch.mul(self._initial[name], kept, out=self._weights[name].data)

    def _select(self, magnitudes: Mapping[str, Array]) -> dict[str, BoolArray]:
        if isinstance(self._rule.structure, Element) and not isinstance(self._quota, int):
            return {
                name: keep_largest(scores.reshape(-1), self._quota[name]).reshape(scores.shape)
                for name, scores in magnitudes.items()
            }
        return self._rule.select(magnitudes, self._sparsity)


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
