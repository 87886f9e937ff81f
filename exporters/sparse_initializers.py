"""``onnx --sparse-initializers``: ONNX's own sparse tensors, for tools that read them.

In: a finished model. Out: the same model with each weight as values and int64 positions, where that is smaller: 12
bytes a kept fp32 weight, so from 66.7 % sparsity on. Runtimes make them dense when they load; no speed comes of it. It
is the last step on the protobuf, because libraries that rewrite models drop sparse tensors without a word. Everything
whose bits are not all zero is kept, -0.0 and NaN included, so the dense tensor comes back bit for bit.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types
from onnx import numpy_helper

from ..errors import FileFormatError
from ..files import Array, numpy_dtype
from ..models.onnx_tensor import Span

_TENSOR = onnx.TensorProto
_FLOATS: dict[int, str] = {
    _TENSOR.FLOAT: "float32",
    _TENSOR.DOUBLE: "float64",
    _TENSOR.FLOAT16: "float16",
    _TENSOR.BFLOAT16: "bfloat16",
}


@dataclass(frozen=True)
class Sparsified:
    """What became of one weight.

    Attributes:
        name: of the initializer.
        dense_bytes: what it takes as an ordinary initializer.
        sparse_bytes: what it takes, or would take, as a sparse one.
        sparse: whether it was made sparse; it is refused where it would be larger.
    """

    name: str
    dense_bytes: int
    sparse_bytes: int

    @property
    def sparse(self) -> bool:
        """Whether the sparse form is the smaller one."""
        return self.sparse_bytes < self.dense_bytes

    def sentence(self) -> str:
        """Say what was done, for people."""
        if self.sparse:
            return f"'{self.name}' is a sparse initializer of {self.sparse_bytes} bytes (dense: {self.dense_bytes})."
        return (
            f"'{self.name}' stays dense ({self.dense_bytes} bytes): as a sparse initializer it would take "
            f"{self.sparse_bytes} bytes."
        )


def summary(report: Sequence[Sparsified]) -> list[str]:
    """Say how many weights were made sparse, and which were refused."""
    done = [entry for entry in report if entry.sparse]
    dense, sparse = sum(entry.dense_bytes for entry in done), sum(entry.sparse_bytes for entry in done)
    first = f"{len(done)} of {len(report)} weights are sparse initializers: {sparse} bytes (dense: {dense})."
    return [first, *(entry.sentence() for entry in report if not entry.sparse)]


def sparsify(model: onnx.ModelProto) -> list[Sparsified]:
    """Turn weights into sparse initializers where that makes the model smaller, in place.

    Args:
        model: complete; every initializer holds its own data. Only float tensors of two and more axes are looked at,
            and none that is an input or output of the graph.

    Returns:
        one entry for each weight, made sparse or refused, in the order of the initializers.
    """
    graph = model.graph
    fixed = {value.name for value in (*graph.input, *graph.output)}
    report: list[Sparsified] = []
    dense: list[onnx.TensorProto] = []
    for tensor in graph.initializer:
        weight = tensor.data_type in _FLOATS and len(tensor.dims) >= 2 and tensor.name not in fixed
        if weight and tensor.data_location != _TENSOR.EXTERNAL and 0 not in tensor.dims:
            sparse = _sparse(tensor)
            report.append(Sparsified(tensor.name, tensor.ByteSize(), sparse.ByteSize()))
            if report[-1].sparse:
                graph.sparse_initializer.append(sparse)
                continue
        copy = _TENSOR()
        copy.CopyFrom(tensor)
        dense.append(copy)
    del graph.initializer[:]
    graph.initializer.extend(dense)
    return report


def _sparse(tensor: onnx.TensorProto) -> onnx.SparseTensorProto:
    values = numpy_helper.to_array(tensor)
    flat = np.ascontiguousarray(values).reshape(-1)
    positions = np.flatnonzero(flat.view(f"u{flat.dtype.itemsize}"))
    sparse = onnx.SparseTensorProto(dims=tensor.dims)
    kept = numpy_helper.from_array(flat[positions], tensor.name)
    # bfloat16 comes back from numpy as another library's type, with the same bits.
    kept.data_type = tensor.data_type
    sparse.values.CopyFrom(kept)
    sparse.indices.CopyFrom(numpy_helper.from_array(positions.astype(np.int64)))
    return sparse


@dataclass(frozen=True)
class StoredSparse:
    """One sparse float initializer inside a model's file; the twin of :class:`~..models.onnx_tensor.StoredTensor`.

    Attributes:
        name: of the initializer.
        shape: its dense dims.
        dtype: of its values.
        file: the model's file.
        spans: where the whole message lies.
        limit: the most dense bytes that the file may claim.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: Path
    spans: tuple[Span, ...]
    limit: int

    def read(self) -> Array:
        """Return the dense values as a fresh array.

        Raises:
            FileFormatError: it is malformed.
        """
        try:
            return densify(_parse(self.file, self.spans[0]), self.limit)
        except FileFormatError as error:
            raise FileFormatError(f"{self.file}: {error}") from error


