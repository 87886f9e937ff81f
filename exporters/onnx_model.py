"""The ends of every ONNX export: a network lowered with a checkpoint's weights in it, and the finished, sealed file."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import onnx

from ..compressor.checkpoint import SparseCheckpoint
from ..errors import ModelError, UnsupportedError
from ..files import Array, atomic_path, canonical_json, refuse_existing
from .container import PREFIX
from .manifest import Manifest, manifest_json
from .onnx_pieces import pieces
from .onnx_seal import KEY, seal

if TYPE_CHECKING:
    from ..models.source import ModelSource, TorchSource


def lower(source: TorchSource, state: dict[str, Array]) -> onnx.ModelProto:
    """Return the source's network as an ONNX model with these weights in it.

    Raises:
        ModelError: the weights do not fit the network, or it cannot be traced.
    """
    from ..models.graph.lowering import to_onnx
    from ..models.tensors import to_torch

    module = source.build()
    try:
        module.load_state_dict({name: to_torch(array) for name, array in state.items()})
    except RuntimeError as error:
        raise ModelError(f"the checkpoint does not fit the model '{source.record.text}': {error}") from error
    return to_onnx(module.eval(), source.example_inputs(2), source.record.inputs)


def lowered(source: ModelSource, checkpoint: SparseCheckpoint) -> onnx.ModelProto:
    """Return the network as an ONNX model whose initializers hold the checkpoint's dense weights.

    An ONNX source is patched in a copy; tensors of its Constant nodes become initializers.

    Raises:
        ModelError: the checkpoint does not fit the network, or the network cannot be traced.
    """
    from ..models.source import OnnxSource

    state = checkpoint.dense_state()
    if not isinstance(source, OnnxSource):
        return lower(source, state)
    with tempfile.TemporaryDirectory() as folder:
        patched = Path(folder) / "model.onnx"
        source.write(patched, state)
        model: onnx.ModelProto = onnx.load(patched)
    drop_seal(model)
    graph = model.graph
    for tensor in graph.initializer:
        # Weights may also stand in typed lists; the formats lay out bytes.
        if tensor.name in state and not tensor.HasField("raw_data"):
            tensor.CopyFrom(onnx.numpy_helper.from_array(onnx.numpy_helper.to_array(tensor), tensor.name))
    kept = [node for node in graph.node if not _becomes_initializer(graph, node, set(state))]
    replace_nodes(graph, kept)
    return model


def drop_seal(model: onnx.ModelProto) -> None:
    """Remove the entry in which a file of ours says what it is: it is not true of a copy that is being changed."""
    foreign = [entry for entry in model.metadata_props if entry.key != KEY.decode()]
    del model.metadata_props[:]
    model.metadata_props.extend(foreign)


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


def write_model(
    model: onnx.ModelProto,
    path: Path,
    format: str,
    version: int,
    manifest: Manifest,
    *,
    force: bool,
    more: Mapping[str, Any] | None = None,
) -> None:
    """Write a model behind a sealed entry with its manifest; large models put their tensors beside it.

    Args:
        model: complete.
        path: where to.
        format: the format's name.
        version: and its version.
        manifest: what the entry holds.
        force: whether existing files may be replaced.
        more: what else the entry holds, as plain data.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
        UnsupportedError: sparse initializers, which cannot lie beside the model, take 2 GB.
    """
    from ..models.graph.lowering import SINGLE_FILE_BYTES, write_onnx

    refuse_existing(path, force)
    described = msgspec.json.decode(manifest_json(manifest))
    content = canonical_json({"format": PREFIX + format, "version": version, "manifest": described, **(more or {})})
    # Asking protobuf for the size of a message beyond its limit is an error by itself.
    inside = sum(len(s.values.raw_data) + len(s.indices.raw_data) for s in model.graph.sparse_initializer)
    if inside >= SINGLE_FILE_BYTES:
        raise UnsupportedError("sparse initializers of 2 GB and more do not fit into an ONNX file; leave them dense.")
    if inside + sum(len(tensor.raw_data) for tensor in model.graph.initializer) < SINGLE_FILE_BYTES:
        with atomic_path(path) as temporary, temporary.open("wb") as stream:
            # Twice in pieces, once for the hash: put together, a large model would be in memory once more.
            stream.write(seal(content, pieces(model)))
            stream.writelines(pieces(model))
        return
    write_onnx(model, path, force=force)
    body = path.read_bytes()
    with atomic_path(path) as temporary, temporary.open("wb") as stream:
        stream.write(seal(content, [body]))
        stream.write(body)
