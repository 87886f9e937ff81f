"""The coupled groups of a network as a compressor needs them: from a torch module or from an ONNX file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from ...errors import UnsupportedError
from .dimensions import Dimensions, analyse
from .effects import Product
from .groups import Group, find_groups
from .invariant import loose_cells

if TYPE_CHECKING:
    import onnx
    from torch import Tensor, nn

    from ..source import InputSpec


@dataclass(frozen=True)
class CoupledGraph:
    """What of a network is removed together.

    Attributes:
        groups: every width of the network, pinned ones included, in graph order.
        heads: units that are attention heads.
        normalised: scales of batch and instance normalisations, by tensor name.
        statistics: means and variances of batch normalisations, which are no parameters.
    """

    groups: tuple[Group, ...]
    heads: frozenset[int]
    normalised: frozenset[str]
    statistics: frozenset[str]


def couplings_of_module(module: nn.Module, examples: Sequence[Tensor], inputs: Sequence[InputSpec]) -> CoupledGraph:
    """Analyse a torch module; tensors have their state_dict names.

    Args:
        module: it is lowered in eval mode and left as it was.
        examples: one tensor an input, batch axis first.
        inputs: the inputs' names.

    Raises:
        ModelError: the module cannot be traced.
        UnsupportedError: an operator without ONNX counterpart, or a graph that contradicts itself.
    """
    from .lowering import to_onnx
    from .prepare import prepared

    return couplings_of_graph(prepared(to_onnx(module, examples, inputs)))


def couplings_of_file(path: Path) -> CoupledGraph:
    """Analyse an ONNX file; tensors have their ONNX names.

    Raises:
        FileFormatError: the file cannot be read.
        UnsupportedError: a graph that contradicts itself.
    """
    from .prepare import read_graph

    return couplings_of_graph(read_graph(path))


def couplings_of_graph(model: onnx.ModelProto) -> CoupledGraph:
    """Analyse a prepared graph.

    Raises:
        UnsupportedError: the graph contradicts itself, or an operator's rule is incomplete.
    """
    dimensions = analyse(model)
    for operator, operand in loose_cells(dimensions)[:1]:
        raise UnsupportedError(
            f"{operator} would lose indices of '{operand}' that nothing follows, so coupled channels cannot be found "
            "safely. Please report the operator with its attributes."
        )
    scales = {node.inputs[1] for node in dimensions.nodes if node.op in ("BatchNormalization", "InstanceNormalization")}
    statistics = {name for n in dimensions.nodes if n.op == "BatchNormalization" for name in n.inputs[3:5]}
    return CoupledGraph(tuple(find_groups(dimensions)), _heads(dimensions), frozenset(scales), frozenset(statistics))


def _heads(dimensions: Dimensions) -> frozenset[int]:
    """Return the units that two activations share where they are multiplied: the batch axes of a MatMul, the heads."""
    found = [np.zeros(0, np.int64)]
    for effect in dimensions.effects:
        if isinstance(effect, Product) and effect.left is not None and effect.right is not None:
            found += [effect.left, effect.right]
    return frozenset(np.unique(dimensions.units[np.concatenate(found)]).tolist())
