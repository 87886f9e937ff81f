"""What single layers cost: measured milliseconds as data, from whoever measures to whoever chooses between forms.

A :class:`LayerShape` says which computation it is (operator, shapes, and the density of the weight where the layer runs
sparse); a :class:`CostTable` holds what it took on one machine. Nothing here reads a clock.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import FileFormatError, UsageError
from ..files import write_bytes

SCHEMA = "sparsepack.costs/1"
OPERATORS = ("Conv", "Gemm", "MatMul")
# A layer keeps 10.03 % of its weights in one checkpoint and 10.01 % in the next; one measurement serves both.
_DENSITY_DIGITS = 2


def rounded_density(density: float) -> float:
    """Return a density to two significant digits, as tables list it."""
    return float(f"{density:.{_DENSITY_DIGITS}g}")


class LayerShape(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One layer's computation: what decides its time, and nothing else.

    Attributes:
        operator: ``Conv``, ``Gemm`` or ``MatMul``.
        input: the activations' shape, batch first.
        weight: the weight's shape, as ONNX's operator reads it: [outputs, inputs / group, kernel...] or [inputs,
            outputs].
        strides, pads, dilations: of a Conv, as in ONNX; empty for the defaults.
        group: of a Conv.
        transposed: whether a linear weight is stored as [outputs, inputs].
        left: whether a linear weight stands on the left: activations are then [..., inputs, columns].
        density: the share of weights that are stored, for the sparse operator; None for the dense one.
    """

    operator: str
    input: tuple[int, ...]
    weight: tuple[int, ...]
    strides: tuple[int, ...] = ()
    pads: tuple[int, ...] = ()
    dilations: tuple[int, ...] = ()
    group: int = 1
    transposed: bool = False
    left: bool = False
    density: float | None = None

    def dense(self) -> LayerShape:
        """Return the dense form of the same layer."""
        return msgspec.structs.replace(self, density=None)

    def sparse(self, density: float) -> LayerShape:
        """Return the sparse form of the same layer; the density is rounded as tables list it."""
        return msgspec.structs.replace(self, density=rounded_density(density))

    @property
    def positions(self) -> int:
        """How many output positions each weight is used at, over the whole batch."""
        if self.left:
            return math.prod(self.input[:-2]) * self.input[-1]
        if self.operator != "Conv":
            return math.prod(self.input[:-1])
        axes = len(self.weight) - 2
        strides, dilations = self.strides or (1,) * axes, self.dilations or (1,) * axes
        pads = self.pads or (0,) * 2 * axes
        extents = (
            (self.input[2 + axis] + pads[axis] + pads[axes + axis] - dilations[axis] * (self.weight[2 + axis] - 1) - 1)
            // strides[axis]
            + 1
            for axis in range(axes)
        )
        return self.input[0] * math.prod(extents)

    @property
    def examples(self) -> int:
        """The batch; a single matrix right of its weight is one example."""
        return 1 if self.left and len(self.input) == 2 else self.input[0]

    @property
    def macs(self) -> int:
        """Multiply-adds of the dense layer."""
        return self.positions * math.prod(self.weight)


class LayerCost(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one layer took.

    Attributes:
        layer: which.
        ms: milliseconds of the layer alone, reordering of its activations included: the mean of the fastest quarter of
            all runs, because whatever else the machine does only ever adds.
        inner_ms: the same without that reordering, which a layer between layers of its own kind is spared.
        median_ms: the median of all runs, reordering included; far above ``ms`` on a busy machine.
        runs: how many were counted.
    """

    layer: LayerShape
    ms: float
    inner_ms: float
    median_ms: float
    runs: int


class CostTable:
    """Measured costs of layers, all taken under the same conditions.

    Attributes:
        conditions: processor, threads, versions: whatever a time depends on beside the layer.
        costs: by layer.
    """

    def __init__(self, conditions: Mapping[str, Any], costs: Iterable[LayerCost] = ()) -> None:
        self.conditions = dict(conditions)
        self.costs = {cost.layer: cost for cost in costs}

    def find(self, layer: LayerShape) -> LayerCost | None:
        """Return what a layer took, or None when it was not measured."""
        return self.costs.get(layer)

    def with_costs(self, costs: Iterable[LayerCost]) -> CostTable:
        """Return a table that holds these as well; a layer that is in both takes the new cost."""
        return CostTable(self.conditions, [*self.costs.values(), *costs])

    def require(self, conditions: Mapping[str, Any], path: Path) -> None:
        """Refuse to mix measurements.

        Raises:
            UsageError: the table was taken under other conditions.
        """
        for key in sorted({*self.conditions, *conditions}):
            theirs, ours = self.conditions.get(key), conditions.get(key)
            if theirs != ours:
                raise UsageError(
                    f"the cost table {path} was measured with {key} {theirs}, now it is {ours}; measure into another "
                    "file, or use the table as it is without measuring."
                )

    def save(self, path: Path) -> None:
        """Write the table as JSON, atomically, a line for each layer; the order is that of measuring."""
        head = {"schema": SCHEMA, "conditions": self.conditions}
        lines = b",\n  ".join(msgspec.json.encode(cost) for cost in self.costs.values())
        write_bytes(path, msgspec.json.encode(head)[:-1] + b',\n "costs": [\n  ' + lines + b"\n ]}\n")

    @staticmethod
    def load(path: Path) -> CostTable:
        """Read a table.

        Raises:
            FileFormatError: it cannot be read, or is no cost table of this version.
        """
        try:
            plain = msgspec.json.decode(path.read_bytes())
        except OSError as error:
            raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            raise FileFormatError(f"{path} is no cost table: it is not JSON ({error}).") from error
        schema = plain.get("schema") if isinstance(plain, dict) else None
        if schema != SCHEMA:
            raise FileFormatError(f"{path} is no cost table of schema {SCHEMA} (its schema: {schema}).")
        try:
            conditions = msgspec.convert(plain.get("conditions"), dict[str, Any])
            costs = msgspec.convert(plain.get("costs"), list[LayerCost])
        except msgspec.ValidationError as error:
            raise FileFormatError(f"{path} is a damaged cost table: {error}.") from error
        return CostTable(conditions, costs)
