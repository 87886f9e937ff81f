"""``onnx-unpack``: an ordinary ONNX file that carries masks, kept values and seeds, and unpacks itself.

In: a sparse checkpoint and its network. Out: standard operators only, each masked weight computed by a few nodes under
the initializer's own name. ONNX Runtime folds them while a session loads, and then runs the dense network. Guaranteed:
the unpacked weights are those of the checkpoint, bit for bit (for lossy values: those that the manifest's hashes name).
docs/onnx-unpack.md describes the graph.
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx
from onnx import numpy_helper

from ..compressor.checkpoint import SparseCheckpoint
from ..files import numpy_dtype, refuse_existing, sha256_array
from ..models.seeding.record import HADAMARD, PHILOX
from .manifest import TensorEntry, describe
from .onnx_model import lowered, write_model
from .parts import part_of
from .unpacking.emitter import Emitter
from .unpacking.model import insert, require_opset, value_names
from .unpacking.seeded import SeededPool, folding_bytes
from .unpacking.tensor import DENSE, Packed, emit, pack
from .value_types import CODEBOOKS, FP16, FP32, INT8, parse_values

if TYPE_CHECKING:
    from ..models.seeding.record import SeedRecord
    from ..models.source import ModelSource

FORMAT = "onnx-unpack"
VERSION = 1
VALUES = (FP32, FP16, INT8, CODEBOOKS)
# Compress, CumSum and ScatterElements are what they are since opset 13; bitmaps and Philox need BitwiseAnd.
_OPSET, _BITWISE_OPSET = 13, 18
# Philox over whole weights is worth a warning from here on, in bytes of predicted folding memory.
_WARNED_BYTES = 2**28


def write_onnx_unpack(
    checkpoint: SparseCheckpoint, path: Path, *, source: ModelSource, values: str = "fp32", force: bool = False
) -> None:
    """Write a checkpoint as an ONNX model that unpacks itself.

    Args:
        checkpoint: any checkpoint.
        path: where to; a model that stays above 2 GB has a ``.data`` file beside it.
        source: the network that the checkpoint was made from.
        values: ``fp32``, ``fp16`` (weights and biases), ``int8`` (weights, one scale an output unit) or
            ``codebook:BITS`` (weights, one table a tensor).
        force: whether existing files may be replaced.

    Raises:
        OutputExistsError: a file exists and ``force`` is false.
        ModelError: the checkpoint's tensors do not fit the network, or it cannot be traced.
        UnsupportedError: an operator without ONNX counterpart, an ONNX source below opset 13, a seeded part that needs
            opset 18, or a value that the value type cannot hold.
    """
    parse_values(values, VALUES, FORMAT)
    refuse_existing(path, force)
    warning = folding_warning(checkpoint)
    if warning:
        warnings.warn(warning, stacklevel=2)
    model = lowered(source, checkpoint)
    described, error = unpack_in_graph(model, checkpoint, values)
    lossy = None if values == "fp32" else error
    manifest = describe(checkpoint.metadata, described, values=values, max_abs_error=lossy, chain=False)
    write_model(model, path, FORMAT, VERSION, manifest, force=force)


def folding_warning(checkpoint: SparseCheckpoint) -> str | None:
    """Return a sentence that predicts the memory of folding, for a network drawn by Philox; None where it is small."""
    needed = sum(
        folding_bytes(record.seed, record.shape)
        for record in (tensor.record for tensor in checkpoint.tensors.values())
        if record.parametrisation in ("frozen", "selected") and record.seed and record.seed.generator == PHILOX
    )
    if needed < _WARNED_BYTES:
        return None
    return (
        f"the weights are drawn by {PHILOX}, which a graph computes in many steps: ONNX Runtime will need about "
        f"{needed / 1e9:.1f} GB of memory while the session loads (none of it later). Draw the network with "
        "--generator keyed-product to need an eighth of that, or export to 'onnx'."
    )


def unpack_in_graph(
    model: onnx.ModelProto, checkpoint: SparseCheckpoint, values: str
) -> tuple[list[tuple[TensorEntry, SeedRecord | None]], float]:
    """Replace initializers of ``model`` by nodes that compute them, in place.

    Args:
        model: the network with the checkpoint's dense weights in its initializers.
        checkpoint: what they are made of.
        values: one of :data:`VALUES`.

    Returns:
        manifest entries of the tensors that are in the graph, with the seed records that they need, and the largest
        error that rounding made.
    """
    bitwise = require_opset(model, _OPSET) >= _BITWISE_OPSET
    dense = {tensor.name: tensor for tensor in model.graph.initializer}
    leaving = {value.name for value in model.graph.output}
    described: list[tuple[TensorEntry, SeedRecord | None]] = []
    packed: list[Packed] = []
    for name, tensor in checkpoint.tensors.items():
        record = tensor.record
        if record.alias_of is not None or not _is_stored(dense.get(name), record.shape, record.sha256):
            continue
        found = pack(tensor, values, bitwise=bitwise)
        # A fixed matrix takes more nodes than a classifier's weights are worth.
        fixed = record.seed is not None and record.seed.initialiser == HADAMARD
        if name in leaving or found.plain or fixed or not _pays(found, dense[name]):
            described.append((_dense_entry(part_of(tensor, "fp32").entry), None))
        else:
            described.append((found.entry, found.seed))
            packed.append(found)
    emitter = Emitter(value_names(model.graph) - {found.entry.name for found in packed})
    pool = SeededPool()
    for found in packed:
        if found.draws and found.seed is not None:
            if found.seed.generator == PHILOX:
                require_opset(model, _BITWISE_OPSET)
            pool.add(found.entry.name, found.seed, found.entry.shape)
    pool.emit(emitter)
    for found in packed:
        emit(emitter, pool, found)
    insert(model.graph, emitter, {found.entry.name for found in packed})
    return described, max((found.max_abs_error for found in packed), default=0.0)


def _is_stored(tensor: onnx.TensorProto | None, shape: tuple[int, ...], digest: str) -> bool:
    if tensor is None or tuple(tensor.dims) != shape:
        return False
    return bool(sha256_array(numpy_helper.to_array(tensor)) == digest)


def _pays(packed: Packed, dense: onnx.TensorProto) -> bool:
    """Tell whether unpacking takes fewer bytes, nodes included, than the dense initializer; seeds always do."""
    if packed.seed is not None:
        return True
    trial = Emitter()
    emit(trial, SeededPool(), packed)
    return bool(trial.size < dense.ByteSize())


def _dense_entry(entry: TensorEntry) -> TensorEntry:
    """Return the entry of a tensor that stays an initializer; its mask, which nothing needs to read it, is dropped."""
    length = entry.size * numpy_dtype(entry.dtype).itemsize
    return msgspec.structs.replace(entry, masked=False, parametrisation="identity", values=(DENSE, length))
