"""Which output units of one layer are input units of another: the network as a graph of units.

Found by running the network once with every layer's output cut off and replaced by positive numbers, and asking what
the inputs of the layers after it depend on. Works where a number that reaches a layer comes from one unit of each layer
before it: through norms, activations, pools, residual sums, padding and flattening, not through attention.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn
from torch.func import functional_call

from ...errors import UnsupportedError
from ...models.prunable import layer_weights
from .gradients import scoring_mode
from .probe import Probe

Ints = npt.NDArray[np.int64]
INPUT = ""


@dataclass
class LayerGraph:
    """Layers by their weight's name, and how their units meet.

    Attributes:
        layers: in the order in which they run.
        successors: layer -> output unit -> the layers that read it, each with its input units.
        predecessors: layer -> input unit -> the layers that it reads, each with its output units; what it reads of the
            network's own input is not among them.
        last: the layers whose outputs nothing reads.
    """

    layers: dict[str, nn.Module] = field(default_factory=dict)
    successors: dict[str, dict[int, dict[str, Ints]]] = field(default_factory=dict)
    predecessors: dict[str, dict[int, dict[str, Ints]]] = field(default_factory=dict)

    @property
    def last(self) -> list[str]:
        """The layers whose outputs no other layer reads."""
        return [name for name in self.layers if not self.successors[name]]

    @property
    def first(self) -> list[str]:
        """The layers that read the network's input."""
        return [name for name in self.layers if not self.predecessors[name]]


def layer_graph(probe: Probe) -> LayerGraph:
    """Return the graph of the probe's network.

    Raises:
        UnsupportedError: a layer runs more than once, or mixes units of the one before it.
    """
    graph = LayerGraph()
    outputs: dict[str, torch.Tensor] = {}
    inputs: dict[str, torch.Tensor] = {}
    module = probe.module
    parameters = {name: p.detach().double().abs() for name, p in module.named_parameters()}
    buffers = {name: b.double() if b.is_floating_point() else b for name, b in module.named_buffers()}
    generator = torch.Generator().manual_seed(0)
    examples = tuple(
        torch.rand(x.shape, generator=generator, dtype=torch.float64).to(probe.device) + 1
        if x.is_floating_point()
        else x.to(probe.device)
        for x in probe.examples(1)
    )
    with ExitStack() as stack:
        for prefix, layer in module.named_modules():
            if any(attribute == "weight" for attribute, _ in layer_weights(layer)):
                name = f"{prefix}.weight" if prefix else "weight"
                graph.layers[name] = layer
                stack.callback(layer.register_forward_hook(_cutting(name, inputs, outputs, generator)).remove)
        stack.enter_context(scoring_mode(module, "eval"))
        functional_call(module, (parameters, buffers), examples)
    graph.layers = {name: graph.layers[name] for name in inputs}
    graph.successors = {name: {} for name in graph.layers}
    graph.predecessors = {name: {} for name in graph.layers}
    for reader, x in inputs.items():
        if x.requires_grad:
            _link(graph, reader, x, outputs)
    return graph


def _cutting(
    name: str, inputs: dict[str, torch.Tensor], outputs: dict[str, torch.Tensor], generator: torch.Generator
) -> Callable[[nn.Module, Any, torch.Tensor], torch.Tensor]:
    def cut(layer: nn.Module, given: tuple[torch.Tensor, ...], output: torch.Tensor) -> torch.Tensor:
        if name in inputs:
            raise UnsupportedError(
                f"the layer of '{name}' runs more than once, so that its units form no simple graph."
            )
        inputs[name] = given[0]
        drawn = torch.rand(output.shape, generator=generator, dtype=torch.float64).to(output.device) + 1
        outputs[name] = drawn.requires_grad_()
        return outputs[name]

    return cut


def _link(graph: LayerGraph, reader: str, x: torch.Tensor, outputs: dict[str, torch.Tensor]) -> None:
    """Find which units of the layers before it each input unit of ``reader`` comes from."""
    linear = isinstance(graph.layers[reader], nn.Linear)
    units = x.shape[-1 if linear else 1]
    number = torch.arange(1, units + 1, dtype=torch.float64, device=x.device)
    if not linear:
        number = number.reshape(1, -1, *[1] * (x.dim() - 2))
    leaves = list(outputs.values())
    # An entry that leads to one input unit b alone has moments 1, b and b^2 times a common factor.
    moments = [
        torch.autograd.grad(x, leaves, (number**power).expand_as(x), retain_graph=True, allow_unused=True)
        for power in range(3)
    ]
    for name, zeroth, first, second in zip(outputs, *moments, strict=True):
        if zeroth is None or first is None or second is None:
            continue
        axis = -1 if isinstance(graph.layers[name], nn.Linear) else 1
        rows = [g.movedim(axis, 0).flatten(1) for g in (zeroth, first, second)]
        reached = rows[2] != 0
        if not bool(reached.any()):
            continue
        once, number_of, squared = (row[reached] for row in rows)
        if bool(((number_of**2 - once * squared).abs() > 1e-9 * number_of**2 + 1e-30).any()):
            raise UnsupportedError(
                f"units of '{name}' are mixed before they reach '{reader}', so that its units form no simple graph."
            )
        taken = ((number_of / once).round() - 1).long().cpu().numpy()
        given = reached.nonzero()[:, 0].cpu().numpy()
        pairs = np.unique(np.stack([given, taken], axis=1), axis=0)
        for unit in np.unique(pairs[:, 0]).tolist():
            graph.successors[name].setdefault(unit, {})[reader] = pairs[pairs[:, 0] == unit, 1]
        for unit in np.unique(pairs[:, 1]).tolist():
            graph.predecessors[reader].setdefault(unit, {})[name] = pairs[pairs[:, 1] == unit, 0]
