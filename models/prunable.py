"""Which tensors of a network may be pruned: the weights of convolutions and linear layers, and nothing else."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Literal

from torch import nn

Kind = Literal["conv", "linear", "embedding"]

_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d)
_EMBEDDINGS = (nn.Embedding, nn.EmbeddingBag)
# MultiheadAttention keeps its input projections as bare parameters; its output projection is a Linear of its own.
_ATTENTION_WEIGHTS = ("in_proj_weight", "q_proj_weight", "k_proj_weight", "v_proj_weight")


@dataclass(frozen=True)
class PrunableTensor:
    """One weight tensor that a method may mask.

    Attributes:
        name: its state_dict (or ONNX initializer) name.
        shape: its dense shape.
        kind: ``conv``, ``linear`` or ``embedding``.
        output_axis: the axis of the output units (0 in torch; 1 for ONNX's MatMul [K, N]).
        fan_in: inputs of one output unit.
        fan_out: outputs that one input unit reaches (torch's definition: kernel positions times output units).
        macs: multiply-adds that it takes part in for one sample; None when not counted.
    """

    name: str
    shape: tuple[int, ...]
    kind: Kind
    output_axis: int
    fan_in: int
    fan_out: int
    macs: int | None = None

    @property
    def size(self) -> int:
        """The number of weights."""
        return math.prod(self.shape)


def layer_weights(module: nn.Module) -> Iterator[tuple[str, Kind]]:
    """Yield the attribute names and kinds of the prunable weights that ``module`` itself (not a child) holds."""
    if isinstance(module, _CONVOLUTIONS):
        candidates: tuple[tuple[str, Kind], ...] = (("weight", "conv"),)
    elif isinstance(module, nn.Linear):
        candidates = (("weight", "linear"),)
    elif isinstance(module, nn.MultiheadAttention):
        candidates = tuple((name, "linear") for name in _ATTENTION_WEIGHTS)
    else:
        candidates = ()
    for name, kind in candidates:
        # A reparametrised weight is computed, not held; whoever reparametrised it answers for it.
        if module._parameters.get(name) is not None:
            yield name, kind


def fans(shape: tuple[int, ...]) -> tuple[int, int]:
    """Return fan-in and fan-out of a weight [output, input / groups, *kernel], as torch defines them."""
    return math.prod(shape[1:]), shape[0] * math.prod(shape[2:])


def prunable_tensors(module: nn.Module, macs: Mapping[str, int] | None = None) -> list[PrunableTensor]:
    """Return the prunable weights of a network in state_dict order.

    Weights of Conv1d, Conv2d, Conv3d and Linear (subclasses too) and the projections of MultiheadAttention. Biases,
    norm layers and embeddings are not prunable, nor is a linear weight tied to an embedding, nor one without entries.
    Tied weights appear once, under their first name.

    Args:
        module: the network.
        macs: multiply-adds by weight name (:func:`sparsepack.models.flops.layer_macs`), to be filled in.
    """
    kinds: dict[int, Kind] = {}
    embedded: set[int] = set()
    for layer in module.modules():
        for attribute, kind in layer_weights(layer):
            kinds.setdefault(id(layer._parameters[attribute]), kind)
        if isinstance(layer, _EMBEDDINGS):
            embedded.add(id(layer.weight))
    found = []
    for name, parameter in module.named_parameters():
        if id(parameter) in kinds and id(parameter) not in embedded and parameter.numel():
            shape = tuple(parameter.shape)
            fan_in, fan_out = fans(shape)
            count = None if macs is None else macs.get(name)
            found.append(PrunableTensor(name, shape, kinds[id(parameter)], 0, fan_in, fan_out, count))
    return found
