"""A check of the analysis itself: no operator can lose an input index that nothing else of it follows.

Of every operator, each cell of an operand must be *pinned*, *tied* to a cell of another operand or of an output
(the row of a weight to the channel it reads), or *moved* (the same cell again in an output). A cell that is none of
these could be cut from the operand alone, and the graph would no longer fit together. What an operator drops on
purpose (the rest of a slice, rows that are never looked up) may go.
"""

from __future__ import annotations

import numpy as np

from .dimensions import Dimensions
from .rules import EXTENT_READERS

# These read some indices of an axis only; what they leave out has no reader here.
_DROPPING = frozenset({"Slice", "Gather", "Split", "Compress", "GatherND", "GatherElements"})
# Operand positions that lend a type or an extent only: their indices may go without anyone noticing.
_LENDING = frozenset({("CastLike", 1)})


def loose_cells(dimensions: Dimensions) -> list[tuple[str, str]]:
    """Return (operator, operand) wherever an operand has cells that are not pinned, tied nor moved.

    Args:
        dimensions: the analysed graph.

    Returns:
        An empty list when the rules did their duty.
    """
    pinned = np.zeros(dimensions.units.size, np.bool_)
    pinned[np.fromiter(dimensions.pinned, np.int64)] = True
    loose = []
    for node in dimensions.nodes:
        if node.op in EXTENT_READERS or node.op in _DROPPING:
            continue
        operands = [(position, name) for position, name in enumerate(node.inputs) if name in dimensions.layouts]
        for position, name in operands:
            if (node.op, position) in _LENDING:
                continue
            found = _units(dimensions, name)
            others = [_units(dimensions, other) for place, other in operands if place != position]
            others += [_units(dimensions, other) for other in node.outputs if other in dimensions.layouts]
            followed = np.concatenate([np.zeros(0, np.int64), *others])
            if (~pinned[found] & ~np.isin(found, followed)).any():
                loose.append((str(node), name))
    return loose


def _units(dimensions: Dimensions, name: str) -> np.ndarray[tuple[int], np.dtype[np.int64]]:
    factors = dimensions.layouts[name].factors
    cells = np.concatenate([np.zeros(0, np.int64), *(factor.reshape(-1) for factor in factors)])
    return np.unique(dimensions.units[cells])