def locate_sparse(file: Path, span: Span, limit: int) -> StoredSparse | None:
    """Return a sparse initializer's place; None when its values are of no float type.

    Raises:
        FileFormatError: it is no protobuf message.
    """
    sparse = _parse(file, span)
    if sparse.values.data_type not in _FLOATS:
        return None
    dtype = numpy_dtype(_FLOATS[sparse.values.data_type])
    return StoredSparse(sparse.values.name, tuple(sparse.dims), dtype, file, (span,), limit)


def _parse(file: Path, span: Span) -> onnx.SparseTensorProto:
    with file.open("rb") as stream:
        stream.seek(span[0])
        content = stream.read(span[1] - span[0])
    try:
        sparse: onnx.SparseTensorProto = onnx.SparseTensorProto.FromString(content)
    except DecodeError as error:
        raise FileFormatError(f"{file}: a sparse initializer is no protobuf message.") from error
    return sparse


def densify(sparse: onnx.SparseTensorProto, limit: int) -> Array:
    """Return the dense tensor that a sparse one stands for.

    Args:
        sparse: from a file; linear positions [kept] or coordinates [kept, axes], in ascending order.
        limit: the most bytes that the dense tensor may take.

    Raises:
        FileFormatError: it is malformed, or larger than ``limit``.
    """
    name, shape = sparse.values.name, tuple(sparse.dims)
    if min(shape, default=1) < 0 or _TENSOR.EXTERNAL in (sparse.values.data_location, sparse.indices.data_location):
        raise FileFormatError(f"the sparse initializer '{name}' has an impossible shape or lies in another file.")
    try:
        values, indices = numpy_helper.to_array(sparse.values), numpy_helper.to_array(sparse.indices)
    except (ValueError, TypeError, KeyError) as error:
        raise FileFormatError(f"the sparse initializer '{name}' is malformed: {error}.") from error
    size = math.prod(shape)
    if size * values.dtype.itemsize > limit:
        raise FileFormatError(f"the sparse initializer '{name}' claims {size} elements; the file is too small for it.")
    if indices.dtype != np.int64 or values.ndim != 1 or len(indices) != values.size:
        raise FileFormatError(f"the sparse initializer '{name}' has positions that do not fit its values.")
    if indices.ndim == 2:
        extents = np.array(shape, np.int64)
        if indices.shape[1] != len(shape) or bool(((indices < 0) | (indices >= extents)).any()):
            raise FileFormatError(f"the sparse initializer '{name}' has coordinates outside its shape {shape}.")
        strides = np.array([math.prod(shape[axis + 1 :]) for axis in range(len(shape))], np.int64)
        indices = indices @ strides
    bad = indices.ndim != 1 or bool((np.diff(indices) <= 0).any())
    if bad or (indices.size and not 0 <= int(indices[0]) <= int(indices[-1]) < size):
        raise FileFormatError(f"the sparse initializer '{name}' has positions outside its shape, or not in order.")
    dense = np.zeros(size, values.dtype)
    dense[indices] = values
    return dense.reshape(shape)
