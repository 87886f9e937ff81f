"""Whether a mask has settled: the last few, one an epoch, and how far apart they are (You et al. 2020, section 3.2)."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
import torch

from ..mask import BoolArray

_KEY = "window/masks"


def mask_distance(first: BoolArray, second: BoolArray) -> float:
    """Return the share of places in which two masks differ: symmetric, 0 to 1."""
    return float(np.mean(first != second)) if first.size else 0.0


class MaskWindow:
    """The newest masks, first in first out.

    Args:
        length: how many.
        tolerance: largest distance of the newest to each older one at which they count as the same.
    """

    def __init__(self, length: int, tolerance: float) -> None:
        self._length = length
        self._tolerance = tolerance
        self._masks: list[BoolArray] = []

    def push(self, mask: BoolArray) -> bool:
        """Add a mask; return whether there are ``length`` of them and the newest is near all the others.

        Args:
            mask: bool [places], of the same size each time.
        """
        self._masks = [*self._masks, mask][-self._length :]
        full = len(self._masks) == self._length
        return full and all(mask_distance(mask, older) <= self._tolerance for older in self._masks[:-1])

    def tensors(self) -> dict[str, torch.Tensor]:
        """Return the masks, for a snapshot."""
        return {_KEY: torch.from_numpy(np.stack(self._masks))} if self._masks else {}

    def restore(self, tensors: Mapping[str, torch.Tensor]) -> None:
        """Put back what :meth:`tensors` returned."""
        rows = tensors[_KEY].cpu().numpy().astype(np.bool_) if _KEY in tensors else ()
        self._masks = list(rows)
