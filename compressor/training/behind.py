"""Training of weights that stand behind those the network computes with: masked, thresholded or scaled for the moment.

Between two steps the network's parameters hold what it computes with, so that evaluation, snapshots and export need to
know nothing. For the optimiser's step the weights behind them take their place, with gradients as the rule says.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import nn

from ...files import Array
from ...models.tensors import to_numpy
from ..rule import MaskRule
from ..saliency import UnitEvidence
from .dynamics import Dynamics, FlopCounter, Masks, no_cost
from .weights import weight_arrays


class WeightsBehind(Dynamics):
    """The base: what is shown is ``shown(name)``; a subclass says how gradients come back and when masks move.

    Args:
        module: the network.
        rule: space, structure and allocation.
        sparsity: the share removed in the end, exactly.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, rule: MaskRule, sparsity: float, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        self._rule = rule
        self._sparsity = sparsity
        self._weights = {name: parameters[name] for name in rule.space.names}
        self._behind = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._optimiser: torch.optim.Optimizer | None = None
        self.masks = {name: torch.ones_like(weight, dtype=torch.bool) for name, weight in self._behind.items()}

    def shown(self, name: str) -> torch.Tensor:
        """Return what the network computes with."""
        return self._behind[name] * self.masks[name]

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the weight behind, from that of the one shown; the straight-through one as it is."""
        return gradient

    def advance(self, step: int) -> None:
        """Move masks or thresholds once step ``step`` is done."""

    def final_scores(self) -> Mapping[str, Array]:
        """Return by what the final mask, of exactly the asked size, is chosen."""
        return {name: np.abs(to_numpy(weight)) for name, weight in self._behind.items()}

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser, and let the network compute with what is shown."""
        self._optimiser = optimiser
        self._show()

    def after_backward(self, step: int) -> bool:
        """Put the weights behind in their place, with their gradients."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                if weight.grad is not None:
                    weight.grad = self.gradient(name, weight.grad)
                weight.copy_(self._behind[name])
        return True

    def after_step(self, step: int) -> None:
        """Take the weights behind away again, and show the next ones."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                self._behind[name].copy_(weight)
        self.advance(step)
        self._show()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the weights behind and the masks."""
        behind = {f"behind/{name}": weight for name, weight in self._behind.items()}
        return behind | {f"mask/{name}": mask for name, mask in self.masks.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        for name, weight in self._behind.items():
            weight.copy_(tensors[f"behind/{name}"])
            self.masks[name] = tensors[f"mask/{name}"].to(weight.device, torch.bool)
        self._recount()

    def finish(self) -> None:
        """Choose the final mask, with exactly the asked number of weights, and keep what it shows."""
        self.masks = choose_now(self.module, self._rule, self.final_scores(), self._sparsity)
        self._show()
        parameters = dict(self.module.named_parameters())
        with torch.no_grad():
            for name, mask in self.masks.items():
                parameters[name].masked_fill_(~mask, 0.0)

    def _show(self) -> None:
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self.shown(name))

    def _choose(self, scores: Mapping[str, torch.Tensor], sparsity: float) -> None:
        """Choose the masks anew by scores, at a sparsity on the way to the final one."""
        arrays = {name: to_numpy(score) for name, score in scores.items()}
        chosen = choose_now(self.module, self._rule, arrays, sparsity)
        self.masks = {name: chosen[name] for name in self._weights}
        self._recount()

    def _recount(self) -> None:
        self.flops_per_example = self._count_flops(self.masks)


class LearnedBehind(WeightsBehind):
    """Weights behind with parameters of their own, which the optimiser trains in a group of its own."""

    def __init__(self, module: nn.Module, rule: MaskRule, sparsity: float, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, rule, sparsity, flops)
        self._learned: dict[str, nn.Parameter] = {}

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the network's parameters and those of the rule."""
        own: list[tuple[str, torch.Tensor]] = [(f"learned/{name}", p) for name, p in self._learned.items()]
        return super().named_parameters() + own

    def groups(self, decay: float) -> list[dict[str, Any]]:
        """Return the network's optimiser group, and that of the rule's parameters with a weight decay of their own."""
        network = [parameter for _, parameter in super().named_parameters()]
        return [{"params": network}, {"params": list(self._learned.values()), "weight_decay": decay}]

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the rule's parameters too."""
        return super().tensors() | {f"learned/{name}": p.detach() for name, p in self._learned.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        super().restore(tensors)
        with torch.no_grad():
            for name, parameter in self._learned.items():
                parameter.copy_(tensors[f"learned/{name}"])


def choose_now(
    module: nn.Module,
    rule: MaskRule,
    scores: Mapping[str, Array],
    sparsity: float,
) -> Masks:
    """Return the masks that a rule gives for these scores, as tensors beside the weights."""
    parameters = dict(module.named_parameters())
    evidence = UnitEvidence({}, weight_arrays(module, list(rule.names)))
    return {
        name: torch.from_numpy(mask).to(parameters[name].device)
        for name, mask in rule.select(scores, sparsity, None, evidence).items()
    }
