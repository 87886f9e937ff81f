"""COPS: the mask that is best by one score while it is good enough by another (Wimmer et al. 2021).

maximise sum(s1 m) subject to sum(s2 m) >= level and d kept weights. The relaxed linear programme has a solution that is
the top d of ``mix s1 + (1 - mix) s2`` for some mix in [0, 1], but for at most two fractional entries.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np

from ...files import Array
from ..mask import BoolArray

Arrays = Mapping[str, Array]
# Beyond this the mix is known to float32's precision.
_HALVINGS = 24


def mixed(first: Arrays, second: Arrays, mix: float) -> dict[str, Array]:
    """Return ``mix * first + (1 - mix) * second`` by name."""
    return {name: (mix * first[name] + (1 - mix) * second[name]).astype(np.float32) for name in first}


def controlled(
    first: Arrays, second: Arrays, share: float, select: Callable[[Arrays], Mapping[str, BoolArray]]
) -> dict[str, Array]:
    """Return the mixed scores with the largest weight on ``first`` whose mask keeps enough of ``second``.

    Args:
        first: what is maximised; its absolute values add up to 1.
        second: what is controlled; its absolute values add up to 1.
        share: the level, as a share of the largest sum of ``second`` that as many weights can have, in [0, 1].
        select: from scores to masks of the wanted count.
    """
    level = share * _kept(second, select(second))
    low, high = 0.0, 1.0
    if _kept(second, select(first)) >= level:
        return mixed(first, second, 1.0)
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        enough = _kept(second, select(mixed(first, second, middle))) >= level
        low, high = (middle, high) if enough else (low, middle)
    return mixed(first, second, low)


def _kept(scores: Arrays, masks: Mapping[str, BoolArray]) -> float:
    return math.fsum(float(scores[name][mask].sum(dtype=np.float64)) for name, mask in masks.items())
