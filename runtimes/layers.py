"""Swapping a module's linear layers for another implementation, and saying how many pruned tensors that covered."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import nn

    from ..exporters.artifact import Artifact

Swap = Callable[["nn.Linear", str], "nn.Module | None"]


def swap_linear_layers(module: nn.Module, swap: Swap) -> list[str]:
    """Replace linear layers in place and return the names of the weights whose layers were replaced.

    Only layers of exactly the type ``nn.Linear`` are offered, and not those inside PyTorch's own transformer layers:
    both attention and encoder layers read their projections' weights directly and never call the layer.

    Args:
        module: the network.
        swap: given a layer and its weight's name, returns the replacement, or None to leave the layer as it is.
    """
    from torch import nn

    closed = (nn.MultiheadAttention, nn.TransformerEncoderLayer, nn.TransformerDecoderLayer)
    swapped: list[str] = []
    done: dict[int, nn.Module] = {}
    for path, parent in list(module.named_modules()):
        if isinstance(parent, closed):
            continue
        # Not named_children(), which leaves out the second place of a layer that stands in two.
        for name, layer in list(parent._modules.items()):
            if type(layer) is not nn.Linear:
                continue
            weight = f"{path}.{name}.weight".lstrip(".")
            replacement = done.get(id(layer)) or swap(layer, weight)
            if replacement is not None:
                done[id(layer)] = replacement
                setattr(parent, name, replacement)
                swapped.append(weight)
    return swapped


def pruned(artifact: Artifact, structure: str | None = None) -> list[str]:
    """Return the names of the tensors that a mask makes zeros in, of one structure or of any; aliases are not counted.

    Frozen tensors have a mask and no zeros: it says which weights were trained.
    """
    from ..exporters.materialise import zero_outside

    return [
        name
        for name, record in artifact.records().items()
        if record.masked and zero_outside(record) and structure in (None, record.structure)
    ]


def coverage(swapped: list[str], candidates: list[str], what: str) -> str:
    """Return the note that says how many of the pruned tensors run as ``what`` ("linear layers only: 3 of 21 ...")."""
    if not candidates:
        return f"no tensor is pruned (frozen weights are not zero), so nothing runs {what}."
    rest = len(candidates) - len(swapped)
    dense = f", {rest} dense" if rest > 0 else ""
    return f"linear layers only: {len(swapped)} of {len(candidates)} pruned tensors run {what}{dense}."
