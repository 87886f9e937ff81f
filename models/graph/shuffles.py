"""Channel shuffles: Reshape, Transpose, Reshape that only permute one dimension.

Seen one by one, the tensors between the two reshapes would have to stay rectangular and would couple channels of all
groups. Seen as a whole the three operators are a permutation, which can be rewritten as one Gather for any set of
kept channels, so their interiors couple nothing.
"""

from __future__ import annotations

from collections.abc import Mapping, Set

from .layout import Layout, covered
from .trace import Node


def shuffle_chains(
    nodes: list[Node], layouts: Mapping[str, Layout], outputs: Set[str]
) -> list[tuple[Node, Node, Node]]:
    """Return the (Reshape, Transpose, Reshape) triples that permute a single axis of a tensor.

    Args:
        nodes: operators in graph order.
        layouts: layouts of all tensors.
        outputs: names of the graph's outputs, which must not vanish into a chain.
    """
    readers: dict[str, list[Node]] = {}
    for node in nodes:
        for name in node.inputs:
            readers.setdefault(name, []).append(node)
    chains = []
    for first in nodes:
        if first.op != "Reshape":
            continue
        second = _only(readers, first.outputs[0], "Transpose", outputs)
        third = second and _only(readers, second.outputs[0], "Reshape", outputs)
        if second and third and _permutes(layouts, first.inputs[0], first.outputs[0], third.outputs[0]):
            chains.append((first, second, third))
    return chains


def _only(readers: Mapping[str, list[Node]], name: str, op: str, outputs: Set[str]) -> Node | None:
    found = readers.get(name, [])
    if len(found) == 1 and found[0].op == op and name not in outputs and found[0].inputs[0] == name:
        return found[0]
    return None


def _permutes(layouts: Mapping[str, Layout], before: str, inside: str, after: str) -> bool:
    if not all(name in layouts for name in (before, inside, after)):
        return False
    old, middle, new = layouts[before], layouts[inside], layouts[after]
    if old.shape != new.shape or len(old.factors) != 1 or len(new.factors) != 1 or len(middle.factors) != 1:
        return False
    axes = covered(old.factors[0])
    joint = covered(middle.factors[0])
    # Every element between must belong to one index of the axis: the joint axes hold it entirely.
    return len(axes) == 1 and covered(new.factors[0]) == axes and len(joint) == 2


def shuffle_interiors(nodes: list[Node], layouts: Mapping[str, Layout], outputs: Set[str]) -> frozenset[str]:
    """Return the names of the tensors inside channel shuffles."""
    chains = shuffle_chains(nodes, layouts, outputs)
    return frozenset(name for chain in chains for node in chain[:2] for name in (node.outputs[0],))


__all__ = ["shuffle_chains", "shuffle_interiors"]
