"""The cut itself: which indices of every tensor stay, and the initializers without the others."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx
from onnx import numpy_helper

from ..models.graph.dimensions import Dimensions
from ..models.graph.layout import covered
from ..models.onnx_weights import FIRST_IR_WITH_FREE_INITIALIZERS

Flags = npt.NDArray[np.bool_]
Array = npt.NDArray[Any]


@dataclass
class Cut:
    """A graph being cut.

    Attributes:
        dimensions: the analysis of the graph before the cut.
        removed: units that go.
        kept: tensor name -> per axis, which indices stay (None where all do).
        ragged: tensors inside channel shuffles whose removed cells form no slabs; their shuffle is rewritten.
        model: the graph to write into.
    """

    dimensions: Dimensions
    removed: frozenset[int]
    model: onnx.ModelProto
    kept: dict[str, tuple[Flags | None, ...]] = field(default_factory=dict)
    ragged: set[str] = field(default_factory=set)
    _fresh: int = 0

    def keep(self, name: str, axis: int) -> Flags | None:
        """Return which indices of an axis stay, or None when all do."""
        return self.kept[name][axis] if name in self.kept else None

    def extents(self, name: str) -> tuple[int, ...]:
        """Return a tensor's extents after the cut."""
        old = self.dimensions.shapes.extents[name]
        flags = self.kept.get(name, (None,) * len(old))
        return tuple(extent if flag is None else int(flag.sum()) for extent, flag in zip(old, flags, strict=True))

    def add(self, array: Array, like: str) -> str:
        """Add an initializer with a new name and return that name."""
        # Also those of an earlier cut, which named what it added alike.
        used = {tensor.name for tensor in self.model.graph.initializer}
        self._fresh += 1
        name = f"{like}.slim{self._fresh}"
        while name in used:
            name += "_"
        self.model.graph.initializer.append(numpy_helper.from_array(np.ascontiguousarray(array), name))
        return name


def plan(dimensions: Dimensions, removable: Iterable[int]) -> tuple[frozenset[int], Cut]:
    """Return the units that really go (no axis may become empty) and the cut of every tensor.

    The last unit of a width is always left, dead or not: a dimension of extent 0 is no ordinary graph.
    """
    removed = set(removable)
    units = dimensions.units
    gone = np.zeros(units.size, np.bool_)
    gone[list(removed)] = True
    changed = True
    while changed:
        changed = False
        for name, layout in dimensions.layouts.items():
            for factor in layout.factors if name not in dimensions.shuffles else ():
                labels = units[factor]
                if gone[labels].all():
                    rescued = int(labels.reshape(-1)[0])
                    gone[rescued] = False
                    changed = True
    final = frozenset(np.flatnonzero(gone).tolist())
    return final, Cut(dimensions, final, dimensions.model, *_kept(dimensions, gone))


def _kept(dimensions: Dimensions, gone: Flags) -> tuple[dict[str, tuple[Flags | None, ...]], set[str]]:
    kept: dict[str, tuple[Flags | None, ...]] = {}
    ragged: set[str] = set()
    for name, layout in dimensions.layouts.items():
        flags: list[Flags | None] = [None] * len(layout.shape)
        for factor in layout.factors:
            dead = gone[dimensions.units[factor]]
            if not dead.any():
                continue
            varying = [axis for axis in covered(factor) if (dead != dead.take([0], axis)).any()]
            if len(varying) == 1:
                (axis,) = varying
                others = tuple(a for a in range(dead.ndim) if a != axis)
                flags[axis] = np.asarray(~dead.any(axis=others), np.bool_)
            else:
                ragged.add(name)
        if any(flag is not None for flag in flags):
            kept[name] = tuple(flags)
    return kept, ragged


def cut_initializers(cut: Cut) -> None:
    """Take the removed indices out of every initializer, one at a time."""
    _constants_no_inputs(cut.model)
    for tensor in cut.model.graph.initializer:
        if tensor.name not in cut.kept:
            continue
        array = numpy_helper.to_array(tensor)
        for axis, flags in enumerate(cut.kept[tensor.name]):
            if flags is not None:
                array = np.compress(flags, array, axis)
        name = tensor.name
        tensor.CopyFrom(numpy_helper.from_array(np.ascontiguousarray(array), name))


def _constants_no_inputs(model: onnx.ModelProto) -> None:
    """Before version 4 every initializer is an input, too, whose extents would be those before the cut: end that."""
    if model.ir_version >= FIRST_IR_WITH_FREE_INITIALIZERS:
        return
    constants = {tensor.name for tensor in model.graph.initializer}
    inputs = [value for value in model.graph.input if value.name not in constants]
    del model.graph.input[:]
    model.graph.input.extend(inputs)
    model.ir_version = FIRST_IR_WITH_FREE_INITIALIZERS
