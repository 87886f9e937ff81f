"""PyTorch's 2:4 semi-structured matrices on a CUDA device: half precision, linear layers whose weight is pruned 2:4."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from ..exporters.nm import SEMI_STRUCTURED
from .layers import coverage, pruned, swap_linear_layers
from .torch_dense import TorchSession, cuda_missing, module_of, refuses_model, source_of

if TYPE_CHECKING:
    from torch import nn

    from ..exporters.artifact import Artifact
    from ..models.source import TorchSource

_STRUCTURE = "2:4"
_ROWS, _COLUMNS = SEMI_STRUCTURED
# Sparse tensor cores came with compute capability 8.0 (Ampere).
_CAPABILITY = (8, 0)


@dataclass(frozen=True)
class TorchSemiStructured:
    """PyTorch eager on a CUDA device with 2:4 weights in the linear layers that qualify."""

    name: str = "torch-semi-structured-cuda"
    summary: str = "PyTorch on a CUDA device (compute capability 8.0 or later), float16, 2:4 linear layers sparse."
    formats: tuple[str, ...] = ("nm",)
    needs_source: ClassVar[bool] = True

    def available(self) -> str | None:
        """Return why there is no device with sparse tensor cores, or None when there is one."""
        missing = cuda_missing()
        if missing is not None:
            return missing
        import torch

        found = torch.cuda.get_device_capability()
        if found < _CAPABILITY:
            return f"the CUDA device has compute capability {found[0]}.{found[1]}; sparse tensor cores need 8.0"
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ``nm`` artifacts that hold a 2:4 tensor and whose model PyTorch can build."""
        if artifact.format != "nm":
            return f"it runs the format 'nm', not '{artifact.format}'"
        if not pruned(artifact, _STRUCTURE):
            return "none of its tensors is pruned 2:4, the only pattern that the hardware knows"
        return refuses_model(artifact.model)

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> TorchSession:
        """Build the module in half precision and convert the linear layers that qualify."""
        import torch
        from torch import nn

        torch.set_num_threads(threads)
        module = module_of(artifact, source_of(artifact, source)).half().to("cuda")
        sparse = pruned(artifact, _STRUCTURE)

        def swap(layer: nn.Linear, weight: str) -> nn.Module | None:
            if weight not in sparse or layer.weight.shape[0] % _ROWS or layer.weight.shape[1] % _COLUMNS:
                return None
            converted = torch.sparse.to_sparse_semi_structured(layer.weight.detach())
            layer.weight = nn.Parameter(converted, requires_grad=False)
            return layer

        swapped = swap_linear_layers(module, swap)
        notes = ("computes in float16.", coverage(swapped, sparse, "2:4"))
        return TorchSession(module, "cuda", notes, half=True)
