"""Recurrent layers: the input dimension may shrink, hidden units are left alone."""

from __future__ import annotations

import numpy as np

from ..effects import Product
from ..trace import Node, Trace


def recurrent(trace: Trace, node: Node) -> None:
    """Follow LSTM, GRU and RNN: X [time, batch, input] against W [directions, gates, input].

    Hidden units stand in four places of three stacked tensors and in the state that the layer feeds to itself; they
    are pinned.
    """
    data, weight = trace.layout(node.inputs[0]), trace.layout(node.inputs[1])
    reason = f"{node} keeps its hidden units"
    for axis in (0, 1):
        data = trace.rigid(data, axis, reason)
        weight = trace.rigid(weight, axis, reason)
    line, columns = data.line(2), weight.line(2)
    trace.cells.tie(line, columns, f"{node} reads a dimension of fixed extent")
    trace.summed.append(columns)
    trace.effects.append(Product(None, None, np.zeros(1, np.int64), (line, columns)))
    for name in node.inputs[2:]:
        if name:
            trace.fix(name, reason)
    for name in node.outputs:
        if name:
            trace.define(name, [])


RULES = dict.fromkeys(("LSTM", "GRU", "RNN"), recurrent)
