"""Activations that a graph writes as several nodes: SiLU, and Gelu by the error function."""

from __future__ import annotations

import math

import onnx

from .graph import Graph

# Constants of float32 graphs are rounded, and some exporters write four digits.
_TOLERANCE = 1e-3

Found = tuple[str, list[onnx.NodeProto]]


def silu(graph: Graph, name: str) -> Found | None:
    """Return activation and nodes where a value is read by ``x * sigmoid(x)`` and nothing else."""
    gate, product = _two(graph, name, "Sigmoid", "Mul")
    if gate is None or product is None or set(product.input) != {name, gate.output[0]}:
        return None
    return ("Silu", [gate, product]) if graph.only_reader(gate.output[0]) is product else None


def gelu(graph: Graph, name: str) -> Found | None:
    """Return activation and nodes where a value is read by ``0.5 x (1 + erf(x / sqrt 2))`` and nothing else.

    The factors may come in any of the orders that exporters write: (x * s) * 0.5, (x * 0.5) * s, x * (s * 0.5), with
    s = 1 + erf.
    """
    for inside, outside in (_ordered(graph, name), _ordered(graph, name)[::-1]):
        if inside is None or outside is None:
            return None
        chain = _one_plus_erf(graph, name, inside)
        if chain is None or outside.op_type != "Mul":
            continue
        rest = _halved_product(graph, name, chain[-1], outside)
        if rest is not None:
            return "Gelu", [*chain, *rest]
    return None


def _ordered(graph: Graph, name: str) -> tuple[onnx.NodeProto | None, onnx.NodeProto | None]:
    readers = graph.readers(name)
    return (readers[0], readers[1]) if len(readers) == 2 else (None, None)


def _two(graph: Graph, name: str, *operators: str) -> tuple[onnx.NodeProto | None, onnx.NodeProto | None]:
    """Return the two readers of a value in the order of their operators; (None, None) where they are others."""
    first, second = _ordered(graph, name)
    for pair in ((first, second), (second, first)):
        if tuple(node.op_type if node is not None else "" for node in pair) == operators:
            return pair
    return None, None


def _one_plus_erf(graph: Graph, name: str, first: onnx.NodeProto) -> list[onnx.NodeProto] | None:
    root = _factor(graph, first, name) if first.op_type == "Mul" else None
    if first.op_type == "Div" and first.input[0] == name:
        divisor = graph.scalar(first.input[1])
        root = 1 / divisor if divisor else None
    erf = graph.only_reader(first.output[0])
    if not _near(root, math.sqrt(0.5)) or erf is None or erf.op_type != "Erf":
        return None
    plus = graph.only_reader(erf.output[0])
    if plus is None or plus.op_type != "Add" or not _near(_factor(graph, plus, erf.output[0]), 1.0):
        return None
    return [first, erf, plus]


def _halved_product(
    graph: Graph, name: str, plus: onnx.NodeProto, outside: onnx.NodeProto
) -> list[onnx.NodeProto] | None:
    """Return the nodes that multiply a value, one half and ``plus``, ending in the activation's own value."""
    term, reader = plus.output[0], graph.only_reader(plus.output[0])
    if reader is None:
        return None
    if reader is outside:
        last = graph.only_reader(outside.output[0])
        product = set(outside.input) == {name, term} and last is not None and last.op_type == "Mul"
        return [outside, last] if product and last and _near(_factor(graph, last, outside.output[0]), 0.5) else None
    if reader.op_type != "Mul":
        return None
    if _near(_factor(graph, outside, name), 0.5) and set(reader.input) == {outside.output[0], term}:
        return [outside, reader] if graph.only_reader(outside.output[0]) is reader else None
    if _near(_factor(graph, reader, term), 0.5) and set(outside.input) == {name, reader.output[0]}:
        return [reader, outside] if graph.only_reader(reader.output[0]) is outside else None
    return None


def _factor(graph: Graph, node: onnx.NodeProto, name: str) -> float | None:
    """Return the constant that a node of two inputs combines a value with."""
    others = [other for other in node.input if other != name]
    return graph.scalar(others[0]) if len(others) == 1 else None


def _near(value: float | None, wanted: float) -> bool:
    return value is not None and abs(value - wanted) <= _TOLERANCE * wanted
