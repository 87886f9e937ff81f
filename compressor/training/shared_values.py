"""Trained quantisation: weights share values, and the shared values are trained while who shares what stays fixed.

The gradient of a shared value is the sum of the gradients of its members, each times its factor (Han et al. 2016, Deep
Compression, section 3.3, equation 3): w_i = f_i t[k_i] gives dL/dt[k] = sum over k_i = k of f_i dL/dw_i. A codebook has
factors of 1; the scales of int8 weights have the codes as factors.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch
from torch import nn

from .dynamics import Dynamics


@dataclass(frozen=True)
class Sharing:
    """The weights of one tensor that share values.

    Attributes:
        table: the key of the table that holds the values.
        positions: int64 [count], flat positions in the weight; every other weight stays as it is.
        members: int64 [count], the entry of each.
        factors: float32 [count], or None for ones.
    """

    table: str
    positions: torch.Tensor
    members: torch.Tensor
    factors: torch.Tensor | None = None


class SharedValues(Dynamics):
    """Training of shared values alone.

    What the optimiser sees is each table's distance from where it began, in units of ``steps``, so that one learning
    rate suits every table. Everything else in the network keeps its value; statistics of normalisation layers follow.
    """

    def __init__(
        self,
        module: nn.Module,
        sharings: Mapping[str, Sharing],
        tables: Mapping[str, torch.Tensor],
        steps: Mapping[str, torch.Tensor],
    ) -> None:
        """Take over a network.

        Args:
            module: the network; its weights are overwritten.
            sharings: by weight name.
            tables: the shared values by table key, float32 1-D.
            steps: the unit in which each is trained; broadcasts to the table.
        """
        super().__init__(module)
        parameters = dict(module.named_parameters())
        self._weights = {name: parameters[name] for name in sharings}
        self._sharings = dict(sharings)
        self._begin = dict(tables)
        self._steps = dict(steps)
        self._moves = {key: torch.zeros_like(table, requires_grad=True) for key, table in tables.items()}
        for name, parameter in parameters.items():
            parameter.requires_grad_(name in sharings)
        self.write()

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the tables' distances from where they began."""
        return list(self._moves.items())

    def table(self, key: str) -> torch.Tensor:
        """Return the present values of a table."""
        return self._begin[key] + self._steps[key] * self._moves[key].detach()

    def write(self) -> None:
        """Write the shared values into the weights."""
        with torch.no_grad():
            tables = {key: self.table(key) for key in self._moves}
            for name, sharing in self._sharings.items():
                values = tables[sharing.table][sharing.members]
                if sharing.factors is not None:
                    values *= sharing.factors
                weight = self._weights[name]
                weight.view(-1)[sharing.positions] = values.to(weight.dtype)

    def after_backward(self, step: int) -> bool:
        """Add up the members' gradients."""
        for move in self._moves.values():
            move.grad = torch.zeros_like(move)
        for name, sharing in self._sharings.items():
            weight, move = self._weights[name], self._moves[sharing.table]
            if weight.grad is None or move.grad is None:
                continue
            gradients = weight.grad.reshape(-1)[sharing.positions].float()
            if sharing.factors is not None:
                gradients *= sharing.factors
            move.grad.index_add_(0, sharing.members, gradients)
            weight.grad = None
        for key, move in self._moves.items():
            if move.grad is not None:
                move.grad *= self._steps[key]
        return True

    def after_step(self, step: int) -> None:
        """Let the weights follow."""
        self.write()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the tables' distances from where they began."""
        return {key: move.detach() for key, move in self._moves.items()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put them back."""
        with torch.no_grad():
            for key, move in self._moves.items():
                move.copy_(tensors[key])
        self.write()
