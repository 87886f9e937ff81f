"""An ONNX file as bytes: where each constant tensor lies, and a copy of the file with only some of them replaced.

In: an ONNX file from anywhere, with or without external data. Out: its nodes, the place of each initializer and of each
tensor held by a Constant node, and patched copies. Guaranteed: a patched copy has the same length, and differs from the
original in the named tensors' bytes alone; names, shapes, metadata, functions and unknown fields stay as they were. A
file is never parsed and written again, because that would lose what this version of ONNX does not know.
"""

from __future__ import annotations

import hashlib
import mmap
import shutil
from collections.abc import Mapping
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from typing import Any

import onnx
from google.protobuf.message import DecodeError  # type: ignore[import-untyped]  # protobuf ships no types

from ..errors import FileFormatError, ModelError, OutputExistsError
from ..files import Array, atomic_path, refuse_existing
from .onnx_tensor import (
    Span,
    StoredTensor,
    external_location,
    float_layout,
    is_weight_like,
    locate,
    require_text,
    tensor_header,
)
from .protobuf import LENGTH, VARINT, fields

_MODEL, _GRAPH, _NODE, _ATTRIBUTE = onnx.ModelProto, onnx.GraphProto, onnx.NodeProto, onnx.AttributeProto


class OnnxFile:
    """An ONNX file, opened and checked for structure; tensors are read when asked for.

    Attributes:
        path: the model's file.
        ir_version: of the file.
        nodes: of the main graph.
        inputs: of the main graph, including initializers that are listed as inputs.
        outputs: of the main graph.
        constants: names of the initializers and of the tensors of Constant nodes, in file order.
        sparse: where each sparse initializer lies, by name.
        data_files: external data, as locations relative to the model's folder, sorted.

    Raises:
        FileFormatError: unreadable, truncated or no ONNX file; external data that is missing or outside the folder.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.ir_version = 0
        self.nodes: list[onnx.NodeProto] = []
        self.inputs: list[onnx.ValueInfoProto] = []
        self.outputs: list[onnx.ValueInfoProto] = []
        self.sparse: dict[str, Span] = {}
        self._spans: dict[str, Span] = {}
        self._locations: set[str] = set()
        self._found_graph = False
        try:
            with path.open("rb") as stream:
                if path.stat().st_size == 0:
                    raise FileFormatError("the file is empty.")
                # Unmapped when the last slice of it is gone; closing it here would fail while an error holds one.
                self._walk_model(memoryview(mmap.mmap(stream.fileno(), 0, access=mmap.ACCESS_READ)))
        except OSError as error:
            raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
        except DecodeError as error:
            raise FileFormatError(
                f"{path} is not a readable ONNX file: a part of it is no protobuf message."
            ) from error
        except FileFormatError as error:
            raise FileFormatError(f"{path} is not a readable ONNX file: {error}") from error
        if not self._found_graph or self.ir_version <= 0:
            raise FileFormatError(f"{path} is not a readable ONNX file: it holds no graph.")
        self.constants = list(self._spans)
        self.data_files = sorted(self._locations)
        for location in self.data_files:
            self._data_path(location)

    def _walk_model(self, data: memoryview) -> None:
        for field in fields(data, 0, len(data)):
            if field.number == _MODEL.IR_VERSION_FIELD_NUMBER and field.wire == VARINT:
                self.ir_version = field.value
            elif field.number == _MODEL.GRAPH_FIELD_NUMBER and field.wire == LENGTH:
                self._found_graph = True
                self._walk_graph(data, field.start, field.end)
            elif field.number == _MODEL.FUNCTIONS_FIELD_NUMBER and field.wire == LENGTH:
                function = onnx.FunctionProto.FromString(bytes(data[field.start : field.end]))
                self._note_locations(function.node)

    def _walk_graph(self, data: memoryview, start: int, end: int) -> None:
        for field in fields(data, start, end):
            if field.wire != LENGTH:
                continue
            if field.number == _GRAPH.INITIALIZER_FIELD_NUMBER:
                header = tensor_header(data, field.start, field.end)
                self._remember(header.name, (field.start, field.end))
                self._locations.update(external_location(header))
                continue
            content = data[field.start : field.end]
            if field.number == _GRAPH.NODE_FIELD_NUMBER:
                node = _NODE.FromString(bytes(content))
                self.nodes.append(node)
                require_text(*node.input, *node.output, node.op_type, node.domain)
                self._note_locations([node])
                if node.op_type == "Constant" and node.domain in ("", "ai.onnx"):
                    self._walk_constant(data, field.start, field.end, node.output[0] if node.output else "")
            elif field.number == _GRAPH.INPUT_FIELD_NUMBER:
                self.inputs.append(_value(content))
            elif field.number == _GRAPH.OUTPUT_FIELD_NUMBER:
                self.outputs.append(_value(content))
            elif field.number == _GRAPH.SPARSE_INITIALIZER_FIELD_NUMBER:
                sparse = onnx.SparseTensorProto.FromString(bytes(content))
                self._locations.update(external_location(sparse.values), external_location(sparse.indices))
                require_text(sparse.values.name)
                if sparse.values.name in self.sparse:
                    raise FileFormatError(f"two sparse initializers are called '{sparse.values.name}'.")
                self.sparse[sparse.values.name] = (field.start, field.end)

    def _walk_constant(self, data: memoryview, start: int, end: int, name: str) -> None:
        for field in fields(data, start, end):
            if field.number == _NODE.ATTRIBUTE_FIELD_NUMBER and field.wire == LENGTH:
                for inner in fields(data, field.start, field.end):
                    if inner.number == _ATTRIBUTE.T_FIELD_NUMBER and inner.wire == LENGTH:
                        self._remember(name, (inner.start, inner.end))

    def _remember(self, name: str, span: Span) -> None:
        if name in self._spans:
            raise FileFormatError(f"two constant tensors are called '{name}'.")
        self._spans[name] = span

    def _note_locations(self, nodes: Any) -> None:
        """Collect external data of every tensor in ``nodes``; protobuf itself bounds how deep graphs can nest."""
        for node in nodes:
            for attribute in node.attribute:
                for tensor in (attribute.t, *attribute.tensors):
                    self._locations.update(external_location(tensor))
                for graph in (attribute.g, *attribute.graphs) if attribute.HasField("g") else attribute.graphs:
                    for tensor in graph.initializer:
                        self._locations.update(external_location(tensor))
                    self._note_locations(graph.node)

    def _data_path(self, location: str) -> Path:
        """Return the file of an external location after checking that it lies below the model's folder."""
        folder = self.path.parent.resolve()
        relative = PurePosixPath(location)
        try:
            target = (folder / relative).resolve()
            found = target.is_file()
        except (OSError, ValueError):
            target, found = folder, False
        inside = target.is_relative_to(folder) and not relative.is_absolute() and ".." not in relative.parts
        if not inside or "\\" in location or "\0" in location:
            raise FileFormatError(
                f"{self.path}: external data at {location!r} lies outside the model's folder; refused."
            )
        if not found:
            raise FileFormatError(f"{self.path}: its external data file {location!r} is missing.")
        return target

    @property
    def total_bytes(self) -> int:
        """Bytes on disk of the model and its external data."""
        return sum(path.stat().st_size for path in (self.path, *map(self._data_path, self.data_files)))

    def sha256(self) -> str:
        """Return the SHA-256 (hex) of the model's file followed by its external data files in sorted order."""
        digest = hashlib.sha256()
        for file in (self.path, *(self._data_path(location) for location in self.data_files)):
            with file.open("rb") as stream:
                while chunk := stream.read(1 << 20):
                    digest.update(chunk)
        return digest.hexdigest()

    def stored(self, name: str) -> StoredTensor | None:
        """Return the place of a constant; None when it is no float tensor with at least one element.

        Raises:
            FileFormatError: its bytes do not fit its shape, or it lies outside its file.
        """
        start, end = self._spans[name]
        with self.path.open("rb") as stream:
            stream.seek(start)
            content = memoryview(stream.read(end - start))
        header = tensor_header(content, 0, len(content))
        if not is_weight_like(header):
            return None
        if header.data_location != onnx.TensorProto.EXTERNAL:
            return locate(header, name, self.path, content, start)
        shape, dtype, needed = float_layout(header)
        file, span = self._external(header, needed)
        return StoredTensor(name, shape, dtype, file, (span,))

    def tensor(self, name: str) -> onnx.TensorProto:
        """Return a constant as it lies in the file, of any type; external data is not read."""
        start, end = self._spans[name]
        with self.path.open("rb") as stream:
            stream.seek(start)
            content = stream.read(end - start)
        try:
            tensor: onnx.TensorProto = onnx.TensorProto.FromString(content)
        except DecodeError as error:
            raise FileFormatError(f"{self.path}: tensor '{name}' is no protobuf message.") from error
        return tensor

    def _external(self, header: onnx.TensorProto, needed: int) -> tuple[Path, Span]:
        entries = {entry.key: entry.value for entry in header.external_data}
        file = self._data_path(entries.get("location", ""))
        size = file.stat().st_size
        try:
            offset = int(entries.get("offset", "0"))
            length = int(entries.get("length", str(needed)))
        except ValueError as error:
            raise FileFormatError(
                f"{self.path}: '{header.name}': offset or length of its external data is no number."
            ) from error
        if length != needed or offset < 0 or offset + length > size:
            raise FileFormatError(
                f"{self.path}: tensor '{header.name}' needs {needed} bytes; its external data claims {length} at "
                f"{offset} of '{entries.get('location')}', which has {size}."
            )
        return file, (offset, offset + length)

    def write(self, path: Path, tensors: Mapping[str, Array], *, force: bool = False) -> list[Path]:
        """Copy the model with some tensors replaced; external data goes beside the copy under the same locations.

        Args:
            path: the copy.
            tensors: new values by name, in the stored shape and dtype.
            force: whether existing files may be replaced; the source's own files never are.

        Returns:
            The files written, the model first.

        Raises:
            OutputExistsError: a file exists, or is one of the source's own.
            ModelError: an unknown tensor, or values of another shape or dtype.
        """
        targets = {self.path: path}
        targets |= {self._data_path(location): path.parent / PurePosixPath(location) for location in self.data_files}
        for source, target in targets.items():
            if target.exists() and target.samefile(source):
                raise OutputExistsError(
                    f"{target} is the file of the model that is pruned; write the copy to another folder."
                )
            refuse_existing(target, force)
        patches: dict[Path, list[tuple[int, memoryview]]] = {source: [] for source in targets}
        for name, values in tensors.items():
            stored = self.stored(name) if name in self._spans else None
            if stored is None:
                raise ModelError(f"{self.path} has no float tensor called '{name}'.")
            patches[stored.file].extend(stored.patches(values))
        with ExitStack() as stack:
            # The model is renamed last (contexts close in reverse), so it never points at data that is not there.
            temporaries = {source: stack.enter_context(atomic_path(target)) for source, target in targets.items()}
            for source, temporary in temporaries.items():
                shutil.copyfile(source, temporary)
                with temporary.open("r+b") as stream:
                    for offset, content in patches[source]:
                        stream.seek(offset)
                        stream.write(content)
        return list(targets.values())


def _value(content: memoryview) -> onnx.ValueInfoProto:
    value: onnx.ValueInfoProto = onnx.ValueInfoProto.FromString(bytes(content))
    require_text(value.name)
    return value
