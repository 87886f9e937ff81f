"""Top-KAST: the largest weights compute, a larger set is trained (Jayakumar et al. 2020).

Forward uses the set A of the D largest magnitudes of each layer, backward the set B of the D + M largest. Gradients are
those at theta on A and move all of B, so that a weight outside A can grow into it; what lies outside B never changes.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn

from ....models.tensors import to_numpy
from ...rule import MaskRule
from ..dynamics import Dynamics, FlopCounter, Masks, no_cost
from ..exact import keep_largest
from ..optimisers import clear_slots


class TopKast(Dynamics):
    """Training of a superset of the weights that compute.

    Args:
        module: the network; its weights are theta.
        rule: space and allocation.
        sparsity: of the forward set A.
        extra: M, the share of a layer that is trained besides A.
        penalty: lambda of the penalty lambda/2 (theta**2 on A + theta**2 / density on B without A).
        every: steps between two choices of the sets.
        flops: counts the operations of an example.

    Attributes:
        backward: the sets B, by weight name.
    """

    def __init__(
        self,
        module: nn.Module,
        rule: MaskRule,
        sparsity: float,
        *,
        extra: float,
        penalty: float,
        every: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, flops)
        parameters = dict(module.named_parameters())
        quota = rule.quota(sparsity)
        if isinstance(quota, int):
            raise ValueError("the sets of Top-KAST are chosen layer by layer")
        self._weights = {name: parameters[name] for name in rule.space.names}
        self._dense = {name: weight.detach().clone() for name, weight in self._weights.items()}
        self._forward_counts = quota
        self._backward_counts = {
            tensor.name: min(tensor.size, quota[tensor.name] + round(extra * tensor.size))
            for tensor in rule.space.tensors
        }
        self._penalty, self._every = penalty, every
        self._optimiser: torch.optim.Optimizer | None = None
        self.backward: Masks = {}
        self._choose()

    def parameter_groups(self) -> list[dict[str, Any]]:
        """Return two groups: masked tensors, whose decay is the method's penalty, and the rest."""
        return self.groups_without_decay(self._weights)

    def attach(self, optimiser: torch.optim.Optimizer) -> None:
        """Take the optimiser, which forgets what lies outside both sets."""
        self._optimiser = optimiser
        for name, weight in self._weights.items():
            clear_slots(optimiser, weight, ~self.backward[name])

    def after_backward(self, step: int) -> bool:
        """Give the optimiser theta itself, and gradients on B alone."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                weight.copy_(self._dense[name])
                if weight.grad is None:
                    continue
                inside, beyond = self.masks[name], self.backward[name] & ~self.masks[name]
                # A layer that computes with nothing counts as one that has a single weight.
                density = max(1, self._forward_counts[name]) / weight.numel()
                weight.grad.add_(weight * (inside + beyond / density), alpha=self._penalty)
                weight.grad.mul_(self.backward[name])
        return True

    def after_step(self, step: int) -> None:
        """Take over what B has become, and now and then choose the sets anew."""
        for name, weight in self._weights.items():
            # What is remembered of weights that were in B once must not move them.
            self._dense[name] = torch.where(self.backward[name], weight.detach(), self._dense[name])
        if (step + 1) % self._every == 0:
            before = dict(self.backward)
            self._choose()
            if self._optimiser is not None:
                for name, weight in self._weights.items():
                    # Of those that come in too: a decay of the optimiser's own gathers in its memory meanwhile.
                    clear_slots(self._optimiser, weight, before[name] ^ self.backward[name])
        else:
            self._show()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return theta and both sets."""
        return (
            {f"theta/{name}": tensor for name, tensor in self._dense.items()}
            | {f"forward/{name}": mask for name, mask in self.masks.items()}
            | {f"backward/{name}": mask for name, mask in self.backward.items()}
        )

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back theta and both sets."""
        for name, weight in self._weights.items():
            self._dense[name].copy_(tensors[f"theta/{name}"])
            self.masks[name] = tensors[f"forward/{name}"].to(weight.device, torch.bool)
            self.backward[name] = tensors[f"backward/{name}"].to(weight.device, torch.bool)
        self._show()

    def _choose(self) -> None:
        for name, theta in self._dense.items():
            magnitude = to_numpy(theta.abs()).reshape(-1)
            for masks, counts in ((self.masks, self._forward_counts), (self.backward, self._backward_counts)):
                kept = keep_largest(magnitude, counts[name]).reshape(theta.shape)
                masks[name] = torch.from_numpy(kept).to(theta.device)
        self.backward = {name: mask | self.masks[name] for name, mask in self.backward.items()}
        self._show()
        self.flops_per_example = self._count_flops(self.masks)

    def _show(self) -> None:
        """Let the network compute with A."""
        with torch.no_grad():
            for name, weight in self._weights.items():
                torch.mul(self._dense[name], self.masks[name], out=weight.data)
