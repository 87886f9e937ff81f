"""First-order relevance of weights and units, signed or accumulated: saliency without the absolute value."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...files import Array


def relevance(weights: Mapping[str, Array], gradients: Mapping[str, Array]) -> dict[str, Array]:
    """Return ``-g w``, signed: the first-order rise in loss when a weight goes (Mozer and Smolensky 1989).

    Summed over the incoming weights of a unit without bias it is -dL/d(alpha) of the attentional strength alpha = 1
    that the paper multiplies the unit's activity with. A weight whose removal promises a lower loss scores negative and
    goes first; the absolute value would make SNIP of it.
    """
    return {
        name: -np.multiply(gradients[name], w, dtype=np.float64) if name in gradients else np.zeros(w.shape)
        for name, w in weights.items()
    }


def accumulated_sensitivity(
    weights: Mapping[str, Array], initial: Mapping[str, Array], squares: Mapping[str, Array]
) -> dict[str, Array]:
    """Return ``sum_t (dw_t)**2 / eta_t * w_f / (w_f - w_0)`` (Karnin 1990, eq. 11).

    It estimates how much the error would grow from w_f back to 0, from the path that training took from w_0 to w_f.
    A weight that has not moved tells nothing of its sensitivity and scores 0.

    Args:
        weights: final, w_f.
        initial: w_0.
        squares: the sum over all steps of (dw_t)**2 / eta_t.
    """
    scores: dict[str, Array] = {}
    for name, w in weights.items():
        final = w.astype(np.float64)
        moved = final - initial[name]
        still = moved == 0
        scores[name] = np.where(still, 0.0, squares[name] * final / np.where(still, 1.0, moved))
    return scores
