"""Which units a graph can lose without changing what it computes.

Forwards: a cell is constant when everything it is computed from is constant or multiplied by zero. Backwards: a cell is
needed when a needed cell is computed from it, unless its constant contribution can be written into the reader's bias.
A unit goes when no cell of it is needed. Masked channels, rows and columns that an unstructured mask emptied, and units
with no path to the output are all found by the same two sweeps.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from .dimensions import Dimensions
from .effects import Contraction, Effect, Initial, Map, Merge, Product, Values
from .layout import PINNED, Ids
from .weights import Array, Weights

Flags = npt.NDArray[np.bool_]


@dataclass(frozen=True)
class Liveness:
    """What the two sweeps found.

    Attributes:
        values: cell -> the number its whole slice holds, or NaN.
        needed: cell -> whether the output depends on more of it than a foldable constant.
        removable: units without a needed cell and without a pin.
        blocked: units that are constant but read by a layer with borders, where the constant cannot be folded
            exactly: unit -> name of that layer.
    """

    values: Values
    needed: Flags
    removable: frozenset[int]
    blocked: dict[int, str]


def find_dead(dimensions: Dimensions, weights: Weights, approximate: bool = False) -> Liveness:
    """Find the units that can be removed.

    Args:
        dimensions: the analysed graph.
        weights: its numbers, with masked slices read as zero.
        approximate: also remove a constant channel that is read across zero padding, as if the padding held the
            channel's constant; wrong along the borders only.
    """
    values = np.full(dimensions.units.size, np.nan)
    for effect in dimensions.effects:
        _forward(effect, values, weights, approximate)
    needed = dimensions.pinned_cells.copy()
    blocked_cells: dict[int, str] = {}
    for effect in reversed(dimensions.effects):
        _backward(effect, values, needed, weights, approximate, blocked_cells)
    units = dimensions.units
    kept = np.zeros(units.size, np.bool_)
    kept[units[needed]] = True
    kept[np.fromiter(dimensions.pinned, np.int64)] = True
    present = np.zeros(units.size, np.bool_)
    present[units] = True
    removable = frozenset(np.flatnonzero(present & ~kept).tolist())
    blocked = {}
    if blocked_cells:
        constant = np.ones(units.size, np.bool_)
        constant[units[needed & np.isnan(values)]] = False
        for cell, label in blocked_cells.items():
            unit = int(units[cell])
            if constant[unit] and unit not in dimensions.pinned:
                blocked[unit] = label
    return Liveness(values, needed, removable, blocked)


def matrix(effect: Contraction, weights: Weights) -> Array | None:
    """Return the weight of a linear layer as [groups, outputs, inputs, taps], or None when it cannot be read."""
    return effect.view(weights[effect.weight]) if weights.can_read(effect.weight) else None


def _live(effect: Contraction, weights: Weights) -> Flags | None:
    """Return which connections [groups, outputs, inputs] have a weight that is not zero; None when it is unreadable."""
    if not weights.can_read(effect.weight):
        return None
    nonzero = effect.view(weights.live(effect.weight))
    # A product has one tap, and reducing over an axis of one is slow.
    return np.asarray(nonzero[..., 0] if nonzero.shape[3] == 1 else nonzero.any(axis=3))


def foldable(effect: Contraction, values: Values, approximate: bool) -> Flags:
    """Return which inputs [groups, inputs] are constants that a bias can take over."""
    constant = values[effect.inputs]
    return np.asarray((constant == 0) | (~np.isnan(constant) & (approximate or not effect.borders)))


def _forward(effect: Effect, values: Values, weights: Weights, approximate: bool) -> None:
    with np.errstate(all="ignore"):
        if isinstance(effect, Initial):
            values[effect.output] = weights.slices(effect.name, effect.axis)
        elif isinstance(effect, Map):
            operands = [
                np.full(effect.output.shape, ids) if isinstance(ids, float) else values[ids] for ids in effect.inputs
            ]
            values[effect.output] = effect.function(*operands)
        elif isinstance(effect, Merge):
            rows = values[effect.inputs]
            values[effect.output] = np.where((rows == rows[:, :1]).all(axis=1), rows[:, 0], np.nan)
        elif isinstance(effect, Product):
            zero = np.zeros(effect.output.shape, np.bool_)
            for side in (effect.left, effect.right):
                if side is not None:
                    zero |= values[side] == 0
            values[effect.output] = np.where(zero, 0.0, np.nan)
        else:
            values[effect.outputs] = _product(effect, values, weights, approximate)
    values[PINNED] = np.nan


def _product(effect: Contraction, values: Values, weights: Weights, approximate: bool) -> Values:
    live = _live(effect, weights)
    if live is None:
        return np.full(effect.outputs.shape, np.nan)
    steady = foldable(effect, values, approximate)
    varying = live & ~steady[:, None, :]
    total = np.zeros(effect.outputs.shape)
    constants = np.where(steady, values[effect.inputs], 0.0)
    array = matrix(effect, weights) if constants.any() else None
    if array is not None:
        total = effect.scale * contribution(array, constants)
    return np.where(varying.any(axis=2), np.nan, total)


def contribution(array: Array, constants: Values) -> Values:
    """Return what constant inputs add to a layer's outputs, [groups, outputs], summed in float64.

    Args:
        array: the weight, [groups, outputs, inputs, taps].
        constants: [groups, inputs].
    """
    # Inputs of zero are left out first: a large weight is not copied to float64 as a whole.
    used = np.flatnonzero(constants.any(axis=0))
    return np.asarray(
        np.einsum("goi,gi->go", array[:, :, used].sum(axis=3, dtype=np.float64), constants[:, used]), np.float64
    )


def _backward(
    effect: Effect, values: Values, needed: Flags, weights: Weights, approximate: bool, blocked: dict[int, str]
) -> None:
    if isinstance(effect, Initial):
        return
    if isinstance(effect, Contraction):
        live = _live(effect, weights)
        read = np.asarray(needed[effect.outputs], np.bool_)
        if live is None:
            used = np.broadcast_to(read.max(axis=1, keepdims=True), effect.inputs.shape)
        else:
            used = np.asarray((live & read[:, :, None]).any(axis=1))
        constant = values[effect.inputs]
        _mark(needed, effect.inputs, used & ~foldable(effect, values, approximate))
        if effect.borders and not approximate:
            for cell in effect.inputs[used & ~np.isnan(constant) & (constant != 0)].tolist():
                blocked.setdefault(cell, effect.label)
        return
    # What is constant needs nothing: it is reproduced from the constant alone.
    wanted = needed[effect.output] & np.isnan(values[effect.output])
    if isinstance(effect, Map):
        for ids in effect.inputs:
            if not isinstance(ids, float):
                _mark(needed, ids, wanted)
    elif isinstance(effect, Merge):
        _mark(needed, effect.inputs, np.broadcast_to(wanted[:, None], effect.inputs.shape))
    else:
        for side in (effect.left, effect.right):
            if side is not None:
                _mark(needed, side, wanted)
        if effect.summed is not None and wanted.any():
            left, right = effect.summed
            live = (values[left] != 0) & (values[right] != 0)
            for ids in effect.summed:
                _mark(needed, ids, live)


def _mark(needed: Flags, ids: Ids, flags: Flags) -> None:
    needed[ids[flags]] = True
