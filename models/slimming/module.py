"""A slimmed torch module: the dense one with removed channels, neurons and heads taken out.

In: a dense module and what stays of its tensors. Out: a smaller module with the same state_dict names, which trains
like any other. A module whose forward names no size keeps its class. One that does (the heads of an attention, the
channels of a padded shortcut) becomes a ``torch.fx.GraphModule`` with these numbers set anew.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import torch
from torch import Tensor, fx, nn

from ...errors import ModelError, UnsupportedError
from ..evaluating import evaluating
from .constants import set_constants
from .kept import Kept
from .layers import cut_layers
from .marks import find_marks

_TRAINING = ("dropout", "dropout1d", "dropout2d", "dropout3d", "alpha_dropout", "feature_alpha_dropout", "batch_norm")


def slim_module(module: nn.Module, kept: Kept, inputs: Sequence[Tensor]) -> nn.Module:
    """Return the smaller module.

    Args:
        module: the dense network; it is left as it was.
        kept: by state_dict name, which indices of each axis stay.
        inputs: example inputs on the module's device, batch axis first.

    Raises:
        UnsupportedError: the forward cannot be traced by torch.fx or names sizes in a way that is not followed.
        ModelError: the tensors are not this module's.
    """
    small = copy.deepcopy(module)
    cut_layers(small, kept)
    with evaluating(module):
        expected = module(*inputs)
    try:
        traced = fx.symbolic_trace(module)
    except (fx.proxy.TraceError, TypeError, ValueError, RuntimeError, NotImplementedError, AttributeError) as error:
        # A forward with control flow of its own may still name no size.
        return _checked(small, inputs, expected, f"torch.fx cannot trace its forward ({error})")
    with evaluating(traced):
        values = find_marks(traced, kept, tuple(inputs))
    if not set_constants(traced.graph, values):
        return _checked(small, inputs, expected, "its forward names sizes in a way that is not followed")
    _refuse_training_flags(traced.graph)
    result = fx.GraphModule(small, traced.graph, type(module).__name__)
    result.train(module.training)
    return _checked(result, inputs, expected, "its forward names sizes in a way that is not followed")


def _refuse_training_flags(graph: fx.Graph) -> None:
    """A traced call such as ``F.dropout(x, training=self.training)`` would train and evaluate alike."""
    for node in graph.nodes:
        if node.op == "call_function" and getattr(node.target, "__name__", "") in _TRAINING:
            raise UnsupportedError(
                f"the network's forward calls '{node.name}' as a function, which a traced copy cannot switch between "
                "training and evaluation; use a layer such as nn.Dropout for it."
            )


def _checked(small: nn.Module, inputs: Sequence[Tensor], expected: object, why: str) -> nn.Module:
    """Run the module once: a size that was overlooked shows here, not in the middle of a training."""
    message = f"the torch module cannot be slimmed: {why}; --to onnx-slim can"
    try:
        with evaluating(small):
            found = small(*inputs)
    except (RuntimeError, ValueError, IndexError) as error:
        raise UnsupportedError(f"{message} ({str(error).splitlines()[0]}).") from error
    if isinstance(expected, Tensor) and (not isinstance(found, Tensor) or found.shape != expected.shape):
        raise UnsupportedError(f"{message}.")
    return small


def load_state(module: nn.Module, state: dict[str, Tensor]) -> None:
    """Copy a slimmed network's tensors into the module that :func:`slim_module` built.

    Raises:
        ModelError: the names or shapes are not the module's.
    """
    own = module.state_dict()
    odd = sorted(own.keys() ^ state.keys())
    if odd:
        raise ModelError(f"the slimmed network does not fit the model: '{odd[0]}' is in only one of them.")
    for name, tensor in own.items():
        if tensor.shape != state[name].shape:
            raise ModelError(
                f"the slimmed network does not fit the model: '{name}' is {tuple(state[name].shape)} in the file and "
                f"{tuple(tensor.shape)} in the model."
            )
    with torch.no_grad():
        for name, tensor in own.items():
            tensor.copy_(state[name])
