"""A network's state as named arrays: read it, write it back, rewind it."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import nn

from ...errors import ModelError
from ...files import Array
from ...models.tensors import to_numpy, to_torch


def state_tensors(module: nn.Module) -> dict[str, torch.Tensor]:
    """Return every parameter and persistent buffer in state_dict order; a module's extra state is no tensor."""
    return {name: tensor for name, tensor in module.state_dict().items() if isinstance(tensor, torch.Tensor)}


def state_arrays(module: nn.Module) -> dict[str, Array]:
    """Return the state as arrays that share the network's memory when it is on the CPU; tied tensors come twice."""
    return {name: to_numpy(tensor) for name, tensor in state_tensors(module).items()}


def set_state(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Write every parameter and buffer, in place: with the state of an earlier step, this is a rewind.

    Biases, norm layers and their running statistics go back too (Frankle and Carbin 2019; Frankle et al. 2020).

    Raises:
        ModelError: the names or shapes are not this network's.
    """
    state = state_tensors(module)
    if state.keys() != arrays.keys():
        odd = sorted(state.keys() ^ arrays.keys())[0]
        raise ModelError(f"the stored state is that of another network: '{odd}' is in only one of them.")
    with torch.no_grad():
        for name, tensor in state.items():
            if tuple(tensor.shape) != arrays[name].shape:
                raise ModelError(
                    f"the stored state is that of another network: '{name}' is {arrays[name].shape} there and "
                    f"{tuple(tensor.shape)} here."
                )
            tensor.copy_(to_torch(arrays[name]))


def set_some(module: nn.Module, arrays: Mapping[str, Array]) -> None:
    """Write some parameters or buffers, in place.

    Raises:
        ModelError: one is not the network's, or has another shape there.
    """
    state = state_tensors(module)
    with torch.no_grad():
        for name, array in arrays.items():
            if name not in state or tuple(state[name].shape) != array.shape:
                raise ModelError(f"the network has no tensor '{name}' of shape {array.shape}.")
            state[name].copy_(to_torch(array))


def weight_arrays(module: nn.Module, names: list[str]) -> dict[str, Array]:
    """Return the parameters ``names`` as arrays that share the network's memory when it is on the CPU."""
    parameters = dict(module.named_parameters())
    return {name: to_numpy(parameters[name]) for name in names}
