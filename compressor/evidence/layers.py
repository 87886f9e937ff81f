"""What goes into every prunable layer, and what gradients come back: seen where the weight is multiplied.

A layer's product is caught in ``torch.nn.functional`` itself, because hooks on layers miss the output projection of
MultiheadAttention (its weight is used without a call of the layer) and weights that a user's model multiplies by hand.
Inputs come as rows in the order of a weight's reduction dimension: features, or (kernel positions, channels).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn

_PRODUCTS = ("linear", "conv1d", "conv2d", "conv3d")


@dataclass(frozen=True)
class Product:
    """One multiplication by a prunable weight.

    Attributes:
        name: of the weight.
        units: the output units that take part (a fused attention projection multiplies each third by itself).
        inputs: [samples, reduction length], one row for each output position; for one group of a grouped convolution.
        output: what came out; a hook on it sees the gradient.
        convolution: whether the output's units lie along axis 1 instead of the last.
    """

    name: str
    units: slice
    inputs: torch.Tensor
    output: torch.Tensor
    convolution: bool = False

    def rows(self, gradient: torch.Tensor) -> torch.Tensor:
        """Return a gradient of ``output`` as [samples, units of this product], in the order of ``inputs``."""
        if self.convolution:
            gradient = gradient.movedim(1, -1)
        flat = gradient.reshape(-1, gradient.shape[-1])
        if flat.shape[1] == self.units.stop - self.units.start:
            return flat
        return flat[:, self.units]


Sink = Callable[[Product], None]


@contextmanager
def watching(module: nn.Module, names: Sequence[str], sink: Sink) -> Iterator[None]:
    """Call ``sink`` for every multiplication by one of the weights ``names`` while the block runs."""
    parameters = dict(module.named_parameters(remove_duplicate=False))
    owners = {parameters[name].untyped_storage().data_ptr(): name for name in names}
    originals = {product: getattr(F, product) for product in _PRODUCTS}

    def replacement(product: str) -> Callable[..., torch.Tensor]:
        original = originals[product]

        def watched(input: torch.Tensor, weight: torch.Tensor, *rest: Any, **named: Any) -> torch.Tensor:
            output: torch.Tensor = original(input, weight, *rest, **named)
            name = owners.get(weight.untyped_storage().data_ptr())
            if name is not None:
                for found in _products(name, parameters[name], product, input, weight, output, rest, named):
                    sink(found)
            return output

        return watched

    for product in _PRODUCTS:
        setattr(F, product, replacement(product))
    try:
        yield
    finally:
        for product, original in originals.items():
            setattr(F, product, original)


def _products(
    name: str,
    whole: torch.Tensor,
    product: str,
    inputs: torch.Tensor,
    weight: torch.Tensor,
    output: torch.Tensor,
    rest: Sequence[Any],
    named: Mapping[str, Any],
) -> Iterator[Product]:
    begin = (weight.storage_offset() - whole.storage_offset()) // max(1, whole[0].numel())
    units = slice(begin, begin + weight.shape[0])
    if product == "linear":
        yield Product(name, units, inputs.detach().reshape(-1, inputs.shape[-1]), output)
        return
    given = dict(zip(("bias", "stride", "padding", "dilation", "groups"), rest, strict=False)) | dict(named)
    groups = given.get("groups", 1)
    if inputs.dim() == weight.dim() - 1:
        inputs = inputs[None]
    count = weight.shape[0] // groups
    for group in range(groups):
        part = inputs.detach().chunk(groups, dim=1)[group]
        rows = patches(
            part, weight.shape[2:], given.get("stride", 1), given.get("padding", 0), given.get("dilation", 1)
        )
        yield Product(name, slice(begin + group * count, begin + (group + 1) * count), rows, output, True)


def patches(
    inputs: torch.Tensor,
    kernel: Sequence[int],
    stride: int | Sequence[int],
    padding: str | int | Sequence[int],
    dilation: int | Sequence[int],
) -> torch.Tensor:
    """Return what a convolution sums over, [batch * positions, kernel positions * channels], channels innermost.

    Args:
        inputs: [batch, channels, *space].
        kernel: its extent in each spatial dimension.
        stride: of the convolution.
        padding: of the convolution; ``same`` and ``valid`` too.
        dilation: of the convolution.
    """
    dimensions = len(kernel)
    strides, dilations = (
        [value] * dimensions if isinstance(value, int) else list(value) * (1 if len(value) > 1 else dimensions)
        for value in (stride, dilation)
    )
    strides, dilations = strides[:dimensions], dilations[:dimensions]
    reach = [d * (k - 1) for d, k in zip(dilations, kernel, strict=True)]
    if isinstance(padding, str):
        sides = [(r // 2, r - r // 2) if padding == "same" else (0, 0) for r in reach]
    else:
        single = [padding] * dimensions if isinstance(padding, int) else list(padding)
        single = single * dimensions if len(single) == 1 else single
        sides = [(p, p) for p in single]
    unfolded = F.pad(inputs, [side for pair in reversed(sides) for side in pair])
    for axis in range(dimensions):
        unfolded = unfolded.unfold(axis + 2, reach[axis] + 1, strides[axis])[..., :: dilations[axis]]
    # [batch, channels, *positions, *kernel] -> [batch, *positions, *kernel, channels]
    rows = unfolded.movedim(1, -1)
    length = inputs.shape[1]
    for extent in kernel:
        length *= extent
    return rows.reshape(-1, length)
