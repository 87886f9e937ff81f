"""How much every coupled group keeps, so that the network meets a budget of time: by what single layers were measured.

Layers are asked for at a few widths and interpolated between them, because a layer's time is close to linear in either
of its widths as long as these are multiples of what the runtime computes with. Which multiples are free of a penalty is
asked of the table first. Then the widths go down step by step, the step that saves most time for the units it costs
first; a width that would gain nothing is never taken.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

import numpy as np

from ..errors import UnsupportedError
from ..models.graph.groups import Group, Scores
from ..models.layer_costs import CostTable, LayerShape
from .slim_layers import WidthLayer, width_layers
from .slim_target import Problem
from .sparse_graph.choose import Measure

# Widths that layers are asked for, as shares of the whole one; times between them are interpolated.
_ASKED = (0.125, 0.5, 1.0)
# Widths that may be chosen: eighths.
_CHOSEN = 8
# Runtimes compute with vectors of up to 16 floats; some pay for widths that are no multiple, some for odd ones only.
_BLOCK = 16
_PARTS = (1, 4, 8)
_PROBED = 0.5
# A part of a block is free of a penalty when it is at most so much above the line between whole blocks.
_NOISE = 1.02


@dataclass
class LatencyTarget:
    """A budget of time.

    Attributes:
        budget: a share of the time that the layers take now, or milliseconds for all of them.
        absolute: whether it is milliseconds.
        measure: given layers, returns what is known of them.
        batch: examples a run.
        layers_ms: what the layers take by the table, before and after; set when the target was resolved.
        multiple: what widths were rounded to; set at the same time.
    """

    budget: float
    absolute: bool
    measure: Measure
    batch: int = 1
    layers_ms: tuple[float, float] = field(default=(0.0, 0.0), init=False)
    multiple: int = field(default=1, init=False)

    def shares(self, problem: Problem) -> dict[str, float]:
        """Return the shares of the widths that meet the budget.

        Raises:
            UnsupportedError: the narrowest widths that were asked for need more, or nothing is known of any layer.
        """
        free = {group.name: group for group in problem.groups if not group.pinned and group.width > 1}
        layers = width_layers(problem.dimensions, free, self.batch)
        multiple = problem.round_to if problem.round_to > 1 else self._multiple(layers, free)
        levels = {name: [_level(group.width, share, multiple) for share in _ASKED] for name, group in free.items()}
        table = self.measure(list(dict.fromkeys(shape for layer in layers for shape in _shapes(layer, levels))))
        times = _Times(layers, table, levels)
        now = times.total(_whole(free))
        if not now:
            raise UnsupportedError(
                "the cost table holds no layer of this graph at the widths that are asked for, so that its time cannot "
                "be predicted; measure here with --tune, or ask for --target-macs."
            )
        goal = self.budget if self.absolute else self.budget * now
        chosen = _descend(free, problem.scores, times, goal, multiple)
        self.layers_ms, self.multiple = (round(now, 4), round(times.total(chosen), 4)), multiple
        return {name: 1 - chosen[name] / group.width for name, group in free.items()}

    def _multiple(self, layers: list[WidthLayer], free: Mapping[str, Group]) -> int:
        """Return the smallest multiple whose widths lie on the straight line between multiples of 16."""
        low = {name: _level(group.width, _PROBED, _BLOCK) for name, group in free.items()}
        high = {name: min(width + _BLOCK, free[name].width) for name, width in low.items()}
        probed = [layer for layer in layers if layer.at(low) != layer.at(high)]
        ladder = {step: {name: min(low[name] + step, high[name]) for name in low} for step in (*_PARTS, 0, _BLOCK)}
        table = self.measure(list(dict.fromkeys(layer.at(widths) for layer in probed for widths in ladder.values())))
        totals = dict.fromkeys(ladder, 0.0)
        for layer in probed:
            costs = {step: table.find(layer.at(widths)) for step, widths in ladder.items()}
            if all(cost is not None for cost in costs.values()):
                for step, cost in costs.items():
                    totals[step] += cost.inner_ms if cost is not None else 0.0
        for step in _PARTS:
            straight = totals[0] + (totals[_BLOCK] - totals[0]) * step / _BLOCK
            if totals[step] <= _NOISE * straight:
                return step
        return _BLOCK


class _Times:
    """Milliseconds of the layers at any widths, interpolated between what was measured."""

    def __init__(self, layers: list[WidthLayer], table: CostTable, levels: Mapping[str, list[int]]) -> None:
        self.layers = layers
        self._grids = {layer: _grid(layer, table, levels) for layer in set(layers)}
        self._kept: dict[tuple[WidthLayer, int, int], float] = {}
        self.users: dict[str, list[WidthLayer]] = {}
        for layer in layers:
            for name in layer.groups:
                self.users.setdefault(name, []).append(layer)

    def total(self, widths: Mapping[str, int], layers: list[WidthLayer] | None = None) -> float:
        """Return the milliseconds of the given layers, or of all."""
        return sum(self._of(layer, widths) for layer in (self.layers if layers is None else layers))

    def _of(self, layer: WidthLayer, widths: Mapping[str, int]) -> float:
        key = (layer, layer.inputs.at(widths), layer.outputs.at(widths))
        if key not in self._kept:
            inputs, outputs, times = self._grids[layer]
            rows = [np.interp(key[2], outputs, row) for row in times]
            self._kept[key] = float(np.interp(key[1], inputs, rows))
        return self._kept[key]


def _asked(layer: WidthLayer, levels: Mapping[str, list[int]]) -> tuple[list[int], list[int]]:
    """Return the input and output widths that a layer is measured at, ascending."""
    sides = []
    for extent in (layer.inputs, layer.outputs):
        places = [{name: levels[name][k] for name, _, _ in extent.parts} for k in range(len(_ASKED))]
        sides.append(sorted({extent.at(widths) for widths in places}))
    return sides[0], sides[1]


def _shapes(layer: WidthLayer, levels: Mapping[str, list[int]]) -> list[LayerShape]:
    inputs, outputs = _asked(layer, levels)
    return [layer.of(i, o) for i in inputs for o in outputs]


def _grid(
    layer: WidthLayer, table: CostTable, levels: Mapping[str, list[int]]
) -> tuple[list[int], list[int], list[list[float]]]:
    """Return input widths, output widths and the milliseconds at each pair; zeros where any is unknown."""
    inputs, outputs = _asked(layer, levels)
    costs = [[table.find(layer.of(i, o)) for o in outputs] for i in inputs]
    if any(cost is None for row in costs for cost in row):
        return inputs, outputs, [[0.0] * len(outputs) for _ in inputs]
    return inputs, outputs, [[cost.inner_ms if cost is not None else 0.0 for cost in row] for row in costs]


def _level(width: int, share: float, multiple: int) -> int:
    """Return a share of a width as a multiple, at least one multiple and at most the width."""
    return min(max(round(width * share / multiple), 1) * multiple, width)


def _descend(
    groups: Mapping[str, Group], scores: Mapping[str, Scores], times: _Times, goal: float, multiple: int
) -> dict[str, int]:
    """Narrow the groups, the step that saves most time for what it costs first, until the goal is met.

    A step costs the scores of its units relative to their group's mean, times how often the width has been halved
    into: without that, the group of the most expensive layers would be emptied before any other is touched.
    """
    widths = {name: group.width for name, group in groups.items()}
    lost = {name: np.concatenate([[0.0], np.cumsum(np.sort(_relative(scores[name])))]) for name in groups}
    choices = {
        name: sorted({_level(group.width, k / _CHOSEN, multiple) for k in range(1, _CHOSEN + 1)} | {group.width})
        for name, group in groups.items()
    }
    left = times.total(widths)
    while left > goal:
        best: tuple[float, str, int, float] | None = None
        for name, group in groups.items():
            users = times.users.get(name, [])
            before = times.total(widths, users)
            for width in choices[name]:
                if width >= widths[name]:
                    break
                saved = before - times.total(widths | {name: width}, users)
                cost = lost[name][group.width - width] - lost[name][group.width - widths[name]]
                rate = saved / max(cost * group.width / width, 1e-12)
                if saved > 0 and (best is None or rate > best[0]):
                    best = (rate, name, width, saved)
        if best is None:
            raise UnsupportedError(
                f"the layers of this graph ({times.total(_whole(groups)):.3g} ms) cannot come down to {goal:.3g} ms: "
                f"at the narrowest widths that gain anything they still take {left:.3g} ms. Ask for more, or free more "
                "widths: 'compress export' without a target says what stays and why."
            )
        widths[best[1]] = best[2]
        left = times.total(widths)
    return widths


def _whole(groups: Mapping[str, Group]) -> dict[str, int]:
    return {name: group.width for name, group in groups.items()}


def _relative(scores: Scores) -> Scores:
    mean = float(np.mean(scores))
    return scores / mean if mean > 0 else np.ones_like(scores)
