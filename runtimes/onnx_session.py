"""ONNX Runtime: an ONNX artifact, or any ONNX file, on the provider that the runtime is named after."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from ..errors import FileFormatError, RuntimeUnavailableError, UnsupportedError
from ..files import Array

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource


class OnnxSession:
    """A loaded ONNX graph; answers with its first output."""

    def __init__(self, session: Any, notes: tuple[str, ...] = ()) -> None:
        self.notes = notes
        self._session = session
        self._errors = session_errors()
        self._names = [value.name for value in session.get_inputs()]
        self._outputs = [session.get_outputs()[0].name]
        shape = session.get_inputs()[0].shape if self._names else []
        self.fixed_batch: int | None = shape[0] if shape and isinstance(shape[0], int) else None

    def run(self, *inputs: Array) -> Array:
        """Return the first output.

        Raises:
            UnsupportedError: the graph does not compute on these inputs.
        """
        try:
            result: Array = self._session.run(self._outputs, dict(zip(self._names, inputs, strict=True)))[0]
        except self._errors as error:
            raise UnsupportedError(f"ONNX Runtime cannot run it: {_first_line(error)}.") from error
        return result


def session_errors() -> tuple[type[Exception], ...]:
    """Return the exceptions of ONNX Runtime, which have no common base of their own."""
    from onnxruntime.capi import onnxruntime_pybind11_state as state

    names = (
        "EPFail",
        "Fail",
        "InvalidArgument",
        "InvalidGraph",
        "InvalidProtobuf",
        "NoModel",
        "NoSuchFile",
        "NotImplemented",
        "RuntimeException",
    )
    return tuple(getattr(state, name) for name in names)


def _first_line(error: Exception) -> str:
    return str(error).strip().partition("\n")[0].removesuffix(".")


@dataclass(frozen=True)
class OnnxRuntime:
    """ONNX Runtime on the first of its execution providers; the others take the nodes that it leaves."""

    name: str
    providers: tuple[str, ...]
    summary: str
    needs: str = "onnxruntime-gpu and needs a CUDA device"
    formats: tuple[str, ...] = ("onnx", "onnx-unpack", "onnx-slim", "onnx-int8")
    needs_source: ClassVar[bool] = False

    def available(self) -> str | None:
        """Return why the provider is missing, or None when it is there."""
        import onnxruntime

        if self.providers[0] in onnxruntime.get_available_providers():
            return None
        version = onnxruntime.__version__
        return f"the installed onnxruntime {version} has no {self.providers[0]}; it comes with {self.needs}"

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ONNX artifacts."""
        if artifact.format == "onnx-sparse":
            return "its sparse layers need the operators that the runtime onnxruntime-sparse-cpu registers"
        return None if artifact.is_graph else f"it runs ONNX files, not the format '{artifact.format}'"

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> OnnxSession:
        """Load the graph with every optimisation that ONNX Runtime has; ``source`` is not needed."""
        return OnnxSession(open_session(artifact.path, self.name, self.providers, session_options(threads)))


def session_options(threads: int) -> Any:
    """Return the options that every session of ours has: all optimisations, and no spinning between runs."""
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    options.inter_op_num_threads = 1
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
    # Errors are raised; what is left below them is chatter about single nodes.
    options.log_severity_level = 3
    # Two sessions that spin between runs slow each other down 2x; this keeps interleaved times within 2 % of
    # isolated ones and leaves isolated ones as they are.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def open_session(path: Path, runtime: str, providers: tuple[str, ...], options: Any) -> Any:
    """Return ONNX Runtime's session on the first of some providers; the others take the nodes that it leaves.

    Raises:
        FileFormatError: it cannot load the file.
        RuntimeUnavailableError: it loads it, but not on the first provider; or has no kernel for one of its nodes.
    """
    import onnxruntime
    from onnxruntime.capi.onnxruntime_pybind11_state import NotImplemented as NoKernel

    try:
        session = onnxruntime.InferenceSession(str(path), options, providers=list(providers))
    except NoKernel as error:
        raise RuntimeUnavailableError(
            f"{path}: {runtime} lacks a kernel that the graph needs ({_first_line(error)}); run it on another runtime, "
            "or export a network that computes in float32."
        ) from error
    except session_errors() as error:
        raise FileFormatError(f"{path}: ONNX Runtime cannot load it: {_first_line(error)}.") from error
    if session.get_providers()[0] != providers[0]:
        # ONNX Runtime falls back to the CPU in silence when a provider is installed but finds no device.
        raise RuntimeUnavailableError(f"{runtime}: ONNX Runtime fell back to {session.get_providers()[0]}.")
    return session
