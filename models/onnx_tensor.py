"""One constant tensor inside an ONNX file: where its values lie, how to read them, which bytes to write in their place.

ONNX keeps float values in ``raw_data``, in a typed list, as numbers of varying length (half precision in
``int32_data``), or in a file beside the model; all four are read and patched in place.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

from ..errors import FileFormatError, ModelError, UnsupportedError
from ..files import Array, numpy_dtype
from .protobuf import decode_varints, encode_varints, fields

Span = tuple[int, int]

_TENSOR = onnx.TensorProto
# Data type -> numpy's name and the typed field that may hold it instead of raw_data.
_FLOATS: dict[int, tuple[str, int]] = {
    _TENSOR.FLOAT: ("float32", _TENSOR.FLOAT_DATA_FIELD_NUMBER),
    _TENSOR.DOUBLE: ("float64", _TENSOR.DOUBLE_DATA_FIELD_NUMBER),
    _TENSOR.FLOAT16: ("float16", _TENSOR.INT32_DATA_FIELD_NUMBER),
    _TENSOR.BFLOAT16: ("bfloat16", _TENSOR.INT32_DATA_FIELD_NUMBER),
}


@dataclass(frozen=True)
class StoredTensor:
    """One float tensor inside the files of a model.

    Attributes:
        name: the initializer's name, or the output of the Constant node.
        shape: its dims.
        dtype: float32, float64, float16 or bfloat16.
        file: the model's file, or the external data file.
        spans: byte ranges whose concatenation is the little-endian, row-major tensor.
        varints: whether the bytes are varints (half-precision values in ``int32_data``) instead of fixed-size values.
    """

    name: str
    shape: tuple[int, ...]
    dtype: np.dtype[Any]
    file: Path
    spans: tuple[Span, ...]
    varints: bool = False

    def read(self) -> Array:
        """Return the values as a fresh writable array."""
        count = math.prod(self.shape)
        raw = self._raw()
        if self.varints:
            numbers, _ = decode_varints(raw)
            if numbers.size != count:
                raise FileFormatError(f"{self.file}: tensor '{self.name}' has {numbers.size} values, not {count}.")
            return numbers.astype(np.uint16).view(self.dtype).reshape(self.shape)
        little = raw.view(self.dtype.newbyteorder("<")) if self.dtype.kind == "f" else raw.view(self.dtype)
        return little.astype(self.dtype, copy=False).reshape(self.shape)

    def _raw(self) -> npt.NDArray[np.uint8]:
        raw = np.empty(sum(end - start for start, end in self.spans), np.uint8)
        position = 0
        with self.file.open("rb") as stream:
            for start, end in self.spans:
                stream.seek(start)
                if stream.readinto(raw[position : position + end - start].data) != end - start:
                    raise FileFormatError(f"{self.file}: tensor '{self.name}' ends early; the file was truncated.")
                position += end - start
        return raw

    def patches(self, values: Array) -> Iterator[tuple[int, memoryview]]:
        """Yield offsets and bytes that put ``values`` in the tensor's place.

        Raises:
            ModelError: shape or dtype differ from the tensor's.
            UnsupportedError: a half-precision value needs more bytes than the one it replaces has in the file.
        """
        if values.shape != self.shape or values.dtype != self.dtype:
            raise ModelError(
                f"{self.file}: tensor '{self.name}' is {self.dtype} of shape {self.shape}; it cannot take values of "
                f"{values.dtype} of shape {values.shape}."
            )
        flat = np.ascontiguousarray(values).reshape(-1)
        if self.varints:
            _, lengths = decode_varints(self._raw())
            packed = encode_varints(flat.view(np.uint16), lengths)
            if packed is None:
                raise UnsupportedError(
                    f"{self.file}: tensor '{self.name}' stores half-precision values as numbers of varying length, and "
                    "a new value needs more bytes than the old one; store it as raw_data to change its values."
                )
            flat = packed
        elif self.dtype.kind == "f":
            flat = flat.astype(self.dtype.newbyteorder("<"), copy=False)
        content = memoryview(flat.view(np.uint8).data)
        position = 0
        for start, end in self.spans:
            yield start, content[position : position + end - start]
            position += end - start


_VALUE_FIELDS = {
    _TENSOR.RAW_DATA_FIELD_NUMBER,
    _TENSOR.FLOAT_DATA_FIELD_NUMBER,
    _TENSOR.INT32_DATA_FIELD_NUMBER,
    _TENSOR.INT64_DATA_FIELD_NUMBER,
    _TENSOR.DOUBLE_DATA_FIELD_NUMBER,
    _TENSOR.UINT64_DATA_FIELD_NUMBER,
    _TENSOR.STRING_DATA_FIELD_NUMBER,
}


def tensor_header(data: memoryview, start: int, end: int) -> onnx.TensorProto:
    """Return the TensorProto in ``data[start:end]`` without its values: name, dims, type, place of external data."""
    pieces, position = [], start
    for field in fields(data, start, end):
        if field.number not in _VALUE_FIELDS:
            pieces.append(data[position : field.end])
        position = field.end
    header: onnx.TensorProto = _TENSOR.FromString(b"".join(pieces))
    require_text(header.name)
    return header


def require_text(*values: str | bytes) -> None:
    """Refuse names that are no UTF-8, which protobuf hands out as bytes.

    Raises:
        FileFormatError: one of ``values`` is no text.
    """
    for value in values:
        if not isinstance(value, str):
            raise FileFormatError(f"a name in it is no UTF-8 text: {value!r}.")


def external_location(tensor: onnx.TensorProto) -> set[str]:
    """Return the location of a tensor's external data, as a set of one; empty when its values are in the model."""
    if tensor.data_location != _TENSOR.EXTERNAL:
        return set()
    locations = {entry.value for entry in tensor.external_data if entry.key == "location"}
    require_text(*locations)
    return locations


