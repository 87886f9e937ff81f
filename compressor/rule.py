"""The rule by which a run turns scores into masks: space, structure, allocation and the layers' guard in one value."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from ..files import Array
from .allocation import Allocation, Quota, allocate
from .mask import BoolArray
from .selection import select
from .space import Space
from .structure import Structure


@dataclass(frozen=True)
class MaskRule:
    """What a run prunes and how.

    Attributes:
        space: the tensors that may be masked, in order.
        structure: what stands or falls together.
        allocation: how the kept weights are divided among the tensors.
        keep_alive: no tensor may come out empty.
    """

    space: Space
    structure: Structure
    allocation: Allocation
    keep_alive: bool = False

    def quota(self, sparsity: float, within: Mapping[str, BoolArray] | None = None) -> Quota:
        """Return how many weights stay, in all or by tensor.

        Args:
            sparsity: the share of the space to remove.
            within: masks that the result must lie within, or None.
        """
        limits = None if within is None else {name: int(np.count_nonzero(mask)) for name, mask in within.items()}
        return allocate(
            self.allocation, self.space, self.structure, sparsity, keep_alive=self.keep_alive, limits=limits
        )

    def select(
        self, scores: Mapping[str, Array], sparsity: float, within: Mapping[str, BoolArray] | None = None
    ) -> dict[str, BoolArray]:
        """Return the masks of the highest scores (see :func:`~.selection.select`)."""
        quota = self.quota(sparsity, within)
        return select(scores, quota, self.structure, self.space, keep_alive=self.keep_alive, within=within)
