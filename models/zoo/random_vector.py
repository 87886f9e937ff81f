"""The random-vector functional-link net (Pao et al. 1994): one hidden layer, and the inputs beside it."""

from __future__ import annotations

import math

import torch
from torch import nn

from .entry import changed


class RandomVector(nn.Module):
    """features -> sigmoid units; units and features together -> classes; the input is flattened."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = nn.Linear(features, hidden)
        self.readout = nn.Linear(hidden + features, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs [N, ...] to logits [N, classes]."""
        flat = torch.flatten(x, 1)
        logits: torch.Tensor = self.readout(torch.cat([torch.sigmoid(self.hidden(flat)), flat], dim=1))
        return logits


def rvfl(shape: tuple[int, ...], classes: int, *, hidden: int) -> tuple[nn.Module, list[str]]:
    """Build the net for inputs of any shape."""
    features = math.prod(shape)
    return RandomVector(features, hidden, classes), changed("hidden takes", "feature", "features", features, 784)
