"""The weight update of Optimal Brain Surgeon: what stays makes up for what goes (Hassibi and Stork 1993)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from ..mask import BoolArray
from ..scores.second_order import Matrix, blocks, inverse_diagonal, inverse_times
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe


def obs_update(probe: Probe) -> Outcome:
    """Return the kept weights after the update, by the same blocks of F that they were scored by.

    The option ``update`` says which: ``sum`` adds the updates of the single removed weights, as WoodFisher does;
    ``joint`` removes them together, the minimum of the quadratic model with all of them at zero; ``none``.
    """
    if probe.options["update"] == "none":
        return Outcome()
    dense, damp = probe.trained, probe.options["damp"]
    joint = probe.options["update"] == "joint"
    changed = {name: weight.astype(np.float64).reshape(-1) for name, weight in dense.items()}
    for parts, gradients in blocks(probe.evidence["gradient-samples"], probe.options["block_size"]):
        w = np.concatenate([changed[name][begin:end] for name, begin, end in parts])
        kept = np.concatenate([probe.masks[name].reshape(-1)[begin:end] for name, begin, end in parts])
        # A weight that an earlier round removed is zero: it neither moves nor makes others move.
        w = joint_update(w, kept, gradients, damp) if joint else summed_update(w, kept, gradients, damp)
        place = 0
        for name, begin, end in parts:
            changed[name][begin:end] = w[place : place + end - begin]
            place += end - begin
    return Outcome(
        weights={
            name: (flat * probe.masks[name].reshape(-1)).reshape(dense[name].shape).astype(dense[name].dtype)
            for name, flat in changed.items()
        }
    )


def summed_update(weights: Matrix, kept: BoolArray, gradients: Matrix, damp: float) -> Matrix:
    """Return w - sum over removed q of (w_q / [F^-1]_qq) F^-1 e_q, removed ones zero (Singh and Alistarh 2020, eq. 8).

    Args:
        weights: of one block, [n].
        kept: bool [n].
        gradients: [N, n]; F = damp I + 1/N G^T G.
        damp: > 0.
    """
    removed = np.where(kept, 0.0, weights / inverse_diagonal(gradients, damp))
    updated = weights - inverse_times(gradients, damp, removed)
    return np.where(kept, updated, 0.0)


def joint_update(weights: Matrix, kept: BoolArray, gradients: Matrix, damp: float) -> Matrix:
    """Return the minimum of (x - w)^T F (x - w) over all x that are zero where ``kept`` is not.

    x_K = w_K + F_KK^-1 F_KQ w_Q, which for low-rank F is G_K^T (N damp I + G_K G_K^T)^-1 G_Q w_Q.
    """
    inside = gradients[:, kept]
    inner = inside @ inside.T
    inner[np.diag_indices_from(inner)] += damp * len(gradients)
    updated = np.zeros_like(weights)
    updated[kept] = weights[kept] + inside.T @ np.linalg.solve(inner, gradients[:, ~kept] @ weights[~kept])
    return updated
