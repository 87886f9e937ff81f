"""PHEW: paths of higher edge weight, found by random walks from inputs to outputs and back (Patil, Dovrolis 2021).

A step from a unit takes one of its edges with a probability in proportion to the edge's weight: |w|, for convolutions
the sum of |w| over the kernel, of which one cell is then taken in the same way. Every edge on a walk is kept.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from torch import nn

from ...files import Array
from ...models.seeding.philox import words
from ..allocation import kept_count
from ..mask import BoolArray
from .layer_graph import Ints, LayerGraph, layer_graph
from .probe import Probe

Floats = npt.NDArray[np.float64]
_WORDS = 1 << 16
# So many walks in a row without a new edge that fits mean that what is missing is found faster otherwise.
_PATIENCE = 200


def walks(probe: Probe) -> dict[str, Array]:
    """Return 1 for each weight of the space that the walks keep and 0 for the others; exactly as many as asked for.

    Forward and backward walks take turns, their starts go round the inputs and outputs. A walk that would keep too
    many is passed over; the last few weights are the largest between units that walks already use, so that every
    kept weight lies on a path from input to output.
    """
    graph = layer_graph(probe)
    weights = probe.weights()
    layers = {
        name: _Layer.of(weights[name] if name in weights else _dense(layer), layer)
        for name, layer in graph.layers.items()
    }
    wanted = kept_count(probe.rule.space.total, probe.sparsity)
    walker = _Walker(graph, layers, _Stream(probe.seed, f"walks/{probe.draw}"))
    kept = {name: np.zeros(weights[name].size, np.bool_) for name in probe.names}
    count, idle, turn = 0, 0, 0
    while count < wanted and idle < _PATIENCE:
        edges = walker.walk(turn)
        turn += 1
        new = {(name, place) for name, place in edges if name in kept and not kept[name][place]}
        if not new or count + len(new) > wanted:
            idle += 1
            continue
        idle = 0
        count += len(new)
        for name, place in new:
            kept[name][place] = True
    _fill(kept, weights, layers, wanted - count)
    return {name: mask.reshape(weights[name].shape).astype(np.float32) for name, mask in kept.items()}


@dataclass(frozen=True)
class _Layer:
    """A weight as edges between units.

    Attributes:
        cells: |w| [outputs, inputs of its group, kernel cells].
        forward: [inputs, outputs], running sums over outputs of the edges that leave an input.
        backward: [outputs, inputs], running sums over inputs of the edges that enter an output.
        groups: of a convolution.
    """

    cells: Floats
    forward: Floats
    backward: Floats
    groups: int

    @staticmethod
    def of(weight: Array, layer: nn.Module) -> _Layer:
        groups = layer.groups if isinstance(layer, (nn.Conv1d, nn.Conv2d, nn.Conv3d)) else 1
        cells: Floats = np.abs(weight).astype(np.float64).reshape(*weight.shape[:2], math.prod(weight.shape[2:]))
        strength: Floats = cells.sum(axis=2)
        full: Floats = np.zeros((weight.shape[0], weight.shape[1] * groups))
        for group in range(groups):
            rows = slice(group * weight.shape[0] // groups, (group + 1) * weight.shape[0] // groups)
            full[rows, group * weight.shape[1] : (group + 1) * weight.shape[1]] = strength[rows]
        return _Layer(cells, np.cumsum(full.T, axis=1), np.cumsum(full, axis=1), groups)

    def local(self, given: int, taken: int) -> int:
        """Return an input's place within the group of output ``given``."""
        return taken % self.cells.shape[1] if self.groups > 1 else taken


class _Stream:
    """Uniform numbers in [0, 1) from the run's seed."""

    def __init__(self, seed: int, name: str) -> None:
        self._seed, self._name = seed, name
        self._position = 0
        self._drawn: Floats = np.empty(0)

    def next(self) -> float:
        place = self._position % _WORDS
        if place == 0:
            self._drawn = words(self._seed, self._name, self._position, _WORDS).astype(np.float64) * 2.0**-32
        self._position += 1
        return float(self._drawn[place])

    def pick(self, sums: Floats) -> int:
        """Return a place with probability in proportion to its share of the running sums; -1 when they end in zero."""
        if not sums.size or sums[-1] == 0:
            return -1
        return int(np.searchsorted(sums, self.next() * sums[-1], side="right"))

    def among(self, count: int) -> int:
        return min(int(self.next() * count), count - 1)


