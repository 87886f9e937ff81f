"""OpenVINO on the CPU: an ONNX artifact, or any ONNX file, compiled in single precision; an optional extra."""

from __future__ import annotations

from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import FileFormatError, UnsupportedError
from ..files import Array
from ..models.seeding.record import PHILOX

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource


class OpenVinoSession:
    """A compiled graph; answers with its first output."""

    notes: tuple[str, ...] = ()

    def __init__(self, compiled: Any) -> None:
        self._compiled = compiled
        self._output = compiled.outputs[0]
        shape = compiled.inputs[0].partial_shape if compiled.inputs else []
        self.fixed_batch: int | None = shape[0].get_length() if len(shape) and shape[0].is_static else None

    def run(self, *inputs: Array) -> Array:
        """Return the first output.

        Raises:
            UnsupportedError: the graph does not compute on these inputs.
        """
        try:
            result = self._compiled(dict(enumerate(inputs)))[self._output]
        except RuntimeError as error:
            raise UnsupportedError(f"OpenVINO cannot run it: {_first_line(error)}.") from error
        # The session's own memory, which the next run overwrites.
        return np.array(result)


class OpenVino:
    """OpenVINO's CPU plugin."""

    name = "openvino-cpu"
    summary = "OpenVINO on the CPU, in single precision; an optional extra."
    # Measured when it is named: it is a second opinion, not what a format is made for.
    formats: tuple[str, ...] = ()
    needs_source = False

    def available(self) -> str | None:
        """Return how to install OpenVINO, or None when it is there."""
        if find_spec("openvino") is not None:
            return None
        return "OpenVINO is not installed; pip install 'sparsepack[openvino]'"

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ONNX artifacts that it computes right."""
        if not artifact.is_graph:
            return f"it runs ONNX files, not the format '{artifact.format}'"
        if artifact.format == "onnx-sparse":
            return "its sparse layers need the operators that the runtime onnxruntime-sparse-cpu registers"
        if artifact.format == "onnx-unpack" and _draws_philox(artifact):
            return f"it computes 64-bit integers in 32 bits, so the graph cannot draw {PHILOX} on it"
        return None

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> OpenVinoSession:
        """Compile the graph for the CPU; ``source`` is not needed."""
        import openvino

        core = openvino.Core()
        # Left alone, it would round to bfloat16 on processors that have it.
        options = {"INFERENCE_PRECISION_HINT": "f32", "INFERENCE_NUM_THREADS": threads, "PERFORMANCE_HINT": "LATENCY"}
        try:
            compiled = core.compile_model(core.read_model(artifact.path), "CPU", options)
        except RuntimeError as error:
            raise FileFormatError(f"{artifact.path}: OpenVINO cannot load it: {_first_line(error)}.") from error
        return OpenVinoSession(compiled)


def _draws_philox(artifact: Artifact) -> bool:
    seeds = [record.seed for record in artifact.records().values() if record.parametrisation != "identity"]
    return any(seed and seed.generator == PHILOX and seed.initialiser != "constant" for seed in seeds)


def _first_line(error: Exception) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip() and "Exception from" not in line]
    return (lines[0] if lines else type(error).__name__).removesuffix(".")