def is_weight_like(header: onnx.TensorProto) -> bool:
    """Return whether a tensor is of a float type and has at least one element."""
    return header.data_type in _FLOATS and not header.HasField("segment") and 0 not in header.dims


def float_layout(header: onnx.TensorProto) -> tuple[tuple[int, ...], np.dtype[Any], int]:
    """Return shape, dtype and bytes of a float tensor.

    Raises:
        FileFormatError: an extent is negative.
    """
    if any(extent < 0 for extent in header.dims):
        raise FileFormatError(f"tensor '{header.name}' has a negative extent in {tuple(header.dims)}.")
    dtype = numpy_dtype(_FLOATS[header.data_type][0])
    return tuple(header.dims), dtype, math.prod(header.dims) * dtype.itemsize


def locate(header: onnx.TensorProto, name: str, file: Path, content: memoryview, start: int) -> StoredTensor:
    """Return the place of a float tensor whose values lie in the model's own file.

    Args:
        header: what :func:`tensor_header` read from ``content``.
        name: the tensor's name in the graph.
        file: the model's file.
        content: the whole TensorProto.
        start: where it begins in the file.

    Raises:
        FileFormatError: its bytes do not fit its shape.
    """
    shape, dtype, needed = float_layout(header)
    typed_field = _FLOATS[header.data_type][1]
    raw: list[Span] = []
    typed: list[Span] = []
    for field in fields(content, 0, len(content)):
        span = (start + field.start, start + field.end)
        if field.number == _TENSOR.RAW_DATA_FIELD_NUMBER:
            # A field that is no list counts once: its last occurrence.
            raw = [span]
        elif field.number == typed_field:
            typed.append(span)
    varints = not raw and typed_field == _TENSOR.INT32_DATA_FIELD_NUMBER
    spans = tuple(raw or typed)
    length = sum(stop - begin for begin, stop in spans)
    fits = length >= math.prod(shape) if varints else length == needed
    if (raw and typed) or not fits:
        raise FileFormatError(f"{file}: tensor '{name}' of shape {shape} needs {needed} bytes; it has {length}.")
    return StoredTensor(name, shape, dtype, file, spans, varints)
