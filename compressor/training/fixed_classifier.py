"""A classifier that is not trained: a Hadamard matrix, times one scale that is (Hoffer et al. 2018)."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import nn

from ...models.seeding.rebuild import rebuild
from ...models.seeding.record import HADAMARD, KEYED_PRODUCT, SeedRecord
from ...models.tensors import to_numpy, to_torch
from ..parametrisations import VALUES, Handover
from .dynamics import Dynamics, FlopCounter, Masks, no_cost


class FixedClassifier(Dynamics):
    """Training of everything but the classifier's weights, which are a scale times a fixed matrix.

    The matrix has the first rows and columns of Sylvester's: its rows are orthogonal where the layer has 2**n inputs.
    The authors bring the layer's input to unit length, and their matrix holds +-1; here the network does that or not,
    and where it does not, rows of unit length keep logits and the steps of the scale in bounds.

    Args:
        module: the network; the classifier's weights are replaced.
        masks: of the classifier's weight alone, keeping nothing.
        unit: ``rows`` or ``entries``: which of the two has length 1.
        flops: counts the operations of an example.
    """

    def __init__(self, module: nn.Module, masks: Masks, unit: str = "rows", flops: FlopCounter = no_cost) -> None:
        super().__init__(module, flops)
        ((name, mask),) = masks.items()
        self._name = name
        self._weight = dict(module.named_parameters())[name]
        device = self._weight.device
        self._matrix = to_torch(rebuild(_record(name, 1.0), tuple(self._weight.shape))).to(device)
        self._unit = 1.0 if unit == "entries" else 1 / math.sqrt(self._weight[0].numel())
        # The authors' first value. It is float32, as in the record, whatever the network computes in.
        first = 1 / math.sqrt(self._weight.shape[0])
        self._scale = nn.Parameter(torch.full((1,), first, dtype=torch.float32, device=device))
        self.masks = {name: mask.to(device)}
        self.flops_per_example = self._count_flops(self.masks)
        self._show()

    def named_parameters(self) -> list[tuple[str, torch.Tensor]]:
        """Return the scale in the place of the classifier's weight, and all other parameters."""
        return [
            (f"scale/{name}", self._scale) if name == self._name else (name, parameter)
            for name, parameter in super().named_parameters()
        ]

    def after_backward(self, step: int) -> bool:
        """Turn dL/dW into dL/ds, the sum over the matrix of H dL/dW."""
        if self._weight.grad is not None:
            self._scale.grad = (self._weight.grad.float() * self._matrix).sum().reshape(1) * self._unit
            self._weight.grad = None
        return True

    def after_step(self, step: int) -> None:
        """Compute the weights from the scale."""
        self._show()

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the scale."""
        return {"scale": self._scale.detach()}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back the scale."""
        with torch.no_grad():
            self._scale.copy_(tensors["scale"])
        self._show()

    def handover(self) -> dict[str, Handover]:
        """Return the matrix by its name, and the scale as what it is multiplied by."""
        nothing = to_numpy(self._weight.detach())[:0].reshape(-1)
        return {self._name: Handover("frozen", {VALUES: nothing}, _record(self._name, float(self._bound())))}

    def _show(self) -> None:
        with torch.no_grad():
            self._weight.copy_(self._matrix * self._bound())

    def _bound(self) -> torch.Tensor:
        return self._scale.detach() * self._unit


def _record(name: str, scale: float) -> SeedRecord:
    # The matrix takes no random word, so generator and seed say nothing.
    return SeedRecord(KEYED_PRODUCT, 0, name, HADAMARD, scale)
