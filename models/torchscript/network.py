"""A TorchScript program as an ordinary module, with its names, and real layers where the program computes them.

Convolutions, linear layers, BatchNorm and embeddings whose weights belong to one submodule become PyTorch's own layers
under the same names, so that everything that looks for layers finds them; what remains runs operator by operator.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from ...errors import ModelError
from .graph import Attribute, Block, Node, Program, read_program
from .operators import call

_DROPOUTS = ("aten::dropout", "aten::dropout_", "aten::feature_dropout", "aten::alpha_dropout")
_CONVOLUTIONS = {
    "aten::conv1d": nn.Conv1d,
    "aten::conv2d": nn.Conv2d,
    "aten::conv3d": nn.Conv3d,
    "aten::_convolution": None,
}
_BY_RANK: dict[int, tuple[type[nn.Module], type[nn.Module]]] = {
    3: (nn.Conv1d, nn.BatchNorm1d),
    4: (nn.Conv2d, nn.BatchNorm2d),
    5: (nn.Conv3d, nn.BatchNorm3d),
}
_MISSING = object()


class ScriptNetwork(nn.Module):
    """What a script module computes; ``baked`` is the mode that it was traced in, None where it follows train()."""

    baked: bool | None

    def __init__(self, script: torch.jit.ScriptModule) -> None:
        """Copy parameters, buffers and program; layers come with :meth:`find_layers`."""
        super().__init__()
        self._program = read_program(script)
        known: dict[int, nn.Parameter] = {}
        for path, part in script.named_modules():
            holder = self if not path else _grown(self, path)
            for name, value in part.named_parameters(recurse=False):
                parameter = known.setdefault(id(value), nn.Parameter(value.detach().clone(), value.requires_grad))
                holder.register_parameter(name, parameter)
            for name, value in part.named_buffers(recurse=False):
                holder.register_buffer(name, value.detach().clone())
        self._constant_tensors = sorted(name for name, v in self._program.constants.items() if isinstance(v, Tensor))
        for number, name in enumerate(self._constant_tensors):
            tensor = self._program.constants.pop(name)
            self.register_buffer(f"_constant_{number}", tensor.detach().clone(), persistent=False)
        self._numbers = _numbers(script, self._program)
        self._lists = _lists(script, self._numbers)
        self._layers: dict[str, str] = {}
        self.baked = _baked(self._program)

    def find_layers(self, examples: tuple[Tensor, ...]) -> None:
        """Run once and put PyTorch's own layers where the program computes them."""
        seen: dict[str, list[Any]] = {}
        with torch.no_grad():
            self._run(self._program.body, self._begin(examples), seen)
        uses: dict[str, list[tuple[Node, list[Any]]]] = {}
        for node in _all_nodes(self._program.body):
            path = self._layer_path(node)
            if path is not None and node.outputs[0] in seen:
                uses.setdefault(path, []).append((node, seen[node.outputs[0]]))
        for path, found in uses.items():
            made = [_layer(node, values) for node, values in found]
            first = made[0]
            if first is None or any(other is None or repr(other) != repr(first) for other in made):
                continue
            _take_over(first, self.get_submodule(path))
            parent, _, name = path.rpartition(".")
            setattr(self.get_submodule(parent), name, first)
            self._layers.update({node.outputs[0]: path for node, _ in found})

    def answer(self, *inputs: Tensor) -> Any:
        """Return what the program returns."""
        return self._run(self._program.body, self._begin(inputs))

    def _begin(self, inputs: tuple[Tensor, ...]) -> dict[str, Any]:
        names = self._program.body.inputs[1:]
        if len(inputs) > len(names):
            raise ModelError(f"the TorchScript program takes {len(names)} inputs, not {len(inputs)}.")
        return dict(zip(names, inputs, strict=False))

    def _value(self, name: str, values: dict[str, Any]) -> Any:
        if name in values:
            return values[name]
        program = self._program
        if name in program.constants:
            return program.constants[name]
        if name in program.attributes:
            return self._attribute(program.attributes[name])
        if name in self._constant_tensors:
            return getattr(self, f"_constant_{self._constant_tensors.index(name)}")
        return None

    def _attribute(self, attribute: Attribute) -> Any:
        if attribute.dotted in self._lists:
            return [self.get_parameter(name) for name in self._lists[attribute.dotted]]
        if attribute.dotted in self._numbers:
            return self._numbers[attribute.dotted]
        holder = self.get_submodule(attribute.path)
        return getattr(holder, attribute.name)

    def _run(self, block: Block, values: dict[str, Any], seen: dict[str, list[Any]] | None = None) -> Any:
        for node in block.nodes:
            given = [self._value(name, values) for name in node.inputs]
            if seen is not None and node.outputs:
                seen[node.outputs[0]] = given
            results = self._step(node, given, values, seen)
            results = results if len(node.outputs) != 1 else (results,)
            values.update(zip(node.outputs, results or (), strict=False))
        outputs = [self._value(name, values) for name in block.outputs]
        return outputs[0] if len(outputs) == 1 else tuple(outputs)

    def _step(self, node: Node, given: list[Any], values: dict[str, Any], seen: dict[str, list[Any]] | None) -> Any:
        if node.kind == "prim::If":
            return self._run(node.blocks[0 if given[0] else 1], values, seen)
        if node.kind == "prim::Loop":
            return self._loop(node, given, values, seen)
        if node.kind == "prim::SetAttr" or _counts_batches(node, self._program):
            # BatchNorm's own layer counts its batches; nothing else of a network's state is a number.
            return given[0]
        if node.outputs and node.outputs[0] in self._layers:
            # An embedding names its table first, every other layer its input.
            return self.get_submodule(self._layers[node.outputs[0]])(given[node.kind == "aten::embedding"])
        if node.kind in _DROPOUTS:
            given = [given[0], given[1], self.training]
        if node.kind == "aten::batch_norm" and node.inputs[5] in self._program.constants:
            given = [*given[:5], self.training, *given[6:]]
        return call(node.kind, node.overload, node.keywords, given)

    def _loop(self, node: Node, given: list[Any], values: dict[str, Any], seen: dict[str, list[Any]] | None) -> Any:
        most, going, *carried = given
        body = node.blocks[0]
        turn = 0
        while turn < most and going:
            values.update(zip(body.inputs, [turn, *carried], strict=True))
            found = self._run(body, values, seen)
            going, *carried = found if isinstance(found, tuple) else (found,)
            turn += 1
        return carried[0] if len(node.outputs) == 1 else tuple(carried)

    def _layer_path(self, node: Node) -> str | None:
        """Return the submodule whose weight, and bias if any, a node reads; None where it is not one submodule's."""
        places = {"aten::batch_norm": (1, 2), "aten::embedding": (0, None), "aten::linear": (1, 2)}
        if node.kind in _CONVOLUTIONS:
            weight, bias = 1, 2
        elif node.kind in places:
            weight, bias = places[node.kind]  # type: ignore[assignment]  # an embedding has no bias
        else:
            return None
        held = self._program.attributes.get(node.inputs[weight])
        if held is None or held.name != "weight" or not held.path:
            return None
        if bias is not None and node.inputs[bias] not in self._program.constants:
            other = self._program.attributes.get(node.inputs[bias])
            if other is None or other != Attribute(held.path, "bias"):
                return None
        return held.path


