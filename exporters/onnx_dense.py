"""``onnx``: dense values in an ordinary graph, the baseline that every runtime loads.

From a torch source: the module is lowered with the checkpoint's weights in it, and the file begins with our manifest
(:mod:`.onnx_seal`). From an ONNX source: a copy of the original with the pruned initializers' bytes replaced and a
manifest of ours, if it had one, taken out; nothing else is changed. ``fp16`` stores weights in half
precision behind Cast nodes, which runtimes fold away while they load; inputs and arithmetic stay float32.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..compressor.checkpoint import SparseCheckpoint
from ..errors import UnsupportedError
from ..files import Array, refuse_existing, sha256_array
from .manifest import TensorEntry, describe, identity_entry
from .onnx_seal import remove_seal
from .parts import check_values, half, rounds

if TYPE_CHECKING:
    import onnx

    from ..models.source import ModelSource
    from .sparse_initializers import Sparsified

FORMAT = "onnx"
VERSION = 1
_CAST = ":float32"


def write_onnx_dense(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    source: ModelSource,
    values: str = "fp32",
    force: bool = False,
    sparse_initializers: bool = False,
) -> list[Sparsified]:
    """Write a checkpoint as an ONNX model with dense values; frozen and selected weights are materialised.

    Args:
        checkpoint: any checkpoint.
        path: where to; a model above 2 GB has a ``.data`` file beside it.
        source: the network that the checkpoint was made from.
        values: ``fp32`` or ``fp16``.
        force: whether existing files may be replaced.
        sparse_initializers: whether weights become ONNX's own sparse tensors where that is smaller.

    Returns:
        What became of each weight, with ``sparse_initializers``; nothing without.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
        ModelError: the checkpoint's tensors do not fit the network, or it cannot be traced.
        UnsupportedError: an operator without ONNX counterpart, or a value too large for half precision.
    """
    from ..models.source import OnnxSource
    from .onnx_model import lowered, write_model
    from .sparse_initializers import sparsify

    check_values(values)
    refuse_existing(path, force)
    state = checkpoint.dense_state()
    if isinstance(source, OnnxSource):
        if values != "fp32":
            raise UnsupportedError(
                "an ONNX model is pruned in place, only its weights' values change; --values fp16 would change its "
                "graph. Export to 'packed' or 'csr', or with --values fp32."
            )
        if not sparse_initializers:
            source.write(path, state, force=force)
            # A file of ours says what its weights are; the copy has others.
            remove_seal(path)
            return []
    model = lowered(source, checkpoint)
    entries, error = _store(model, checkpoint, state, values)
    described = [(entry, None) for entry in entries]
    lossy = None if values == "fp32" else error
    manifest = describe(checkpoint.metadata, described, values=values, max_abs_error=lossy, chain=False)
    # Last, because libraries that rewrite models drop sparse tensors without a word.
    report = sparsify(model) if sparse_initializers else []
    write_model(model, path, FORMAT, VERSION, manifest, force=force)
    return report


def _store(
    model: onnx.ModelProto, checkpoint: SparseCheckpoint, state: dict[str, Array], values: str
) -> tuple[list[TensorEntry], float]:
    """Describe the initializers that are the checkpoint's tensors, rounding them in place for ``fp16``."""
    from onnx import numpy_helper

    from ..models.onnx_tensor import is_weight_like

    initializers = {tensor.name: tensor for tensor in model.graph.initializer}
    entries, halved = [], {}
    worst = 0.0
    for name, tensor in checkpoint.tensors.items():
        record = tensor.record
        # Whole numbers are the graph's own constants, which no reader takes for weights.
        if record.alias_of is not None or name not in initializers or not is_weight_like(initializers[name]):
            continue
        stored = numpy_helper.to_array(initializers[name])
        if sha256_array(stored) != record.sha256 or stored.shape != record.shape or stored.dtype.name != record.dtype:
            continue
        entry = identity_entry(record, tensor.kept)
        if values == "fp16" and rounds(record.role, record.dtype) and not _leaves(model.graph, name):
            halved[name], error = half(name, state[name])
            worst = max(worst, error)
            digest = sha256_array(halved[name].astype(stored.dtype))
            entry = msgspec.structs.replace(entry, stored="float16", sha256=digest)
        entries.append(entry)
    if halved:
        _cast(model.graph, halved)
    return entries, worst


def _leaves(graph: onnx.GraphProto, name: str) -> bool:
    return any(value.name == name for value in graph.output)


def _cast(graph: onnx.GraphProto, halved: dict[str, Array]) -> None:
    """Replace initializers by half-precision ones, each read through a Cast back to its own type."""
    import onnx
    from onnx import helper, numpy_helper

    nodes = []
    for tensor in graph.initializer:
        if tensor.name in halved:
            cast = helper.make_node("Cast", [tensor.name], [tensor.name + _CAST], to=tensor.data_type)
            cast.name = tensor.name + _CAST
            nodes.append(cast)
            tensor.CopyFrom(numpy_helper.from_array(halved[tensor.name], tensor.name))
    _rename_inputs(graph, {name: name + _CAST for name in halved})
    nodes += [onnx.NodeProto.FromString(node.SerializeToString()) for node in graph.node]
    del graph.node[:]
    graph.node.extend(nodes)


def _rename_inputs(graph: onnx.GraphProto, names: dict[str, str]) -> None:
    """Rename what nodes read, in ``graph`` and in the bodies of its control flow, which see the names outside them."""
    for node in graph.node:
        for position, name in enumerate(node.input):
            if name in names:
                node.input[position] = names[name]
        for attribute in node.attribute:
            for body in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                own = {tensor.name for tensor in body.initializer} | {
                    out for inner in body.node for out in inner.output
                }
                own |= {value.name for value in body.input}
                _rename_inputs(body, {name: new for name, new in names.items() if name not in own})
