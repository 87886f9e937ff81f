"""The ends of an export: a network lowered with a checkpoint's weights in it, and the finished file."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx

from ...compressor.checkpoint import SparseCheckpoint
from ...errors import UnsupportedError
from ...files import atomic_path, canonical_json, refuse_existing
from ..container import PREFIX
from ..manifest import Manifest, manifest_json
from ..onnx_seal import KEY, seal
from .emitter import Emitter

if TYPE_CHECKING:
    from ...models.source import ModelSource


def lowered(source: ModelSource, checkpoint: SparseCheckpoint) -> onnx.ModelProto:
    """Return the network as an ONNX model whose initializers hold the checkpoint's dense weights.

    An ONNX source is patched in a copy; tensors of its Constant nodes become initializers.

    Raises:
        ModelError: the checkpoint does not fit the network, or the network cannot be traced.
    """
    from ...models.source import OnnxSource
    from ..onnx_dense import lower

    state = checkpoint.dense_state()
    if not isinstance(source, OnnxSource):
        return lower(source, state)
    with tempfile.TemporaryDirectory() as folder:
        patched = Path(folder) / "model.onnx"
        source.write(patched, state)
        model: onnx.ModelProto = onnx.load(patched)
    # What the original says about itself is not true of the copy.
    foreign = [entry for entry in model.metadata_props if entry.key != KEY.decode()]
    del model.metadata_props[:]
    model.metadata_props.extend(foreign)
    graph = model.graph
    kept = [node for node in graph.node if not _becomes_initializer(graph, node, set(state))]
    replace_nodes(graph, kept)
    return model


def _becomes_initializer(graph: onnx.GraphProto, node: onnx.NodeProto, names: set[str]) -> bool:
    """Turn a Constant node that holds one of the checkpoint's tensors into an initializer; tell whether it did."""
    if node.op_type != "Constant" or node.output[0] not in names:
        return False
    for attribute in node.attribute:
        if attribute.name == "value":
            tensor = graph.initializer.add()
            tensor.CopyFrom(attribute.t)
            tensor.name = node.output[0]
            return True
    return False


def replace_nodes(graph: onnx.GraphProto, nodes: list[onnx.NodeProto]) -> None:
    """Give a graph other nodes; they may be its own."""
    copies = [onnx.NodeProto.FromString(node.SerializeToString()) for node in nodes]
    del graph.node[:]
    graph.node.extend(copies)


def standard_opset(model: onnx.ModelProto) -> int:
    """Return the version of the standard operators that a model uses."""
    return max((entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")), default=0)


def value_names(graph: onnx.GraphProto) -> set[str]:
    """Return every name that the graph, or a graph inside it, gives to a value."""
    names = {value.name for value in graph.input} | {tensor.name for tensor in graph.initializer}
    for node in graph.node:
        names.update(node.output)
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                names |= value_names(body)
    return names


def insert(graph: onnx.GraphProto, emitter: Emitter, replaced: set[str]) -> None:
    """Put the emitter's nodes before the graph's own, and its initializers in place of ``replaced``."""
    replace_nodes(graph, [*emitter.nodes, *graph.node])
    kept = [tensor for tensor in graph.initializer if tensor.name not in replaced]
    graph.value_info.extend(emitter.declared)
    copies = []
    for tensor in (*kept, *emitter.initializers):
        copy = onnx.TensorProto()
        copy.CopyFrom(tensor)
        copies.append(copy)
    del graph.initializer[:]
    graph.initializer.extend(copies)
    # Before IR version 4 every initializer had to be listed as an input as well.
    inputs = [value for value in graph.input if value.name not in replaced]
    if len(inputs) != len(graph.input):
        listed = [onnx.ValueInfoProto.FromString(value.SerializeToString()) for value in inputs]
        del graph.input[:]
        graph.input.extend(listed)


def write_model(
    model: onnx.ModelProto, path: Path, format: str, version: int, manifest: Manifest, *, force: bool
) -> None:
    """Write a model behind a sealed entry with its manifest; large models put their tensors beside it.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
    """
    from ...models.graph.lowering import SINGLE_FILE_BYTES, write_onnx

    refuse_existing(path, force)
    described = msgspec.json.decode(manifest_json(manifest))
    content = canonical_json({"format": PREFIX + format, "version": version, "manifest": described})
    # Asking protobuf for the size of a message beyond its limit is an error by itself.
    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) < SINGLE_FILE_BYTES:
        body = model.SerializeToString(deterministic=True)
    else:
        write_onnx(model, path, force=force)
        body = path.read_bytes()
    # One after the other: put together first, a large model would be in memory once more.
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(seal(content, body))
        stream.write(body)


def require_opset(model: onnx.ModelProto, least: int) -> int:
    """Return the model's opset.

    Raises:
        UnsupportedError: it is older than ``least``.
    """
    opset = standard_opset(model)
    if opset < least:
        raise UnsupportedError(
            f"the ONNX model uses opset {opset}; a graph that unpacks itself needs opset {least} or later. Export the "
            "original network again with a newer opset, or export to 'onnx'."
        )
    return opset
