"""Conv-2, Conv-4 and Conv-6: the VGG-like networks of the lottery-ticket papers (Frankle and Carbin 2019, figure 2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape, padding_to

_WIDTHS = (64, 128, 256)


class ConvN(nn.Module):
    """Stages of two 3x3 convolutions (same padding) and a pool, then 256, 256, classes; ReLU after all but the last."""

    def __init__(self, channels: int, stages: int, padding: tuple[int, int, int, int], features: int, classes: int):
        super().__init__()
        self.padding = padding
        self.convolutions = 2 * stages
        for number in range(self.convolutions):
            width = _WIDTHS[number // 2]
            self.add_module(f"conv{number + 1}", nn.Conv2d(channels, width, 3, padding=1))
            channels = width
        self.fc1 = nn.Linear(features, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        for number in range(1, self.convolutions + 1):
            x = F.relu(self.get_submodule(f"conv{number}")(x))
            if number % 2 == 0:
                x = F.max_pool2d(x, 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def conv_2(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build Conv-2; images below 2x2 are padded, and fc1 takes what the pool leaves."""
    return _build(shape, classes, 1)


def conv_4(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build Conv-4; images below 4x4 are padded, and fc1 takes what the second pool leaves."""
    return _build(shape, classes, 2)


def conv_6(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build Conv-6; images below 8x8 are padded, and fc1 takes what the third pool leaves."""
    return _build(shape, classes, 3)


def _build(shape: tuple[int, ...], classes: int, stages: int) -> tuple[nn.Module, list[str]]:
    channels, height, width = image_shape(shape)
    smallest = 2**stages
    padding, adaptations = padding_to(smallest, height, width)
    features = _WIDTHS[stages - 1] * (max(height, smallest) // smallest) * (max(width, smallest) // smallest)
    published = _WIDTHS[stages - 1] * (32 // smallest) ** 2
    adaptations += changed("conv1 takes", "channel", "channels", channels, 3)
    adaptations += changed("fc1 takes", "feature", "features", features, published)
    return ConvN(channels, stages, padding, features, classes), adaptations
