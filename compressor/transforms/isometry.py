"""Approximated isometry: surviving weights moved until each masked layer is as near to orthogonal as it can be.

Lee et al. 2020 ("A Signal Propagation Perspective for Pruning Neural Networks at Initialization", section 4): no data;
the sum over layers of ||(C W)(C W)^T - I||_F is minimised by plain gradient descent over the kept entries.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...models.tensors import to_numpy, to_torch
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe


def approximate_isometry(probe: Probe) -> Outcome:
    """Descend for ``isometry_steps`` steps at ``isometry_rate``; layers do not meet in the sum, so one after another.

    Layers are output units by the rest. Of the two Gram matrices the smaller is taken, so that a matrix with
    orthonormal rows or columns has penalty zero whichever is longer.
    """
    weights = probe.weights()
    found = {}
    for name, mask in probe.masks.items():
        kept = to_torch(mask).to(probe.device)
        matrix = to_torch(weights[name]).to(probe.device).reshape(weights[name].shape[0], -1)
        inside = kept.reshape(matrix.shape)
        wide = matrix.shape[0] <= matrix.shape[1]
        matrix, inside = (matrix, inside) if wide else (matrix.T, inside.T)
        matrix = descend(matrix, inside, probe.options["isometry_steps"], probe.options["isometry_rate"])
        result = matrix if wide else matrix.T
        found[name] = to_numpy(result.contiguous()).reshape(weights[name].shape)
    return Outcome(weights=found)


def descend(matrix: torch.Tensor, inside: torch.Tensor, steps: int, rate: float) -> torch.Tensor:
    """Return the best matrix on the way: the norm is not squared, so that fixed steps end up circling its minimum.

    Args:
        matrix: W with at most as many rows as columns, zero outside the mask.
        inside: the mask.
        steps: of gradient descent.
        rate: its learning rate.
    """
    best, lowest = matrix, float("inf")
    for step in range(steps + 1):
        error, norm = deviation(matrix)
        if float(norm) < lowest:
            best, lowest = matrix, float(norm)
        if step == steps or lowest == 0.0:
            break
        # d||E||_F / dW = 2 E W / ||E||_F for E = W W^T - I; masked entries do not move.
        matrix = matrix - rate * (2 / norm) * (error @ matrix) * inside
    return best


def deviation(matrix: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
    """Return E = W W^T - I and its Frobenius norm, for W with at most as many rows as columns."""
    error = matrix @ matrix.T - torch.eye(matrix.shape[0], device=matrix.device, dtype=matrix.dtype)
    return error, torch.linalg.matrix_norm(error)
