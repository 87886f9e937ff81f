"""Cutting the tensors of a module's layers, and telling the layers their new sizes."""

from __future__ import annotations

import numpy as np
import torch
from torch import nn

from ...errors import ModelError, UnsupportedError
from .kept import Flags, Kept

_TRANSPOSED = (nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d)
_NORMS = (
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d),
)
_CONVOLUTIONS = (nn.Conv1d, nn.Conv2d, nn.Conv3d, *_TRANSPOSED)


def cut_layers(module: nn.Module, kept: Kept) -> None:
    """Take the removed indices out of every parameter and buffer, in place.

    Args:
        module: the dense network.
        kept: what stays, by state_dict name; a bias that its layer lacks is added, as zeros.

    Raises:
        ModelError: the module has no such tensor, or one of another shape.
        UnsupportedError: a layer that cannot have the remaining size.
    """
    layers = dict(module.named_modules())
    cut: dict[int, torch.Tensor] = {}
    for name, axes in kept.items():
        path, _, attribute = name.rpartition(".")
        layer = layers.get(path)
        if layer is None:
            raise ModelError(f"the slimmed network has a tensor '{name}' that the model does not have.")
        if isinstance(layer, nn.MultiheadAttention):
            raise UnsupportedError(
                f"'{path}' is an nn.MultiheadAttention, whose heads all have the width of its embedding over their "
                "number, so that none can be removed; use --to onnx-slim, or projections of your own."
            )
        old = getattr(layer, attribute, None)
        if old is None and attribute == "bias" and isinstance(layer, (nn.Linear, *_CONVOLUTIONS)):
            _add_bias(layer, axes)
            continue
        if not isinstance(old, torch.Tensor):
            raise ModelError(f"the slimmed network has a tensor '{name}' that the model does not have.")
        if id(old) not in cut:
            cut[id(old)] = _cut(name, old, axes)
            # Kept alive, so that no other tensor can get its id meanwhile.
            cut[-id(old)] = old
        # Recurrent layers watch for this assignment.
        setattr(layer, attribute, cut[id(old)])
        if isinstance(layer, nn.RNNBase) and attribute == "weight_ih_l0":
            layer.input_size = int(cut[id(old)].shape[1])
    for path, layer in layers.items():
        weight = kept.get(f"{path}.weight" if path else "weight")
        if weight is not None:
            _resize(layer, weight)


def _add_bias(layer: nn.Module, axes: tuple[Flags | None, ...]) -> None:
    size = int(axes[0].sum()) if axes and axes[0] is not None else 0
    layer.bias = nn.Parameter(layer.get_parameter("weight").new_zeros(size))


def _cut(name: str, old: torch.Tensor, axes: tuple[Flags | None, ...]) -> torch.Tensor:
    if len(axes) != old.dim() or any(f is not None and f.size != old.shape[a] for a, f in enumerate(axes)):
        extents = tuple("any" if flags is None else flags.size for flags in axes)
        raise ModelError(
            f"the tensor '{name}' of the model has the shape {tuple(old.shape)}; the slimmed network was cut "
            f"from {extents}."
        )
    new = old.detach()
    for axis, flags in enumerate(axes):
        if flags is not None:
            new = new.index_select(axis, torch.from_numpy(np.flatnonzero(flags)).to(old.device))
    new = new.clone()
    return nn.Parameter(new, old.requires_grad) if isinstance(old, nn.Parameter) else new


def _resize(layer: nn.Module, axes: tuple[Flags | None, ...]) -> None:
    """Set the sizes that a layer remembers besides its tensors."""
    shape = tuple(layer.weight.shape) if isinstance(layer.weight, torch.Tensor) else ()
    if isinstance(layer, nn.Linear):
        layer.out_features, layer.in_features = shape
    elif isinstance(layer, _CONVOLUTIONS):
        # A grouped convolution loses whole groups, or the same places of every group.
        whole = axes[0]
        if layer.groups > 1 and whole is not None:
            layer.groups = int(whole.reshape(layer.groups, -1).any(axis=1).sum())
        inner, outer = (0, 1) if isinstance(layer, _TRANSPOSED) else (1, 0)
        layer.in_channels = shape[inner] * (1 if inner == 0 else layer.groups)
        layer.out_channels = shape[outer] * (layer.groups if inner == 0 else 1)
    elif isinstance(layer, _NORMS):
        layer.num_features = shape[0]
    elif isinstance(layer, nn.GroupNorm):
        if axes[0] is not None:
            layer.num_groups = int(axes[0].reshape(layer.num_groups, -1).any(axis=1).sum())
        layer.num_channels = shape[0]
    elif isinstance(layer, nn.Embedding):
        layer.num_embeddings, layer.embedding_dim = shape
    elif isinstance(layer, nn.PReLU):
        layer.num_parameters = shape[0]
