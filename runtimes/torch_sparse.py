"""PyTorch's sparse CSR matrices on the CPU: linear layers run sparse, everything else (convolutions too) runs dense."""

from __future__ import annotations

import warnings
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

from .csr_matrices import csr_matrices
from .layers import coverage, pruned, swap_linear_layers
from .torch_dense import TorchSession, module_of, refuses_model, source_of

if TYPE_CHECKING:
    from torch import Tensor, nn

    from ..exporters.artifact import Artifact
    from ..exporters.csr import CsrMatrix
    from ..models.source import TorchSource


@dataclass(frozen=True)
class TorchSparseCsr:
    """PyTorch eager on the CPU with the linear layers' weights as ``torch.sparse_csr_tensor``."""

    name: str = "torch-sparse-csr-cpu"
    summary: str = "PyTorch on the CPU with sparse CSR weights in the linear layers; convolutions run dense."
    formats: tuple[str, ...] = ("csr",)
    needs_source: ClassVar[bool] = True

    def available(self) -> str | None:
        """Return why PyTorch cannot multiply CSR matrices here (it is built without MKL), or None when it can."""
        import numpy as np
        import torch

        from ..exporters.csr import CsrMatrix

        try:
            one = np.ones(1, np.int32)
            as_tensor(CsrMatrix(np.array([0, 1], np.int32), 0 * one, one.astype(np.float32), (1, 1))) @ torch.ones(1, 1)
        except RuntimeError as error:
            return f"this PyTorch cannot multiply sparse CSR matrices: {str(error).splitlines()[0]}"
        return None

    def accepts(self, artifact: Artifact) -> str | None:
        """Return None for ``csr`` artifacts whose model PyTorch can build."""
        if artifact.format != "csr":
            return f"it runs the format 'csr', not '{artifact.format}'"
        return refuses_model(artifact.model)

    def load(self, artifact: Artifact, *, threads: int, source: TorchSource | None = None) -> TorchSession:
        """Build the module and give its linear layers the artifact's CSR arrays, unchanged."""
        import torch

        torch.set_num_threads(threads)
        module = module_of(artifact, source_of(artifact, source))
        matrices = csr_matrices(artifact)

        def swap(layer: nn.Linear, weight: str) -> nn.Module | None:
            return sparse_linear(as_tensor(matrices[weight]), layer.bias) if weight in matrices else None

        swapped = swap_linear_layers(module, swap)
        return TorchSession(module, "cpu", (coverage(swapped, pruned(artifact), "sparse"),))


def as_tensor(matrix: CsrMatrix) -> Tensor:
    """Return the arrays, unchanged, as a ``torch.sparse_csr_tensor``; PyTorch checks their structure."""
    import torch

    crow, col, values = (torch.from_numpy(part) for part in matrix[:3])
    with warnings.catch_warnings():
        # PyTorch says once that its CSR tensors are in beta; a user of this runtime can do nothing about it.
        warnings.filterwarnings("ignore", message="Sparse CSR tensor support is in beta", category=UserWarning)
        return torch.sparse_csr_tensor(crow, col, values, size=matrix.shape, check_invariants=True)


def sparse_linear(matrix: Tensor, bias: Tensor | None) -> nn.Module:
    """Return a layer that computes x W^T + b with a sparse W [outputs, inputs], for x [..., inputs]."""
    import torch
    from torch import nn

    class SparseLinear(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            rows = x.reshape(-1, x.shape[-1])
            # A matrix-vector product is more than twice as fast as a matrix product with one column.
            if len(rows) == 1:
                product = torch.mv(matrix, rows[0])[None]
            else:
                product = (matrix @ rows.T).T
            if bias is not None:
                product = product + bias
            return product.reshape(*x.shape[:-1], matrix.shape[0])

    return SparseLinear()
