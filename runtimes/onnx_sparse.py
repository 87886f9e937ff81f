"""ONNX Runtime with the native operators registered: an ``onnx-sparse`` artifact on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ..errors import FileFormatError, RuntimeUnavailableError
from .native import library_path, unavailable
from .onnx_session import OnnxSession, open_session, session_errors, session_options

if TYPE_CHECKING:
    from ..exporters.artifact import Artifact
    from ..exporters.sparse_graph.choose import LayerChoice
    from ..models.source import TorchSource

_PROVIDER = "CPUExecutionProvider"


class OnnxRuntimeSparse:
    """ONNX Runtime on the CPU with the native sparse operators."""

    name = "onnxruntime-sparse-cpu"
    summary = "ONNX Runtime on the CPU with the native sparse operators: pruned weights cost nothing."
    formats: tuple[str, ...] = ("onnx-sparse",)

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
        options = session_options(threads)
        library = library_path()
        try:
            options.register_custom_ops_library(str(library))
        except session_errors() as error:
            raise RuntimeUnavailableError(f"{self.name}: ONNX Runtime refuses {library}: {error}") from error
        session = open_session(artifact.path, self.name, _PROVIDER, options)
        return OnnxSession(session, (sparse_share(artifact.layers),))


def sparse_share(layers: list[LayerChoice]) -> str:
    """Return the sentence that says how much of a network runs sparse."""
    sparse = [layer for layer in layers if layer.sparse]
    text = f"{len(sparse)} of {len(layers)} layers run sparse"
    if not layers or any(layer.macs is None for layer in layers):
        return f"{text}; their share of the multiply-adds is not known."
    total = sum(layer.macs or 0 for layer in layers)
    share = sum(layer.macs or 0 for layer in sparse) / total
    kept = sum((1 - layer.sparsity) * (layer.macs or 0) for layer in sparse) / total
    return (
        f"{text}: {100 * share:.1f} % of the dense network's multiply-adds, of which {100 * (share - kept):.1f} "
        "points fall on zeros and are skipped."
    )
