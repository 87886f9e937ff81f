"""Multiply-adds of each weight tensor for one sample, counted by running the network once.

In: a network and example inputs. Out: by weight name, the dense multiply-adds (one is two FLOPs). A mask of density d
leaves d times as many, because every weight of a tensor takes part in equally many.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from torch import nn

from ..errors import ModelError
from .evaluating import evaluating
from .prunable import layer_weights, prunable_tensors

Add = Callable[[nn.Parameter, int], None]

# The inputs of MultiheadAttention, in their order, and the weight of each when they are not fused into one.
_ROLES = {"query": "q_proj_weight", "key": "k_proj_weight", "value": "v_proj_weight"}


def layer_macs(module: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> dict[str, int]:
    """Count the multiply-adds of every prunable weight for one sample.

    A layer that runs several times counts each time; one that never runs has 0. Products of activations (attention
    scores), biases and norm layers have no prunable weight and are not counted.

    Args:
        module: the network; it is run in eval mode without gradients and left as it was.
        example_inputs: tensors whose first axis is the batch.

    Returns:
        by weight name, in state_dict order.

    Raises:
        ModelError: a count does not divide by the batch, so the first axis is no batch.
    """
    names = {id(parameter): name for name, parameter in module.named_parameters()}
    totals = dict.fromkeys((tensor.name for tensor in prunable_tensors(module)), 0)
    batch = int(example_inputs[0].shape[0])

    def add(parameter: nn.Parameter, macs: int) -> None:
        name = names[id(parameter)]
        if name in totals:
            totals[name] += macs

    with ExitStack() as stack:
        for layer in module.modules():
            if isinstance(layer, nn.MultiheadAttention):
                hook = layer.register_forward_hook(_attention_counter(layer, add), with_kwargs=True)
            elif any(True for _ in layer_weights(layer)):
                hook = layer.register_forward_hook(_layer_counter(add))
            else:
                continue
            stack.callback(hook.remove)
        stack.enter_context(evaluating(module))
        module(*example_inputs)
    for name, total in totals.items():
        if total % batch:
            raise ModelError(
                f"'{name}' takes {total} multiply-adds for {batch} samples, which does not divide; the first axis of "
                "every input must be the batch."
            )
    return {name: total // batch for name, total in totals.items()}


def _layer_counter(add: Add) -> Callable[[nn.Module, Any, torch.Tensor], None]:
    def count(layer: nn.Module, _inputs: Any, output: torch.Tensor) -> None:
        weight = layer._parameters["weight"]
        if weight is not None:
            # Each output number is one sum over the weights of its unit; there may be no unit.
            add(weight, output.numel() * math.prod(weight.shape[1:]))

    return count


def _attention_counter(
    layer: nn.MultiheadAttention, add: Add
) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any], Any], None]:
    def count(_module: nn.Module, inputs: tuple[Any, ...], named: dict[str, Any], _output: Any) -> None:
        arguments = dict(zip(("query", "key", "value"), inputs, strict=False)) | named
        tokens = {role: value.numel() // value.shape[-1] for role, value in arguments.items() if role in _ROLES}
        for role, weight in _ROLES.items():
            separate = layer._parameters.get(weight)
            if separate is not None:
                add(separate, tokens[role] * separate.numel())
        fused = layer._parameters.get("in_proj_weight")
        if fused is not None:
            add(fused, sum(tokens.values()) * fused.numel() // len(_ROLES))
        # MultiheadAttention uses its output projection's weight without calling the layer.
        output = layer.out_proj._parameters.get("weight")
        if output is not None:
            add(output, tokens["query"] * output.numel())

    return count
