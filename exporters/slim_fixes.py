"""What an operator must be told when an axis it handles has lost indices: groups, targets, sizes, bounds, indices."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import numpy as np
import onnx

from ..errors import UnsupportedError
from ..models.graph.trace import Node
from .slim_cut import Cut

Fix = Callable[[Cut, Node, onnx.NodeProto], None]


def fix_nodes(cut: Cut) -> None:
    """Adapt every operator of the graph to the cut."""
    protos = list(cut.model.graph.node)
    for node in cut.dimensions.nodes:
        fix = _FIXES.get(node.op)
        if fix is not None and any(name in cut.kept for name in (*node.inputs, *node.outputs)):
            fix(cut, node, protos[node.index])


def set_attribute(proto: onnx.NodeProto, name: str, value: int | list[int] | None) -> None:
    """Replace an attribute, or remove it when ``value`` is None."""
    kept = [attribute for attribute in proto.attribute if attribute.name != name]
    del proto.attribute[:]
    proto.attribute.extend(kept)
    if value is not None:
        proto.attribute.append(onnx.helper.make_attribute(name, value))


def _set_integers(
    cut: Cut, node: Node, proto: onnx.NodeProto, position: int, attribute: str, values: list[int]
) -> None:
    """Replace a list of integers where the operator has it: in an input (newer opsets) or an attribute."""
    if attribute in node.attributes:
        set_attribute(proto, attribute, values)
        return
    while len(proto.input) <= position:
        proto.input.append("")
    name = proto.input[position]
    old = cut.dimensions.shapes.constants.get(name)
    kind = old.dtype if old is not None else np.dtype(np.int64)
    proto.input[position] = cut.add(np.array(values, kind), name or f"{node.outputs[0]}.{attribute}")


def _integers(cut: Cut, node: Node, position: int, attribute: str) -> list[int] | None:
    if attribute in node.attributes:
        return [int(v) for v in node.attributes[attribute]]
    value = cut.dimensions.shapes.constants.get(node.input(position)) if node.input(position) else None
    return None if value is None else [int(v) for v in value.reshape(-1)]


def _patch(cut: Cut, proto: onnx.NodeProto, position: int, entries: Mapping[int, int], length: int) -> None:
    """Overwrite single entries of a shape that is computed while the network runs."""
    mask, values = np.zeros(length, np.bool_), np.zeros(length, np.int64)
    for index, value in entries.items():
        mask[index], values[index] = True, value
    name = proto.input[position]
    target = f"{proto.output[0]}.target"
    where = onnx.helper.make_node(
        "Where", [cut.add(mask, f"{target}.mask"), cut.add(values, target), name], [target], f"{proto.name}.target"
    )
    cut.model.graph.node.append(where)
    proto.input[position] = target


def _convolution(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    if int(node.attributes.get("group", 1)) == 1:
        return
    side = node.outputs[0] if node.op == "ConvTranspose" else node.inputs[0]
    set_attribute(proto, "group", cut.extents(side)[1] // cut.extents(node.inputs[1])[1])


def _group_normalisation(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    flags = cut.keep(node.inputs[0], 1)
    if flags is not None:
        groups = flags.reshape(int(node.attributes["num_groups"]), -1).any(axis=1)
        set_attribute(proto, "num_groups", int(groups.sum()))


def _reshape(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    output = node.outputs[0]
    if output not in cut.kept:
        return
    shapes = cut.dimensions.shapes
    extents, dynamic = cut.extents(output), shapes.dynamic[output]
    fixed = {axis: extent for axis, extent in enumerate(extents) if not dynamic[axis]}
    target = shapes.constants.get(node.inputs[1])
    if target is not None and node.inputs[1] in shapes.static:
        # Entries of dynamic axes are 0 or -1 in a constant target and stay so.
        _set_integers(
            cut, node, proto, 1, "shape", [fixed.get(axis, int(entry)) for axis, entry in enumerate(target.tolist())]
        )
        return
    cut_dynamic = [axis for axis, flag in enumerate(cut.kept[output]) if flag is not None and dynamic[axis]]
    free = [axis for axis in range(len(extents)) if dynamic[axis]]
    if len(free) <= 1:
        _set_integers(cut, node, proto, 1, "shape", [fixed.get(axis, -1) for axis in range(len(extents))])
        return
    if len(cut_dynamic) > 1:
        raise UnsupportedError(f"{node} has two dimensions that both shrink and depend on the input's extents.")
    _patch(cut, proto, 1, fixed | dict.fromkeys(cut_dynamic, -1), len(extents))


def _expand(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    output = node.outputs[0]
    if output not in cut.kept:
        return
    shapes = cut.dimensions.shapes
    (length,) = shapes.extents[node.inputs[1]]
    lead = len(cut.kept[output]) - length
    before = shapes.extents[node.inputs[0]]
    entries = {}
    for axis, flag in enumerate(cut.kept[output]):
        if flag is not None and axis >= lead:
            source = axis - (len(cut.kept[output]) - len(before))
            # Extent 1 in an Expand target leaves the input's extent alone.
            entries[axis - lead] = int(flag.sum()) if source < 0 or before[source] == 1 else 1
    target = shapes.constants.get(node.inputs[1])
    if target is not None and node.inputs[1] in shapes.static:
        _set_integers(cut, node, proto, 1, "shape", [entries.get(k, int(v)) for k, v in enumerate(target.tolist())])
    elif entries:
        _patch(cut, proto, 1, entries, length)


def _filled(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    _set_integers(cut, node, proto, 0, "shape", list(cut.extents(node.outputs[0])))


def _split(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    axis = int(node.attributes.get("axis", 0)) % len(cut.dimensions.shapes.extents[node.inputs[0]])
    if cut.keep(node.inputs[0], axis) is None:
        return
    set_attribute(proto, "num_outputs", None)
    sizes = [cut.extents(name)[axis] for name in node.outputs]
    version = next((o.version for o in cut.model.opset_import if o.domain in ("", "ai.onnx")), 13)
    if version < 13:
        set_attribute(proto, "split", sizes)
    else:
        _set_integers(cut, node, proto, 1, "", sizes)


def _slice(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    starts, ends = _integers(cut, node, 1, "starts"), _integers(cut, node, 2, "ends")
    if starts is None or ends is None:
        return
    axes = _integers(cut, node, 3, "axes") or list(range(len(starts)))
    rank = len(cut.dimensions.shapes.extents[node.inputs[0]])
    changed = False
    for position, axis in enumerate(axes):
        flags = cut.keep(node.inputs[0], axis % rank)
        if flags is None:
            continue
        window = range(flags.size)[starts[position] : ends[position]]
        starts[position] = int(flags[: window.start].sum())
        ends[position] = int(flags[: max(window.stop, window.start)].sum())
        changed = True
    if changed:
        _set_integers(cut, node, proto, 1, "starts", starts)
        _set_integers(cut, node, proto, 2, "ends", ends)


def _gather(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    axis = int(node.attributes.get("axis", 0)) % len(cut.dimensions.shapes.extents[node.inputs[0]])
    flags = cut.keep(node.inputs[0], axis)
    if flags is None:
        return
    indices = cut.dimensions.shapes.constants[node.inputs[1]].astype(np.int64) % flags.size
    position = np.cumsum(flags) - 1
    proto.input[1] = cut.add(position[indices[flags[indices]]].astype(np.int64), node.inputs[1])


def _pad(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    pads = _integers(cut, node, 1, "pads")
    if pads is None or node.outputs[0] not in cut.kept:
        return
    rank = len(cut.kept[node.outputs[0]])
    axes = _integers(cut, node, 3, "axes") or list(range(rank))
    for position, axis in enumerate(axes):
        flags = cut.keep(node.outputs[0], axis % rank)
        if flags is not None:
            before, after = pads[position], pads[position + len(axes)]
            pads[position] = int(flags[:before].sum())
            pads[position + len(axes)] = int(flags[flags.size - after :].sum()) if after else 0
    _set_integers(cut, node, proto, 1, "pads", pads)


def _resize(cut: Cut, node: Node, proto: onnx.NodeProto) -> None:
    if not node.input(3) or node.outputs[0] not in cut.kept or "axes" in node.attributes:
        return
    flags = cut.kept[node.outputs[0]]
    entries = {axis: int(flag.sum()) for axis, flag in enumerate(flags) if flag is not None}
    sizes = _integers(cut, node, 3, "sizes")
    if sizes is not None and node.input(3) in cut.dimensions.shapes.static:
        _set_integers(cut, node, proto, 3, "sizes", [entries.get(axis, size) for axis, size in enumerate(sizes)])
    else:
        _patch(cut, proto, 3, entries, len(flags))


_FIXES: dict[str, Fix] = {
    "Conv": _convolution,
    "ConvTranspose": _convolution,
    "GroupNormalization": _group_normalisation,
    "Reshape": _reshape,
    "Expand": _expand,
    "ConstantOfShape": _filled,
    "Split": _split,
    "Slice": _slice,
    "Gather": _gather,
    "Pad": _pad,
    "Resize": _resize,
}
