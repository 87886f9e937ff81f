"""Names of operators for people: the module whose parameters an operator reads, where its own name says nothing."""

from __future__ import annotations

import re
from collections.abc import Collection
from dataclasses import replace

from .trace import Node

# What exporters write when they have no better idea: node_conv2d_5, Conv_17, n3.
_NUMBERED = re.compile(r"(node_.*|n|[A-Z]\w*_)\d*|")
_MOVING = frozenset({"Identity", "Transpose", "Reshape", "Squeeze", "Unsqueeze", "Flatten", "Cast"})
_ROLES = frozenset({"weight", "bias", "running_mean", "running_var", "gamma", "beta", "kernel"})


def labelled(nodes: list[Node], initializers: Collection[str]) -> list[Node]:
    """Return the operators with readable labels: ``layer1.0.conv1`` for what reads ``layer1.0.conv1.weight``.

    Args:
        nodes: operators in graph order.
        initializers: names of the weights.
    """
    origin = {name: name for name in initializers}
    found = []
    for node in nodes:
        if node.op in _MOVING and node.inputs and node.inputs[0] in origin:
            origin.update(dict.fromkeys(node.outputs, origin[node.inputs[0]]))
        owner = next((o for o in (_owner(origin[name]) for name in node.inputs if name in origin) if o), None)
        found.append(replace(node, label=owner) if owner and _NUMBERED.fullmatch(node.label) else node)
    return found


def _owner(parameter: str) -> str:
    module, _, role = parameter.rpartition(".")
    return module if role in _ROLES else ""
