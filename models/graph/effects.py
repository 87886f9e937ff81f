"""What an operator does to the *values* of cells: the part of a rule that finds dead structure.

The layouts say what must be removed together; the effects say how a constant cell makes others constant (forwards) and
through which cells the output is reached (backwards). Five kinds describe every operator, so that
:mod:`sparsepack.models.graph.dead` needs no knowledge of operators.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from .layout import Ids

Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Map:
    """Each output cell is a function of the input cells at the same place.

    Attributes:
        inputs: one entry an operand: its cells (flat), or one number when the operand is that constant everywhere
            (NaN when it varies in a way that no cell describes).
        output: cells (flat), as many as each input has.
        function: operand values -> output values; NaN stands for "not constant" on both sides.
    """

    inputs: tuple[Ids | float, ...]
    output: Ids
    function: Callable[..., Values]


@dataclass(frozen=True)
class Merge:
    """Each output cell holds a whole row of input cells: constant only where all agree.

    Attributes:
        inputs: cells [n, k].
        output: cells [n].
    """

    inputs: Ids
    output: Ids


@dataclass(frozen=True)
class Initial:
    """Cells of an initializer along one axis: constant where the slice holds one number throughout.

    Attributes:
        name: the initializer.
        axis: the axis that the cells run along.
        output: cells, one an index of the axis.
    """

    name: str
    axis: int
    output: Ids


@dataclass(frozen=True)
class Product:
    """A product of two activations that is summed over: zero wherever one side is zero.

    Attributes:
        left: output-shaped cells of the left operand, or None where it does not depend on them.
        right: the same of the right operand.
        output: cells of the product (flat); the pinned cell where nothing covers it.
        summed: pairs of cells that are multiplied with each other and summed away; each is needed unless its partner
            is zero.
    """

    left: Ids | None
    right: Ids | None
    output: Ids
    summed: tuple[Ids, Ids] | None


@dataclass(frozen=True)
class Contraction:
    """A linear layer with constant weights: the place where a removed input cell is absorbed.

    Attributes:
        node: index of the node in the graph.
        label: the node's name for people.
        weight: name of the weight tensor (possibly computed from an initializer by moving it).
        view: weight array -> [groups, outputs, inputs, taps].
        inputs: cells [groups, inputs].
        outputs: cells [groups, outputs] (the pinned cell where the output's extent is fixed).
        borders: whether some outputs see fewer taps than others (zero padding), so that a non-zero constant input
            cannot be folded into a bias exactly.
        scale: factor on the product (Gemm's alpha).
    """

    node: int
    label: str
    weight: str
    view: Callable[[npt.NDArray[Any]], npt.NDArray[Any]]
    inputs: Ids
    outputs: Ids
    borders: bool
    scale: float = 1.0


Effect = Map | Merge | Initial | Product | Contraction


def unknown(*operands: Values) -> Values:
    """Return "not constant" for every cell: for operators whose values are not followed."""
    return np.full(np.broadcast_shapes(*(operand.shape for operand in operands)), np.nan)


def same(operand: Values) -> Values:
    """Return the operand: for operators that leave a constant slice as it is (a maximum, a mean, a resize)."""
    return operand


def zero_stays(operand: Values) -> Values:
    """Keep zeros only: for operators that map a slice of zeros to zeros and others to something unknown."""
    return np.where(operand == 0, 0.0, np.nan)
