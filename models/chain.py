"""A network as a list of layers, when it is a plain chain of linear layers, activations and flattening.

In: a module and example inputs. Out: plain data that needs no framework to be evaluated, such as

    [{"op": "flatten"}, {"op": "linear", "weight": "fc1.weight", "bias": "fc1.bias"}, {"op": "relu"}, ...]

``flatten`` keeps the batch axis and makes the rest one; ``linear`` is x W^T + b for x [N, features] (``bias`` may be
null); the activations are :data:`ACTIVATIONS`. Guaranteed: the list gives the module's own output on a random input, or
there is no list.
"""

from __future__ import annotations

import operator
from typing import Any

import torch
import torch.nn.functional as F
from torch import nn
from torch.fx import GraphModule, Node, Tracer
from torch.fx.proxy import TraceError

from .evaluating import evaluating

ACTIVATIONS = ("relu", "tanh", "sigmoid")

Step = dict[str, Any]

# What a layer or a call becomes; None is a step that does nothing in use.
_LAYERS: dict[type[nn.Module], str | None] = {
    nn.Flatten: "flatten",
    nn.Linear: "linear",
    nn.ReLU: "relu",
    nn.Tanh: "tanh",
    nn.Sigmoid: "sigmoid",
    nn.Identity: None,
    nn.Dropout: None,
}
_CALLS: dict[Any, str | None] = {
    torch.flatten: "flatten",
    torch.relu: "relu",
    F.relu: "relu",
    torch.tanh: "tanh",
    F.tanh: "tanh",
    torch.sigmoid: "sigmoid",
    F.sigmoid: "sigmoid",
    F.dropout: None,
    "flatten": "flatten",
    "relu": "relu",
    "tanh": "tanh",
    "sigmoid": "sigmoid",
    "contiguous": None,
    "view": "reshape",
    "reshape": "reshape",
    torch.reshape: "reshape",
}
# A user's forward may do anything with the placeholder that tracing gives it; these say that it is no plain chain.
_NOT_TRACEABLE = (TraceError, TypeError, ValueError, RuntimeError, AttributeError, LookupError, AssertionError)


# What a network's names start with when it is the one child of a container.
_ROOT = "0."


class _NoChainError(Exception):
    """The graph holds something that is no step of a chain."""


def chain_of(module: nn.Module, example_inputs: tuple[torch.Tensor, ...]) -> list[Step] | None:
    """Return the network as a list of steps, or None when it is no plain chain.

    Args:
        module: the network; it is traced and run in eval mode and left as it was.
        example_inputs: one float tensor whose first axis is the batch, for any chain to be found.
    """
    if (
        len(example_inputs) != 1
        or not example_inputs[0].is_floating_point()
        or next(module.buffers(), None) is not None
    ):
        return None
    if any(type(layer) is not nn.Linear and layer._parameters for layer in module.modules()):
        return None
    with evaluating(module):
        try:
            # As the one child of a container, a network that is itself a single layer is seen as a layer.
            whole = nn.Sequential(module)
            steps = _steps(GraphModule(whole, Tracer().trace(whole)))
        except (*_NOT_TRACEABLE, _NoChainError):
            return None
        generator = torch.Generator().manual_seed(0)
        shape = example_inputs[0].shape
        probe = torch.randn((3, *shape[1:]), generator=generator).to(example_inputs[0])
        expected = module(probe)
        got = evaluate(steps, module.state_dict(), probe)
        if got is None or got.shape != expected.shape:
            return None
        tolerance = max(1e-4, 4 * torch.finfo(expected.dtype).eps) * float(expected.abs().max())
        return steps if torch.allclose(got, expected, rtol=0.0, atol=tolerance) else None


def evaluate(steps: list[Step], state: dict[str, torch.Tensor], x: torch.Tensor) -> torch.Tensor | None:
    """Compute a chain's output; None when the shapes do not fit one another."""
    for step in steps:
        if step["op"] == "flatten":
            x = x.flatten(1)
        elif step["op"] == "linear":
            weight = state[step["weight"]]
            if x.ndim != 2 or x.shape[1] != weight.shape[1]:
                return None
            x = x @ weight.T if step["bias"] is None else x @ weight.T + state[step["bias"]]
        else:
            x = getattr(torch, step["op"])(x)
    return x


def _steps(graph: GraphModule) -> list[Step]:
    """Read the traced graph as a chain.

    Raises:
        _NoChainError: it branches, or holds an operation that is no step.
    """
    nodes = list(graph.graph.nodes)
    if [node.op for node in nodes].count("placeholder") != 1:
        raise _NoChainError
    current = nodes[0]
    steps: list[Step] = []
    for node in nodes[1:]:
        if _is_extent(node):
            continue
        if not node.args or node.args[0] is not current:
            raise _NoChainError
        if node.op == "output":
            return steps
        steps += _step(graph, node)
        current = node
    raise _NoChainError


def _step(graph: GraphModule, node: Node) -> list[Step]:
    if node.op == "call_module":
        layer = graph.get_submodule(str(node.target))
        if type(layer) not in _LAYERS:
            raise _NoChainError
        name = _LAYERS[type(layer)]
        if isinstance(layer, nn.Linear):
            if layer._parameters.get("weight") is None:
                # It is computed from other parameters before each call (torch.nn.utils.weight_norm and the like).
                raise _NoChainError
            prefix = f"{node.target}.".removeprefix(_ROOT)
            bias = None if layer.bias is None else f"{prefix}bias"
            return [{"op": "linear", "weight": f"{prefix}weight", "bias": bias}]
        if isinstance(layer, nn.Flatten):
            return _flatten(layer.start_dim, layer.end_dim)
    else:
        if node.op not in ("call_function", "call_method") or node.target not in _CALLS:
            raise _NoChainError
        name = _CALLS[node.target]
        if name == "flatten":
            named = dict(zip(("start_dim", "end_dim"), node.args[1:], strict=False)) | node.kwargs
            return _flatten(named.get("start_dim", 0), named.get("end_dim", -1))
        if name == "reshape":
            return _reshape(node.args[1:])
    return [] if name is None else [{"op": name}]


def _flatten(start: Any, end: Any) -> list[Step]:
    if (start, end) != (1, -1):
        raise _NoChainError
    return [{"op": "flatten"}]


def _reshape(shape: tuple[Any, ...]) -> list[Step]:
    """Read x.view(x.size(0), -1) and x.view(-1, features) as flattening; the final check catches any other meaning."""
    extents = shape[0] if len(shape) == 1 and isinstance(shape[0], (tuple, list)) else shape
    if len(extents) != 2 or -1 not in extents:
        raise _NoChainError
    return [{"op": "flatten"}]


def _is_extent(node: Node) -> bool:
    """Tell whether a node asks for a shape or for one extent of it, which is no step of its own."""
    if node.op == "call_method" and node.target == "size":
        return True
    if node.op == "call_function" and node.target is getattr:
        return node.args[1] == "shape"
    return node.op == "call_function" and node.target is operator.getitem and _is_extent_node(node.args[0])


def _is_extent_node(value: Any) -> bool:
    return isinstance(value, Node) and _is_extent(value)
