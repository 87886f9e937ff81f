"""ONNX Runtime with the native operators registered: an ``onnx-sparse`` artifact on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..errors import FileFormatError, RuntimeUnavailableError
from .native import library_path, unavailable
from .onnx_session import OnnxSession, open_session, session_errors, session_options

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..exporters.sparse_graph.choose import LayerChoice
    from ..models.source import TorchSource

_PROVIDERS = ("CPUExecutionProvider",)


class OnnxRuntimeSparse:
    """ONNX Runtime on the CPU with the native sparse operators."""

    name = "onnxruntime-sparse-cpu"
    summary = "ONNX Runtime on the CPU with the native sparse operators: pruned weights cost nothing."
    formats: tuple[str, ...] = ("onnx-sparse",)
    needs_source = False
    providers = _PROVIDERS

    def available(self) -> str | None:
        """Return why the operators are missing, or None when they are there."""
        return unavailable()

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ``onnx-sparse`` artifacts."""
        if artifact.format in self.formats:
            return None
        return f"it runs the format 'onnx-sparse', not '{artifact.format}'"

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> OnnxSession:
        """Load the graph; the weights are laid out for the kernels meanwhile. ``source`` is not needed."""
        from ..exporters.onnx_sparse_artifact import OnnxSparseArtifact

        if not isinstance(artifact, OnnxSparseArtifact):
            raise FileFormatError(f"{artifact.path} is no 'onnx-sparse' file.")
        session = open_session(artifact.path, self.name, _PROVIDERS, self.options(threads))
        return OnnxSession(session, (sparse_share(artifact.layers),))

    def options(self, threads: int) -> Any:
        """Return session options with the operators registered.

        Raises:
            RuntimeUnavailableError: they are not there, or ONNX Runtime refuses them.
        """
        options = session_options(threads)
        library = library_path()
        try:
            options.register_custom_ops_library(str(library))
        except session_errors() as error:
            raise RuntimeUnavailableError(f"{self.name}: ONNX Runtime refuses {library}: {error}") from error
        return options


def sparse_macs(layers: list[LayerChoice]) -> float | None:
    """Return the share of the dense network's multiply-adds whose layers run sparse; None where it is not known."""
    if not layers or any(layer.macs is None for layer in layers):
        return None
    total = sum(layer.macs or 0 for layer in layers)
    return sum(layer.macs or 0 for layer in layers if layer.sparse) / total if total else None


def sparse_share(layers: list[LayerChoice]) -> str:
    """Return the sentence that says how much of a network runs sparse."""
    sparse = [layer for layer in layers if layer.sparse]
    text = f"{len(sparse)} of {len(layers)} layers run sparse"
    share = sparse_macs(layers)
    if share is None:
        return f"{text}; their share of the multiply-adds is not known."
    total = sum(layer.macs or 0 for layer in layers)
    kept = sum((1 - layer.sparsity) * (layer.macs or 0) for layer in sparse) / total
    return (
        f"{text}: {100 * share:.1f} % of the dense network's multiply-adds, of which {100 * (share - kept):.1f} "
        "points fall on zeros and are skipped."
    )
