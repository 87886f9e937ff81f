"""Why widths stay, in few lines: equal couplings told once, each with what the user can do about it."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_OPERATOR = re.compile(r"(?P<op>[\w.]+) '(?P<label>.*?)' (?P<clause>.*)")
# The first clause that a reason holds decides; couplings without an entry speak for themselves.
_ADVICE = (
    ("graph's output", "the result would have another shape: train a network with fewer outputs"),
    ("reads a dimension of fixed extent", "it follows from the graph's input or from another width that stays"),
    (
        "normalises over it",
        "mean and variance of the others would change: slim the heads and neurons inside the blocks",
    ),
    ("looks its rows up", "rows of a table (words, positions): cut the table itself where rows are never used"),
    ("keeps its groups of equal size", "remove whole groups, or the same channel of every group"),
    ("keeps its hidden units", "build the recurrent layer with fewer units; what is before and after it shrinks"),
    ("meets a dimension of fixed extent", "its other operand is an input, or a constant that cannot shrink"),
    ("is not followed", "write that part with other operators, or convert the graph to plain ONNX operators first"),
    ("computed while the network runs", "export with fixed shapes, so that the bounds are constants"),
    ("flattens", "split the dimension before it is flattened"),
)


def explained(units: Mapping[str, int] | Iterable[str]) -> list[tuple[str, int]]:
    """Tell equal couplings once.

    Args:
        units: reason -> number of units that stay for it (or reasons alone, which count 1 each); a reason completes
            "it stays because ...".

    Returns:
        (sentence, units), those of most units first: the coupling, the operators that make it, and what to do.
    """
    counts = dict(units) if isinstance(units, Mapping) else dict.fromkeys(units, 1)
    kinds: dict[tuple[str, str], list[str]] = {}
    total: dict[tuple[str, str], int] = {}
    for reason, count in counts.items():
        match = _OPERATOR.fullmatch(reason)
        kind = (match["op"], match["clause"]) if match else ("", reason)
        label = match["label"] if match else ""
        if label not in kinds.setdefault(kind, []):
            kinds[kind].append(label)
        total[kind] = total.get(kind, 0) + count
    ranked = sorted(total, key=lambda kind: -total[kind])
    return [(_sentence(*kind, kinds[kind]), total[kind]) for kind in ranked]


def _sentence(op: str, clause: str, labels: list[str]) -> str:
    more = f" (and {len(labels) - 1} more)" if len(labels) > 1 else ""
    text = f"{op} '{labels[0]}'{more} {clause}" if op else clause
    advice = next((what for key, what in _ADVICE if key in clause), "")
    return f"{text} ({advice})" if advice else text
