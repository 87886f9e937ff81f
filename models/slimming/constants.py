"""The numbers in a network's forward that stand for sizes (view targets, splits, slices, padding), set anew."""

from __future__ import annotations

import operator
from collections.abc import Mapping
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, fx

from ...errors import UnsupportedError
from .kept import Flags
from .marks import kept_along


def set_constants(graph: fx.Graph, values: Mapping[fx.Node, Any]) -> bool:
    """Give every node that names a size the one that is left, in place.

    Args:
        graph: the dense network's.
        values: node -> its marked value (:func:`.marks.find_marks`).

    Returns:
        Whether anything had to change.

    Raises:
        UnsupportedError: a node whose sizes cannot be told.
    """
    changed = False
    for node in list(graph.nodes):
        name = node.target if isinstance(node.target, str) else getattr(node.target, "__name__", "")
        if node.op not in ("call_function", "call_method"):
            continue
        if name in ("view", "reshape", "expand"):
            changed |= _sizes(node, values)
        elif name in ("split", "split_with_sizes", "chunk"):
            changed |= _parts(node, values, name)
        elif node.target is operator.getitem:
            changed |= _window(node, values)
        elif name == "pad" and node.op == "call_function":
            changed |= _padding(node, values)
        elif name in ("group_norm", "narrow", "select", "index_select", "repeat", "unflatten", "pixel_shuffle"):
            _refuse(node, values)
    return changed


def _flags(node: fx.Node, values: Mapping[fx.Node, Any]) -> list[Flags | None]:
    value = values[node]
    return kept_along(node, value) if isinstance(value, Tensor) else []


def _refuse(node: fx.Node, values: Mapping[fx.Node, Any]) -> None:
    touched = [flags for operand in node.all_input_nodes for flags in _flags(operand, values)]
    if any(flags is not None for flags in touched):
        raise UnsupportedError(
            f"the network's '{node.name}' ({node.target}) reads channels that were removed, and its sizes cannot be "
            "set anew, so the torch module cannot be slimmed; --to onnx-slim can."
        )


def _sizes(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    flat = len(node.args) == 2 and isinstance(node.args[1], (tuple, list))
    if "shape" in node.kwargs or "size" in node.kwargs:
        _refuse(node, values)
        return False
    sizes = list(node.args[1]) if flat else list(node.args[1:])  # type: ignore[arg-type]  # fx does not type arguments
    new = list(sizes)
    for axis, flags in enumerate(_flags(node, values)):
        size = sizes[axis]
        # A size read from another tensor's shape is that of the dense network too.
        if flags is not None and (values[size] if isinstance(size, fx.Node) else size) == flags.size:
            new[axis] = int(flags.sum())
    if new == sizes:
        return False
    node.args = (node.args[0], tuple(new)) if flat else (node.args[0], *new)
    return True


def _parts(node: fx.Node, values: Mapping[fx.Node, Any], name: str) -> bool:
    pieces = values[node]
    axis = node.kwargs.get("dim", node.args[2] if len(node.args) > 2 else 0)
    if not isinstance(axis, int):
        _refuse(node, values)
        return False
    left = []
    for piece in pieces:
        flags = kept_along(node, piece)[axis]
        left.append(int(piece.shape[axis]) if flags is None else int(flags.sum()))
    if left == [int(piece.shape[axis]) for piece in pieces]:
        return False
    # Equal parts stay equal parts; a number that says how large they are does not.
    if name == "chunk" and len(set(left)) == 1:
        return False
    node.target = torch.split if node.op == "call_function" else "split"
    node.args, node.kwargs = (node.args[0], left), {"dim": axis}
    return True


def _window(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    source, index = node.args
    if not isinstance(source, fx.Node) or not isinstance(values[source], Tensor):
        return False
    entries = list(index) if isinstance(index, tuple) else [index]
    if not any(flags is not None for flags in _flags(source, values)):
        return False
    if any(not isinstance(entry, (slice, int)) and entry is not Ellipsis and entry is not None for entry in entries):
        _refuse(node, values)
    if Ellipsis in entries:
        place = entries.index(Ellipsis)
        missing = values[source].dim() - sum(entry is not None and entry is not Ellipsis for entry in entries)
        entries[place : place + 1] = [slice(None)] * missing
    new, axis = list(entries), 0
    for position, entry in enumerate(entries):
        if entry is None:
            continue
        flags = _flags(source, values)[axis]
        axis += 1
        if flags is None or entry == slice(None):
            continue
        if not isinstance(entry, slice) or entry.step not in (None, 1):
            _refuse(node, values)
            continue
        bounds = (entry.start, entry.stop)
        if any(not isinstance(bound, int) and bound is not None for bound in bounds):
            _refuse(node, values)
            continue
        start, stop, _ = slice(*bounds).indices(flags.size)
        new[position] = slice(int(flags[:start].sum()), int(flags[:stop].sum()))
    if new == entries:
        return False
    node.args = (source, tuple(new))
    return True


def _padding(node: fx.Node, values: Mapping[fx.Node, Any]) -> bool:
    amounts = node.args[1] if len(node.args) > 1 else node.kwargs.get("pad")
    kept = _flags(node, values)
    if not any(flags is not None for flags in kept):
        return False
    if not isinstance(amounts, (tuple, list)) or not all(isinstance(amount, int) for amount in amounts):
        _refuse(node, values)
        return False
    new = list(amounts)
    for pair in range(len(new) // 2):
        flags = kept[len(kept) - 1 - pair]
        if flags is None:
            continue
        before, after = int(new[2 * pair]), int(new[2 * pair + 1])
        if before < 0 or after < 0:
            _refuse(node, values)
        new[2 * pair] = int(flags[:before].sum())
        new[2 * pair + 1] = int(flags[flags.size - after :].sum()) if after else 0
    node.target, node.args, node.kwargs = F.pad, (node.args[0], tuple(new), *node.args[2:]), dict(node.kwargs)
    node.kwargs = {key: value for key, value in node.kwargs.items() if key != "pad"}
    return tuple(new) != tuple(amounts)
