"""A TorchScript program as plain data: nodes, blocks and constants; PyTorch's own graph cannot be copied.

Everything that an inlined graph reads from modules is resolved to dotted paths here, so that what runs it later needs
no script module any more.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch


@dataclass(frozen=True)
class Attribute:
    """A tensor, number or flag of the module at ``path``."""

    path: str
    name: str

    @property
    def dotted(self) -> str:
        """The whole name, as state_dict writes it."""
        return f"{self.path}.{self.name}" if self.path else self.name


@dataclass
class Node:
    """One operation.

    Attributes:
        kind: its name (``aten::relu``).
        overload: which of the operator's forms, for ``aten`` operators.
        inputs: names of values, in the order of the schema.
        keywords: for each input the name that it must be given by, or None.
        outputs: names of values.
        blocks: the bodies of control flow.
        target: what a ``prim::SetAttr`` writes to.
    """

    kind: str
    overload: str
    inputs: list[str]
    keywords: list[str | None]
    outputs: list[str]
    blocks: list[Block] = field(default_factory=list)
    target: Attribute | None = None


@dataclass
class Block:
    """A sequence of operations with inputs and outputs."""

    inputs: list[str]
    nodes: list[Node]
    outputs: list[str]


@dataclass
class Program:
    """A whole program.

    Attributes:
        body: the forward function; its first input is the module itself.
        constants: values known beforehand, by name.
        attributes: values that are read from modules, by name.
    """

    body: Block
    constants: dict[str, Any] = field(default_factory=dict)
    attributes: dict[str, Attribute] = field(default_factory=dict)


def read_program(script: torch.jit.ScriptModule) -> Program:
    """Return the forward function of a script module, with every call of a method put in its place."""
    graph = script.inlined_graph
    program = Program(Block([], [], []))
    inputs = [value.debugName() for value in graph.inputs()]
    program.body = _block(graph, {inputs[0]: ""}, program)
    return program


def _block(source: Any, paths: dict[str, str], program: Program) -> Block:
    nodes: list[Node] = []
    for node in source.nodes():
        _add(node, paths, program, nodes)
    names = [[value.debugName() for value in values()] for values in (source.inputs, source.outputs)]
    return Block(names[0], nodes, names[1])


def _add(node: Any, paths: dict[str, str], program: Program, nodes: list[Node]) -> None:
    kind = node.kind()
    inputs = [value.debugName() for value in node.inputs()]
    outputs = [value.debugName() for value in node.outputs()]
    if kind == "prim::Constant":
        value = node.output().toIValue()
        # A trace wraps numbers that it computes sizes with into tensors.
        plain = isinstance(value, torch.Tensor) and value.dim() == 0 and value.dtype == torch.int64
        program.constants[outputs[0]] = int(value) if plain else value
        return
    if kind == "prim::GetAttr" and inputs[0] in paths:
        path, name = paths[inputs[0]], node.s("name")
        if node.output().type().kind() == "ClassType" and "__torch__" in node.output().type().annotation_str:
            paths[outputs[0]] = f"{path}.{name}" if path else name
        else:
            program.attributes[outputs[0]] = Attribute(path, name)
        return
    overload = ""
    keywords: list[str | None] = [None] * len(inputs)
    if kind.startswith("aten::"):
        schema = torch._C.parse_schema(node.schema())
        overload = schema.overload_name
        keywords = [argument.name if argument.kwarg_only else None for argument in schema.arguments][: len(inputs)]
    target = None
    if kind == "prim::SetAttr" and inputs[0] in paths:
        target = Attribute(paths[inputs[0]], node.s("name"))
    blocks = [_block(block, paths, program) for block in node.blocks()]
    nodes.append(Node(kind, overload, inputs, keywords, outputs, blocks, target))
