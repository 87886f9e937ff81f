"""Conv-4: the VGG-like network of the lottery-ticket papers (Frankle and Carbin 2019, table 1)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape, padding_to


class Conv4(nn.Module):
    """64, 64, pool, 128, 128, pool (3x3, same padding), 256, 256, classes; ReLU after every layer but the last."""

    def __init__(self, channels: int, padding: tuple[int, int, int, int], features: int, classes: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv1 = nn.Conv2d(channels, 64, 3, padding=1)
        self.conv2 = nn.Conv2d(64, 64, 3, padding=1)
        self.conv3 = nn.Conv2d(64, 128, 3, padding=1)
        self.conv4 = nn.Conv2d(128, 128, 3, padding=1)
        self.fc1 = nn.Linear(features, 256)
        self.fc2 = nn.Linear(256, 256)
        self.fc3 = nn.Linear(256, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = F.max_pool2d(F.relu(self.conv2(F.relu(self.conv1(x)))), 2)
        x = F.max_pool2d(F.relu(self.conv4(F.relu(self.conv3(x)))), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(x)))
        return logits


def conv_4(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build Conv-4; images below 4x4 are padded, and fc1 takes what the second pool leaves."""
    channels, height, width = image_shape(shape)
    padding, adaptations = padding_to(4, height, width)
    features = 128 * (max(height, 4) // 4) * (max(width, 4) // 4)
    adaptations += changed("conv1 takes", "channel", "channels", channels, 3) + changed(
        "fc1 takes", "feature", "features", features, 8192
    )
    return Conv4(channels, padding, features, classes), adaptations