# Whoever traces a module again reads from the parameters of its forward how many inputs it takes.
class _One(ScriptNetwork):
    def forward(self, a: Tensor) -> Any:
        return self.answer(a)


class _Two(ScriptNetwork):
    def forward(self, a: Tensor, b: Tensor) -> Any:
        return self.answer(a, b)


class _Three(ScriptNetwork):
    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Any:
        return self.answer(a, b, c)


class _Four(ScriptNetwork):
    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Any:
        return self.answer(a, b, c, d)


_BY_INPUTS: dict[int, type[ScriptNetwork]] = {1: _One, 2: _Two, 3: _Three, 4: _Four}


def script_network(script: torch.jit.ScriptModule, inputs: int | None = None) -> ScriptNetwork:
    """Return the module that computes what a script module computes.

    Args:
        script: with its parameters.
        inputs: how many of its inputs are given; by default all.

    Raises:
        ModelError: it takes none, or more than four.
    """
    count = inputs or len(list(script.inlined_graph.inputs())) - 1
    if count not in _BY_INPUTS:
        raise ModelError(f"the TorchScript program takes {count} inputs; expected one to four.")
    return _BY_INPUTS[count](script)


def _grown(root: nn.Module, path: str) -> nn.Module:
    holder = root
    for name in path.split("."):
        if name not in holder._modules:
            holder.add_module(name, nn.Module())
        holder = getattr(holder, name)
    return holder


