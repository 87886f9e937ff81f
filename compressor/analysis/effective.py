"""Weights that a mask keeps and that do nothing: cut off from the outputs by what went behind them.

Source: On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020, appendix B. There they
are found by what training left unchanged; here also from the masks alone.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import numpy as np
import torch
from torch import nn
from torch.func import functional_call

from ...files import Array
from ...models.evaluating import evaluating
from ..mask import BoolArray


def live_weights(
    module: nn.Module, masks: Mapping[str, BoolArray], inputs: tuple[torch.Tensor, ...], *, from_inputs: bool = False
) -> dict[str, BoolArray]:
    """Return which kept weights lie on a path of kept weights to an output.

    The network is run with positive weights where the masks keep one, positive biases and positive inputs: no path can
    cancel another, so a weight's gradient is zero exactly when no path leads on from it.

    Args:
        module: the network; it is left as it was.
        masks: by weight name.
        inputs: examples, of which only the shapes count (token ids are taken as they are).
        from_inputs: the path must also begin at an input: biases are zero then.
    """
    state: dict[str, torch.Tensor] = {}
    leaves: dict[str, torch.Tensor] = {}
    for name, parameter in module.named_parameters():
        if name in masks:
            mask = torch.from_numpy(np.ascontiguousarray(masks[name]))
            # Divided by the fan-in, so that deep networks stay within what a double can hold.
            leaves[name] = (mask.double() / max(1, math.prod(mask.shape[1:]))).requires_grad_()
        elif parameter.dim() > 1:
            state[name] = torch.ones_like(parameter, dtype=torch.float64) / max(1, math.prod(parameter.shape[1:]))
        else:
            bias = name.endswith("bias") and from_inputs
            state[name] = torch.full_like(parameter, 0.0 if bias else 1.0, dtype=torch.float64)
    for name, buffer in module.named_buffers():
        plain = torch.zeros_like(buffer) if name.endswith("running_mean") else torch.ones_like(buffer)
        state[name] = plain.double() if buffer.is_floating_point() else buffer
    ones = tuple(torch.ones_like(x, dtype=torch.float64) if x.is_floating_point() else x for x in inputs)
    with evaluating(module), torch.enable_grad():
        outputs = functional_call(module, {**state, **leaves}, ones)
        total = outputs.sum()
        gradients = (
            torch.autograd.grad(total, list(leaves.values()), allow_unused=True)
            if total.requires_grad
            else [None] * len(leaves)
        )
    return {
        name: masks[name] & (gradient.numpy() != 0) if gradient is not None else np.zeros_like(masks[name])
        for (name, _), gradient in zip(leaves.items(), gradients, strict=True)
    }


def unchanged_weights(begin: Mapping[str, Array], end: Mapping[str, Array], masks: Mapping[str, BoolArray]) -> int:
    """Return how many kept weights end a training with the very value that they began it with.

    Cut off from the outputs, fed by inputs that are always zero, or behind units that never fire: no gradient came.
    """
    return sum(int(np.count_nonzero(mask & (begin[name] == end[name]))) for name, mask in masks.items())
