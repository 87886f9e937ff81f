"""One rule an operator: how its outputs' cells follow from its inputs', and what it couples."""

from __future__ import annotations

from collections.abc import Callable

from ..trace import Node, Trace
from . import convolution, extension, linear, movement, normalisation, pointwise, pooling, recurrent

Rule = Callable[[Trace, Node], None]

RULES: dict[str, Rule] = {
    **pointwise.RULES,
    **movement.RULES,
    **extension.RULES,
    **linear.RULES,
    **convolution.RULES,
    **normalisation.RULES,
    **pooling.RULES,
    **recurrent.RULES,
}

# Read extents, not values: what they return follows when a dimension shrinks.
EXTENT_READERS = frozenset({"Shape", "Size"})

__all__ = ["EXTENT_READERS", "RULES", "Rule"]
