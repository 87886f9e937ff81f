"""ONNX Runtime Web under Node: the WebAssembly build that browsers load, in a child process; an optional extra.

The child (``onnxruntime_web.mjs``) speaks frames over its pipes: four bytes of length (little-endian), a JSON header,
and then as many bytes as the header announces.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import struct
import subprocess
import weakref
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from ..errors import FileFormatError, RuntimeUnavailableError, UnsupportedError
from ..files import Array

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource

# The folder that npm installed into; without it, node_modules in the current folder.
ENVIRONMENT = "SPARSEPACK_NODE_MODULES"
_PACKAGE = "onnxruntime-web"
_PROGRAM = Path(__file__).with_suffix(".mjs")
_LENGTH = struct.Struct("<I")
_TYPES = ("float32", "float64", "float16", "int8", "uint8", "int16", "uint16", "int32", "uint32", "int64", "uint64")


class WebSession:
    """A graph in a Node process; answers with its first output."""

    notes = ("WebAssembly on one thread; times include handing arrays to the Node process and back.",)

    def __init__(self, process: subprocess.Popen[bytes], path: Path) -> None:
        self._process = process
        self._finish = weakref.finalize(self, _stop, process)
        header, _ = self._receive()
        if "error" in header:
            self._finish()
            raise FileFormatError(f"{path}: ONNX Runtime Web cannot load it: {header['error']}.")
        self._names: list[str] = header["inputs"]
        batch = header["batch"]
        self.fixed_batch: int | None = batch if isinstance(batch, int) else None

    def run(self, *inputs: Array) -> Array:
        """Return the first output.

        Raises:
            UnsupportedError: the graph does not compute on these inputs, or the process ended.
        """
        arrays = [np.ascontiguousarray(array) for array in inputs]
        described = [
            {"name": name, "type": "bool" if array.dtype == np.bool_ else array.dtype.name, "dims": array.shape}
            for name, array in zip(self._names, arrays, strict=True)
        ]
        header = json.dumps({"inputs": described}).encode()
        try:
            for piece in (_LENGTH.pack(len(header)), header, *(array.tobytes() for array in arrays)):
                _pipe(self._process.stdin).write(piece)
            _pipe(self._process.stdin).flush()
        except BrokenPipeError as error:
            raise UnsupportedError("ONNX Runtime Web cannot run it: the Node process has ended.") from error
        answer, content = self._receive()
        if "error" in answer:
            raise UnsupportedError(f"ONNX Runtime Web cannot run it: {answer['error']}.")
        return np.frombuffer(content, answer["type"]).reshape(answer["dims"]).copy()

    def _receive(self) -> tuple[dict[str, Any], bytes]:
        stream = _pipe(self._process.stdout)
        prefix = stream.read(_LENGTH.size)
        if len(prefix) < _LENGTH.size:
            return {"error": "the Node process has ended"}, b""
        header: dict[str, Any] = json.loads(stream.read(_LENGTH.unpack(prefix)[0]))
        if "error" in header or "dims" not in header:
            return header, b""
        if header["type"] not in (*_TYPES, "bool"):
            return {"error": f"its output is of type {header['type']}"}, b""
        return header, stream.read(math.prod(header["dims"]) * np.dtype(header["type"]).itemsize)


class OnnxRuntimeWeb:
    """ONNX Runtime Web's WebAssembly backend, under Node."""

    name = "onnxruntime-web-node"
    summary = "ONNX Runtime Web (WebAssembly, as in browsers) under Node; an optional extra."
    formats: tuple[str, ...] = ()
    needs_source = False

    def available(self) -> str | None:
        """Return what is missing, or None when Node and the package are there."""
        if shutil.which("node") is None:
            return "Node is not installed"
        if not (_modules() / _PACKAGE / "package.json").is_file():
            return f"npm's package {_PACKAGE} is not in {_modules()}; npm install {_PACKAGE}, or set {ENVIRONMENT}"
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ONNX artifacts in one file."""
        if not artifact.is_graph:
            return f"it runs ONNX files, not the format '{artifact.format}'"
        if artifact.format == "onnx-sparse":
            return "its sparse layers need the operators that the runtime onnxruntime-sparse-cpu registers"
        return "the model lies in several files, which WebAssembly cannot open" if len(artifact.files()) > 1 else None

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> WebSession:
        """Start Node and load the graph there; ``threads`` and ``source`` are not needed."""
        node = shutil.which("node")
        if node is None:
            raise RuntimeUnavailableError(f"{self.name}: Node is not installed.")
        command = [node, str(_PROGRAM), str((_modules() / _PACKAGE).resolve()), str(artifact.path.resolve())]
        process = subprocess.Popen(  # noqa: S603  (Node and our own program, found above)
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL
        )
        return WebSession(process, artifact.path)


def _modules() -> Path:
    return Path(os.environ.get(ENVIRONMENT) or "node_modules")


def _pipe(stream: IO[bytes] | None) -> IO[bytes]:
    if stream is None:
        raise ValueError("the process was started without pipes.")
    return stream


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.kill()
    process.wait()
    for stream in (process.stdin, process.stdout):
        _pipe(stream).close()
