"""Training of coefficients in place of weights: those of a filter basis, or sparse ones beside a fixed transform.

Masks are of the coefficients; the weights that come of them are dense. The network's parameters hold these weights
between two steps, and the coefficients while the optimiser steps.
"""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch
from torch import nn

from ...models.seeding.keyed_product import matrix_shape
from ...models.tensors import to_numpy
from ..interspace import basis_owners, coefficients_of, filter_length, first_basis
from ..parametrisations import Handover, basis, offset
from ..rule import MaskRule
from .behind import LearnedBehind
from .dynamics import FlopCounter, Masks, no_cost


class Coefficients(LearnedBehind):
    """The base: coefficients under a fixed mask, of which a subclass says what the network computes with.

    Args:
        module: the network.
        masks: of the coefficients, by weight name.
        rule: space, structure and allocation.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, masks: Masks, rule: MaskRule, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, rule, 0.0, flops)
        self.masks = {name: masks[name].to(weight.device) for name, weight in self._behind.items()}
        self._recount()

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Return the gradient of the kept coefficients."""
        return gradient * self.masks[name]

    def finish(self) -> None:
        """Leave the weights that the coefficients stand for; the mask was fixed."""
        self._show()


class CosineOffset(Coefficients):
    """W = scale * C + S: S sparse and zero at the start, C the fixed cosine transform (Price and Tanner 2021).

    The scale of each layer begins at 1 and is trained. Whatever the network was drawn with is not used.
    """

    def __init__(self, module: nn.Module, masks: Masks, rule: MaskRule, flops: FlopCounter = no_cost) -> None:
        super().__init__(module, masks, rule, flops)
        self._cosines = {}
        for name, sparse in self._behind.items():
            sparse.zero_()
            cosines = offset.cosine_transform(*matrix_shape(tuple(sparse.shape))).astype(np.float32)
            self._cosines[name] = torch.from_numpy(cosines).to(sparse.device, sparse.dtype).reshape(sparse.shape)
            self._learned[name] = nn.Parameter(sparse.new_ones(()))

    def shown(self, name: str) -> torch.Tensor:
        """Return the scaled transform plus the sparse part."""
        return self._cosines[name] * self._learned[name].detach() + self._behind[name]

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Give the scale its gradient, <C, dL/dW>, and the sparse part that of its kept entries."""
        self._learned[name].grad = (gradient * self._cosines[name]).sum()
        return super().gradient(name, gradient)

    def handover(self) -> dict[str, Handover]:
        """Return the sparse parts and the scales."""
        return {
            name: Handover(
                "offset",
                offset.parts_of(
                    to_numpy(sparse), to_numpy(self.masks[name]), to_numpy(self._learned[name].detach().reshape(1))
                ),
            )
            for name, sparse in self._behind.items()
        }


class FilterBasis(Coefficients):
    """W = coefficients * B: masked coefficients of a basis of filters, both trained (Wimmer et al. 2022).

    Args:
        module: the network; the coefficients begin as those of its weights.
        masks: of the coefficients, by weight name.
        rule: space, structure and allocation.
        kind: of the first basis, one of ``interspace.BASES``.
        sharing: who shares a basis, one of ``interspace.SHARING``.
        trained: whether the basis moves.
        seed: the run's.
        flops: counts the operations of an example.
    """

    def __init__(
        self,
        module: nn.Module,
        masks: Masks,
        rule: MaskRule,
        *,
        kind: str,
        sharing: str,
        trained: bool,
        seed: int,
        flops: FlopCounter = no_cost,
    ) -> None:
        super().__init__(module, masks, rule, flops)
        self._owners = basis_owners({name: tuple(w.shape) for name, w in self._behind.items()}, sharing)
        bases = {}
        for name, weight in self._behind.items():
            if name in self._owners:
                owner = self._owners[name]
                drawn = first_basis(kind, filter_length(tuple(weight.shape)), seed, owner)
                if kind != "standard":
                    weight.copy_(torch.from_numpy(coefficients_of(to_numpy(weight), drawn)))
                bases[owner] = nn.Parameter(torch.from_numpy(drawn).to(weight.device, weight.dtype))
            weight.mul_(self.masks[name])
        self._bases: Mapping[str, nn.Parameter] = bases
        if trained:
            self._learned = bases

    def shown(self, name: str) -> torch.Tensor:
        """Return the filters that the coefficients stand for."""
        coefficients = self._behind[name]
        if name not in self._owners:
            return coefficients
        filters = self._bases[self._owners[name]].detach()
        return (coefficients.reshape(-1, len(filters)) @ filters).reshape(coefficients.shape)

    def gradient(self, name: str, gradient: torch.Tensor) -> torch.Tensor:
        """Add to the basis's gradient, and return that of the kept coefficients."""
        if name in self._owners:
            parameter = self._bases[self._owners[name]]
            filters = parameter.detach()
            rows = gradient.reshape(-1, len(filters))
            if self._learned:
                share = self._behind[name].reshape(-1, len(filters)).T @ rows
                parameter.grad = share if parameter.grad is None else parameter.grad + share
            gradient = (rows @ filters.T).reshape(gradient.shape)
        return super().gradient(name, gradient)

    def handover(self) -> dict[str, Handover]:
        """Return the coefficients and the bases; layers without filters are stored as they are."""
        found = {}
        for name, owner in self._owners.items():
            filters = to_numpy(self._bases[owner].detach())
            parts = basis.parts_of(to_numpy(self._behind[name]), filters, to_numpy(self.masks[name]))
            found[name] = Handover("basis", parts, shares=None if owner == name else owner)
        return found
