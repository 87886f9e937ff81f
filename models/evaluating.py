"""Run a network as it would run in use, and leave it as it was."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import nn


@contextmanager
def evaluating(module: nn.Module) -> Iterator[None]:
    """Put ``module`` into eval mode without gradients; afterwards each layer has its own mode again.

    PyTorch's fused encoder kernel is off meanwhile: it computes whole transformer blocks without calling their layers,
    so that no hook would see them.
    """
    training = [layer for layer in module.modules() if layer.training]
    fused = torch.backends.mha.get_fastpath_enabled()
    module.eval()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with torch.no_grad():
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(fused)
        for layer in training:
            layer.training = True