class _Walker:
    """Walks over a graph of units."""

    def __init__(self, graph: LayerGraph, layers: dict[str, _Layer], stream: _Stream) -> None:
        self._graph, self._layers, self._stream = graph, layers, stream
        self._inputs = [(name, unit) for name in graph.first for unit in range(len(layers[name].forward))]
        self._outputs = [(name, unit) for name in graph.last for unit in range(len(layers[name].backward))]

    def walk(self, turn: int) -> list[tuple[str, int]]:
        """Return the weights (tensor, flat index) on walk number ``turn``; even ones go forward, odd ones back.

        A walk that meets a unit without weights is given up and keeps nothing.
        """
        return self._forward(turn // 2) if turn % 2 == 0 else self._backward(turn // 2)

    def _forward(self, number: int) -> list[tuple[str, int]]:
        name, unit = self._inputs[number % len(self._inputs)]
        edges: list[tuple[str, int]] = []
        while True:
            given = self._stream.pick(self._layers[name].forward[unit])
            if given < 0:
                return []
            edges.append((name, self._cell(name, given, unit)))
            readers = self._graph.successors[name].get(given)
            if not readers:
                # A unit that nothing reads ends the path only in the last layer.
                return edges if not self._graph.successors[name] else []
            name, unit = self._hop(readers)

    def _backward(self, number: int) -> list[tuple[str, int]]:
        name, unit = self._outputs[number % len(self._outputs)]
        edges: list[tuple[str, int]] = []
        while True:
            taken = self._stream.pick(self._layers[name].backward[unit])
            if taken < 0:
                return []
            edges.append((name, self._cell(name, unit, taken)))
            givers = self._graph.predecessors[name].get(taken)
            if not givers:
                return edges if not self._graph.predecessors[name] else []
            name, unit = self._hop(givers)

    def _cell(self, name: str, given: int, taken: int) -> int:
        layer = self._layers[name]
        inside = layer.local(given, taken)
        cell = self._stream.pick(np.cumsum(layer.cells[given, inside]))
        _, inputs, size = layer.cells.shape
        return int((given * inputs + inside) * size + cell)

    def _hop(self, others: dict[str, Ints]) -> tuple[str, int]:
        # Residual branches and the positions of a flattened channel are taken with equal probability.
        name = list(others)[self._stream.among(len(others))]
        return name, int(others[name][self._stream.among(len(others[name]))])


def _fill(kept: dict[str, BoolArray], weights: dict[str, Array], layers: dict[str, _Layer], missing: int) -> None:
    """Keep the ``missing`` largest weights among those whose two units already lie on kept paths; changes ``kept``."""
    if missing == 0:
        return
    scores = []
    for name, mask in kept.items():
        cells = layers[name].cells
        used = mask.reshape(cells.shape)
        given: BoolArray = np.asarray(used.any(axis=(1, 2)))
        taken: BoolArray = np.asarray(used.any(axis=(0, 2)))
        between = given[:, None, None] & taken[None, :, None]
        # Where even these are too few, the largest of the others follow.
        rank = np.where(between, 2.0, 1.0) + cells / (cells.max() + 1.0)
        scores.append(np.where(mask, 0.0, np.broadcast_to(rank, cells.shape).reshape(-1)))
    joined = np.concatenate(scores)
    chosen = np.zeros(joined.size, np.bool_)
    chosen[np.argsort(-joined, kind="stable")[:missing]] = True
    for mask, part in zip(kept.values(), np.split(chosen, np.cumsum([s.size for s in scores])[:-1]), strict=True):
        mask |= part


def _dense(layer: nn.Module) -> Array:
    weight: Array = layer.weight.detach().cpu().numpy()  # type: ignore[operator]  # a tensor in every layer
    return weight
