"""``onnx-sparse``: an ONNX graph whose sparse layers run on the native operators (docs/runtime.md).

In: a sparse checkpoint and its network, or any ONNX file with many zeros. Out: a graph for ONNX Runtime with
``libsparsepack_ops`` registered; layers that would not be faster stay as they are. Weights of sparse layers lie in the
file as gaps and values; every tensor decodes to the original's own (with ``fp16`` values: to the one that the
manifest's hash names). The file begins with our manifest (:mod:`.onnx_seal`), beside which stands what was chosen for
each layer, and why.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec
import onnx
from onnx import numpy_helper

from ..compressor.checkpoint import SparseCheckpoint, SparseTensor, TensorRecord, make_tensor
from ..errors import UnsupportedError
from ..files import refuse_existing, sha256_array
from ..models.onnx_tensor import is_weight_like
from .manifest import Manifest, TensorEntry, describe, identity_entry
from .onnx_model import drop_seal, lowered, write_model
from .parts import check_values, half
from .sparse_graph.choose import Measure
from .sparse_graph.cost_model import CostModel
from .sparse_graph.gaps import nonzero_bits
from .sparse_graph.rewrite import DOMAIN, Rewritten, rewrite

if TYPE_CHECKING:
    from ..models.source import ModelSource

FORMAT = "onnx-sparse"
VERSION = 1


def write_onnx_sparse(
    checkpoint: SparseCheckpoint,
    path: Path,
    *,
    source: ModelSource,
    values: str = "fp32",
    force: bool = False,
    costs: CostModel | None = None,
    measure: Measure | None = None,
    batch: int = 1,
) -> None:
    """Write a checkpoint as an ONNX model with sparse layers.

    Args:
        checkpoint: any checkpoint; frozen and selected weights are materialised.
        path: where to.
        source: the network that the checkpoint was made from.
        values: ``fp32``, or ``fp16``: the weights of sparse layers in half precision, everything else as it is.
        force: whether an existing file may be replaced.
        costs: what predicts which layers run faster sparse; by default the rates of the reference machine.
        measure: returns measured costs of the layers it is asked for, which then decide.
        batch: examples a run that the choice is for, where the network leaves them open.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        ModelError: the checkpoint's tensors do not fit the network, or it cannot be traced.
        UnsupportedError: an operator without ONNX counterpart, a network of 2 GB or more, or a value too large for half
            precision.
    """
    check_values(values)
    refuse_existing(path, force)
    model = lowered(source, checkpoint)
    rewritten = _rewritten(model, values, costs, measure, batch)
    manifest = describe(
        checkpoint.metadata,
        [(entry, None) for entry in _entries(checkpoint.tensors.values(), rewritten, values)],
        values=values,
        max_abs_error=_rounding(rewritten, values),
        chain=False,
    )
    layers = msgspec.to_builtins(rewritten.choices)
    write_model(rewritten.model, path, FORMAT, VERSION, manifest, force=force, more={"layers": layers})


def sparse_file(
    original: Path,
    path: Path,
    *,
    values: str = "fp32",
    force: bool = False,
    costs: CostModel | None = None,
    measure: Measure | None = None,
    batch: int = 1,
) -> None:
    """Write an ONNX file whose weights hold many zeros as one with sparse layers.

    Args:
        original: any ONNX file; it stays as it is. What is zero in it counts as pruned.
        path: where to.
        values: ``fp32`` or ``fp16``, as for :func:`write_onnx_sparse`.
        force: whether an existing file may be replaced.
        costs: likewise.
        measure: likewise.
        batch: likewise.

    Raises:
        OutputExistsError: the file exists and ``force`` is false.
        FileFormatError: the original cannot be read.
        UnsupportedError: it has sparse layers already, takes 2 GB or more, or holds a value too large for half
            precision.
    """
    from ..models.graph.prepare import read_graph
    from ..models.source import load_source

    check_values(values)
    refuse_existing(path, force)
    record = load_source(str(original)).record
    model = read_graph(original)
    if any(entry.domain == DOMAIN for entry in model.opset_import):
        raise UnsupportedError(f"{original} has sparse layers already; export the file that it was made from.")
    drop_seal(model)
    tensors = []
    rewritten = _rewritten(model, values, costs, measure, batch)
    weights = {choice.weight for choice in rewritten.choices}
    for tensor in model.graph.initializer:
        if is_weight_like(tensor):
            array = numpy_helper.to_array(tensor)
            pruned = tensor.name in weights
            mask = nonzero_bits(array) if pruned else None
            role = {"role": "prunable" if pruned else "parameter"}
            tensors.append(make_tensor(tensor.name, array, mask=mask, record=role))
    entries = _entries(tensors, rewritten, values)
    manifest = Manifest(model=record, tensors=entries, values=values, max_abs_error=_rounding(rewritten, values))
    layers = msgspec.to_builtins(rewritten.choices)
    write_model(rewritten.model, path, FORMAT, VERSION, manifest, force=force, more={"layers": layers})


def _rewritten(
    model: onnx.ModelProto, values: str, costs: CostModel | None, measure: Measure | None, batch: int
) -> Rewritten:
    from ..models.graph.lowering import SINGLE_FILE_BYTES

    if sum(len(tensor.raw_data) for tensor in model.graph.initializer) >= SINGLE_FILE_BYTES:
        raise UnsupportedError("the network takes 2 GB or more, which 'onnx-sparse' cannot rewrite; export to 'onnx'.")
    return rewrite(model, values=values, costs=costs, measure=measure, batch=batch)


def _rounding(rewritten: Rewritten, values: str) -> float | None:
    return None if values == "fp32" else max(rewritten.errors.values(), default=0.0)


def _entries(tensors: Iterable[SparseTensor], rewritten: Rewritten, values: str) -> list[TensorEntry]:
    """Describe the tensors that are in the graph, in order."""
    dense = {tensor.name: tensor for tensor in rewritten.model.graph.initializer}
    entries = []
    for tensor in tensors:
        record = tensor.record
        name = record.name
        if record.alias_of is not None:
            continue
        if name in rewritten.errors:
            entries.append(_packed_entry(tensor, values))
        elif name in dense and _holds(dense[name], record):
            entries.append(identity_entry(tensor.record, tensor.kept))
    return entries


def _holds(stored: onnx.TensorProto, record: TensorRecord) -> bool:
    if not is_weight_like(stored) or tuple(stored.dims) != record.shape:
        return False
    return bool(sha256_array(numpy_helper.to_array(stored)) == record.sha256)


def _packed_entry(tensor: SparseTensor, values: str) -> TensorEntry:
    entry = identity_entry(tensor.record, tensor.kept)
    if values == "fp32":
        return entry
    dense = tensor.dense().copy()
    mask = nonzero_bits(dense)
    rounded = half(entry.name, dense[mask])[0].astype(dense.dtype)
    dense[mask] = rounded
    return msgspec.structs.replace(entry, stored="float16", sha256=sha256_array(dense))
