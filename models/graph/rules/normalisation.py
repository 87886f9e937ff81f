"""Normalisations: channel by channel ones pass cells on, those across channels fix the extent."""

from __future__ import annotations

import numpy as np

from ..effects import Map, Merge, Values, unknown
from ..layout import Ids, Layout, covered
from ..trace import Node, NotFollowedError, Trace


def batch_normalisation(trace: Trace, node: Node) -> None:
    """Follow BatchNormalization in inference mode: a scale and a shift for each channel."""
    if node.attributes.get("training_mode", 0):
        raise NotFollowedError("it is in training mode")
    epsilon = float(node.attributes.get("epsilon", 1e-5))

    def function(x: Values, scale: Values, shift: Values, mean: Values, variance: Values) -> Values:
        factor = scale / np.sqrt(variance + epsilon)
        return np.where(factor == 0, shift, factor * (x - mean) + shift)

    _per_channel(trace, node, function)


def instance_normalisation(trace: Trace, node: Node) -> None:
    """Follow InstanceNormalization: a constant channel becomes its shift."""

    def function(x: Values, scale: Values, shift: Values) -> Values:
        return np.where((scale == 0) | ~np.isnan(x), shift, np.nan)

    _per_channel(trace, node, function)


def _per_channel(trace: Trace, node: Node, function: object) -> None:
    data = trace.layout(node.inputs[0])
    for axis in range(len(data.shape)):
        if axis != 1:
            data = trace.rigid(data, axis, f"{node} normalises over it")
    rank = len(data.shape)
    parameters = []
    for name in node.inputs[1:]:
        line = trace.layout(name)
        place = [1] * rank
        place[1] = line.shape[0]
        parameters.append(Layout(tuple(place), tuple(factor.reshape(place) for factor in line.factors)))
    data = Layout((1, data.shape[1], *([1] * (rank - 2))), data.factors)
    factors = []
    for row in trace.align([data, *parameters], str(node)):
        result = trace.joined(row, node)
        inputs = tuple(float("nan") if ids is None else ids.reshape(-1) for ids in row)
        trace.effects.append(Map(inputs, result.reshape(-1), function))  # type: ignore[arg-type]  # same array in both
        factors.append(result)
    trace.define(node.outputs[0], factors)


def group_normalisation(trace: Trace, node: Node) -> None:
    """Follow GroupNormalization: whole groups of channels can go."""
    data = trace.layout(node.inputs[0])
    groups = int(node.attributes["num_groups"])
    for axis in range(len(data.shape)):
        if axis != 1:
            data = trace.rigid(data, axis, f"{node} normalises over it")
    if data.on(1) is None:
        trace.fix(node.inputs[1], f"{node} meets a dimension of fixed extent")
        trace.fix(node.inputs[2], f"{node} meets a dimension of fixed extent")
        trace.define(node.outputs[0], [])
        return
    line = data.line(1).reshape(groups, -1)
    reason = f"{node} normalises over groups of channels"
    trace.cells.tie(line, line[:, :1], reason)
    slabs = trace.cells.fresh([groups])
    trace.cells.tie(line, slabs[:, None], reason)
    trace.effects.append(Merge(line, slabs))
    parameters = []
    for name in node.inputs[1:3]:
        cells = trace.layout(name).line(0)
        # Up to opset 20 one scale a group, from 21 on one a channel.
        parameters.append(np.repeat(cells, line.size // cells.size).reshape(line.shape))
        trace.cells.tie(parameters[-1], slabs[:, None], reason)
    result = trace.cells.fresh(line.shape)
    trace.cells.tie(result, slabs[:, None], reason)
    spread = np.broadcast_to(slabs[:, None], line.shape)

    def function(x: Values, scale: Values, shift: Values) -> Values:
        return np.where((scale == 0) | ~np.isnan(x), shift, np.nan)

    trace.effects.append(
        Map((spread.reshape(-1), parameters[0].reshape(-1), parameters[1].reshape(-1)), result.reshape(-1), function)
    )
    trace.define(node.outputs[0], [result.reshape([-1 if axis == 1 else 1 for axis in range(len(data.shape))])])


def across(trace: Trace, node: Node) -> None:
    """Follow what normalises along given axes (LayerNormalization, Softmax, LRN ...): these axes keep their extent."""
    data = trace.layout(node.inputs[0])
    rank = len(data.shape)
    reason = f"{node} normalises over it"
    for axis in _normalised_axes(node, rank):
        data = trace.rigid(data, axis, reason)
    for name in node.inputs[1:]:
        if name:
            trace.fix(name, reason)
    trace.through(node, data, node.outputs[0], unknown)
    for name in node.outputs[1:]:
        if name:
            kept: list[Ids] = [factor for factor in trace.layouts[node.outputs[0]].factors if covered(factor)]
            trace.define(name, kept)


def _normalised_axes(node: Node, rank: int) -> list[int]:
    if node.op in ("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization"):
        return list(range(int(node.attributes.get("axis", -1)) % rank, rank))
    if node.op in ("LpNormalization", "Softmax", "LogSoftmax", "Hardmax", "CumSum"):
        return [int(node.attributes.get("axis", -1)) % rank]
    return list(range(1, rank))


def cumulative(trace: Trace, node: Node) -> None:
    """Follow CumSum along a constant axis."""
    axis = trace.constant(node.inputs[1])
    if axis is None:
        raise NotFollowedError("its axis is computed while the network runs")
    data = trace.layout(node.inputs[0])
    data = trace.rigid(data, int(axis.reshape(-1)[0]) % len(data.shape), f"{node} sums along it")
    trace.through(node, data, node.outputs[0], unknown)


_ACROSS = (
    *("LayerNormalization", "RMSNormalization", "SimplifiedLayerNormalization", "LpNormalization"),
    *("Softmax", "LogSoftmax", "Hardmax", "LRN", "MeanVarianceNormalization"),
)
RULES = {
    "BatchNormalization": batch_normalisation,
    "InstanceNormalization": instance_normalisation,
    "GroupNormalization": group_normalisation,
    "CumSum": cumulative,
    **dict.fromkeys(_ACROSS, across),
}
