"""Cells and layouts: the two ideas that the dependency analysis is made of.

A *cell* is one slice of one tensor that is kept or removed as a whole, such as channel 3 of a convolution's output. Two
cells that must be removed together are *tied*; a cell that must stay is *pinned*. The classes of tied cells are the
coupled units of the network.

A *layout* says which cell each index of a tensor belongs to. It is a set of factors: integer arrays with one axis per
axis of the tensor, of extent 1 along the axes they do not depend on. An ordinary activation ``[N, C, H, W]`` has one
factor of shape ``[1, C, 1, 1]``; a weight ``[O, I]`` has two; after ``Reshape [B, S, D] -> [B, S, heads, width]`` one
factor covers two axes. An axis that no factor covers has a fixed extent. Operators that merely move data (Reshape,
Transpose, Concat, Slice ...) move the same cells, so a channel shuffle, a flattening or a fused projection needs no
rule of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError

Ids = npt.NDArray[np.int64]

PINNED = 0  # the cell of whatever can never be removed and has no identity of its own


def covered(factor: Ids) -> tuple[int, ...]:
    """Return the axes that a factor depends on."""
    return tuple(axis for axis, extent in enumerate(factor.shape) if extent > 1)


@dataclass(frozen=True)
class Layout:
    """Which cell each index of a tensor belongs to.

    Attributes:
        shape: extents of the tensor.
        factors: arrays of cells; their covered axes are disjoint.
    """

    shape: tuple[int, ...]
    factors: tuple[Ids, ...] = ()

    def on(self, axis: int) -> Ids | None:
        """Return the factor that covers ``axis``, if any."""
        for factor in self.factors:
            if factor.shape[axis] > 1:
                return factor
        return None

    def line(self, axis: int) -> Ids:
        """Return the cells along ``axis`` (pinned ones where nothing covers it); the factor must cover it alone."""
        factor = self.on(axis)
        if factor is None:
            return np.full(self.shape[axis], PINNED, np.int64)
        return factor.reshape(-1)

    def without(self, dropped: Ids) -> Layout:
        """Return the layout less one factor."""
        return Layout(self.shape, tuple(factor for factor in self.factors if factor is not dropped))


@dataclass
class Cells:
    """All cells of a graph, with their ties and pins."""

    count: int = 1
    _ties: list[tuple[Ids, Ids]] = field(default_factory=list)
    _pins: list[tuple[Ids, int]] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)

    def fresh(self, shape: Sequence[int]) -> Ids:
        """Return new cells in an array of ``shape``."""
        size = int(np.prod(shape, dtype=np.int64))
        ids = np.arange(self.count, self.count + size, dtype=np.int64).reshape(shape)
        self.count += size
        return ids

    def tie(self, left: Ids, right: Ids, reason: str) -> None:
        """Tie cells pairwise, with broadcasting; what meets the pinned cell is pinned for ``reason``."""
        try:
            left, right = (side.reshape(-1) for side in np.broadcast_arrays(left, right))
        except ValueError as error:
            raise UnsupportedError(
                f"the graph is broken: {reason}, and joins tensors of extents {left.shape} and {right.shape}."
            ) from error
        free = (left != PINNED) & (right != PINNED)
        self.pin(np.where(free, PINNED, np.maximum(left, right)), reason)
        self._ties.append((left[free], right[free]))

    def pin(self, ids: Ids, reason: str) -> None:
        """Forbid the removal of cells; the reason is a clause that completes "it stays because ..."."""
        ids = np.unique(ids)
        ids = ids[ids != PINNED]
        if ids.size:
            if reason not in self.reasons:
                self.reasons.append(reason)
            self._pins.append((ids, self.reasons.index(reason)))

    def units(self) -> Ids:
        """Return the unit of every cell: cells in the same class of ties get the same number."""
        if not self._ties:
            return np.arange(self.count, dtype=np.int64)
        from scipy.sparse import coo_array
        from scipy.sparse.csgraph import connected_components

        left = np.concatenate([tie[0] for tie in self._ties])
        right = np.concatenate([tie[1] for tie in self._ties])
        graph = coo_array((np.ones(left.size, np.int8), (left, right)), shape=(self.count, self.count))
        return np.asarray(connected_components(graph.tocsr(), directed=False)[1], np.int64)

    def pinned_cells(self) -> npt.NDArray[np.bool_]:
        """Return which cells were pinned themselves (not merely tied to one that was)."""
        pinned = np.zeros(self.count, np.bool_)
        pinned[PINNED] = True
        for ids, _ in self._pins:
            pinned[ids] = True
        return pinned

    def pin_reasons(self, units: Ids) -> dict[int, tuple[str, ...]]:
        """Return unit -> the reasons why it is pinned, in the order of the graph."""
        found: dict[int, dict[str, None]] = {int(units[PINNED]): {}}
        for ids, reason in self._pins:
            for unit in np.unique(units[ids]).tolist():
                found.setdefault(unit, {})[self.reasons[reason]] = None
        return {unit: tuple(reasons) for unit, reasons in found.items()}