def _numbers(script: torch.jit.ScriptModule, program: Program) -> dict[str, Any]:
    """Return the attributes that are neither tensors nor the mode."""
    parts = dict(script.named_modules())
    numbers = {}
    for attribute in program.attributes.values():
        value = getattr(parts[attribute.path], attribute.name)
        if attribute.name != "training" and not isinstance(value, Tensor):
            numbers[attribute.dotted] = value
    return numbers


def _lists(script: torch.jit.ScriptModule, numbers: dict[str, Any]) -> dict[str, list[str]]:
    """Return the attributes that are lists of parameters, as recurrent layers keep them, by the parameters' names."""
    names = {parameter.data_ptr(): name for name, parameter in script.named_parameters()}
    return {
        dotted: [names[part.data_ptr()] for part in value]
        for dotted, value in numbers.items()
        if isinstance(value, list)
        and value
        and all(isinstance(part, Tensor) and part.data_ptr() in names for part in value)
    }


def _all_nodes(block: Block) -> list[Node]:
    return [inner for node in block.nodes for inner in (node, *(n for b in node.blocks for n in _all_nodes(b)))]


def _counts_batches(node: Node, program: Program) -> bool:
    held = program.attributes.get(node.inputs[0]) if node.inputs and node.kind in ("aten::add_", "aten::add") else None
    return held is not None and held.name == "num_batches_tracked"


def _baked(program: Program) -> bool | None:
    """Return the mode that BatchNorm and dropout were traced in; None where there is none, or the file follows it."""
    places = {"aten::batch_norm": 5, **dict.fromkeys(_DROPOUTS, 2)}
    flags = [
        program.constants.get(node.inputs[places[node.kind]], _MISSING)
        for node in _all_nodes(program.body)
        if node.kind in places
    ]
    known = [flag for flag in flags if flag is not _MISSING]
    return None if not known else any(known)


def _layer(node: Node, values: list[Any]) -> nn.Module | None:
    """Return the layer that computes what a node computes, with weights of its own; None where there is none."""
    make: dict[str, Callable[[list[Any]], nn.Module | None]] = {
        "aten::linear": _linear,
        "aten::batch_norm": _batch_norm,
        "aten::embedding": _embedding,
    }
    return make[node.kind](values) if node.kind in make else _convolution(node.kind, values)


def _linear(values: list[Any]) -> nn.Module:
    outputs, inputs = values[1].shape
    return nn.Linear(inputs, outputs, bias=values[2] is not None)


def _batch_norm(values: list[Any]) -> nn.Module | None:
    x, weight, _, mean, _, _, momentum, eps = values[:8]
    kind = _BY_RANK.get(max(x.dim(), 3))
    if kind is None or not isinstance(momentum, float) or mean is None:
        return None
    return kind[1](len(mean), eps=eps, momentum=momentum, affine=weight is not None)


def _embedding(values: list[Any]) -> nn.Module | None:
    weight, _, padding, by_frequency, sparse = values
    if by_frequency or sparse:
        return None
    count, width = weight.shape
    return nn.Embedding(count, width, padding_idx=padding if padding >= 0 else None)


def _convolution(kind: str, values: list[Any]) -> nn.Module | None:
    if kind == "aten::_convolution":
        _, weight, bias, stride, padding, dilation, transposed, _, groups = values[:9]
        if transposed:
            return None
    else:
        _, weight, bias, stride, padding, dilation, groups = values
    layer = _BY_RANK.get(weight.dim())
    if layer is None:
        return None
    outputs, inputs, *kernel = weight.shape
    shape = {"kernel_size": tuple(kernel), "stride": tuple(stride), "dilation": tuple(dilation), "groups": groups}
    shape["padding"] = padding if isinstance(padding, str) else tuple(padding)
    return layer[0](inputs * groups, outputs, bias=bias is not None, **shape)


def _take_over(layer: nn.Module, holder: nn.Module) -> None:
    """Give a layer the tensors, and so the names, of what stood in its place."""
    for name in list(layer._parameters):
        layer._parameters[name] = holder._parameters.get(name)
    for name in list(layer._buffers):
        if name in holder._buffers:
            layer._buffers[name] = holder._buffers[name]
        else:
            layer._buffers[name] = None
            layer._non_persistent_buffers_set.discard(name)
    layer.train(holder.training)
