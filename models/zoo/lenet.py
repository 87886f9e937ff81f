"""The LeNets: LeNet-300-100 and LeNet-5 (LeCun et al. 1998; the latter as Caffe has it), and the LeNet of S4.

S4 is Paganini and Forde, "On iterative neural network pruning, reinitialization, and the similarity of masks", 2020.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape, padding_to

Padding = tuple[int, int, int, int]


class LeNet300100(nn.Module):
    """features -> 300 -> 100 -> classes, ReLU between; the input is flattened."""

    def __init__(self, features: int, classes: int) -> None:
        super().__init__()
        self.fc1 = nn.Linear(features, 300)
        self.fc2 = nn.Linear(300, 100)
        self.fc3 = nn.Linear(100, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map inputs [N, ...] to logits [N, classes]."""
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        x = F.relu(self.fc2(x))
        logits: torch.Tensor = self.fc3(x)
        return logits


class LeNet5Caffe(nn.Module):
    """conv 5x5, 20 - pool - conv 5x5, 50 - pool - 500 - ReLU - classes; Caffe has no ReLU after the convolutions."""

    def __init__(self, channels: int, padding: Padding, features: int, classes: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv1 = nn.Conv2d(channels, 20, 5)
        self.conv2 = nn.Conv2d(20, 50, 5)
        self.fc1 = nn.Linear(features, 500)
        self.fc2 = nn.Linear(500, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = F.max_pool2d(self.conv1(_padded(x, self.padding)), 2)
        x = F.max_pool2d(self.conv2(x), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        logits: torch.Tensor = self.fc2(x)
        return logits


class LeNetS4(nn.Module):
    """conv 3x3, 6 - ReLU - pool - conv 3x3, 16 - ReLU - pool - 120 - ReLU - 84 - ReLU - classes."""

    def __init__(self, channels: int, padding: Padding, features: int, classes: int) -> None:
        super().__init__()
        self.padding = padding
        self.conv1 = nn.Conv2d(channels, 6, 3)
        self.conv2 = nn.Conv2d(6, 16, 3)
        self.fc1 = nn.Linear(features, 120)
        self.fc2 = nn.Linear(120, 84)
        self.fc3 = nn.Linear(84, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = F.max_pool2d(F.relu(self.conv1(_padded(x, self.padding))), 2)
        x = F.max_pool2d(F.relu(self.conv2(x)), 2)
        x = F.relu(self.fc1(torch.flatten(x, 1)))
        x = F.relu(self.fc2(x))
        logits: torch.Tensor = self.fc3(x)
        return logits


def lenet_300_100(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build LeNet-300-100 for inputs of any shape."""
    features = math.prod(shape)
    return LeNet300100(features, classes), changed("fc1 takes", "feature", "features", features, 784)


def lenet_5_caffe(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build LeNet-5-Caffe; images below 16x16 are padded, and fc1 takes what the second pool leaves."""
    channels, padding, positions, adaptations = _fit(shape, kernel=5)
    adaptations += changed("fc1 takes", "feature", "features", 50 * positions, 800)
    return LeNet5Caffe(channels, padding, 50 * positions, classes), adaptations


def lenet_s4(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build the LeNet of S4; images below 10x10 are padded, and fc1 takes what the second pool leaves."""
    channels, padding, positions, adaptations = _fit(shape, kernel=3)
    adaptations += changed("fc1 takes", "feature", "features", 16 * positions, 400)
    return LeNetS4(channels, padding, 16 * positions, classes), adaptations


def _fit(shape: tuple[int, ...], kernel: int) -> tuple[int, Padding, int, list[str]]:
    """Fit two stages of a valid convolution and a 2x2 pool to an image.

    Returns:
        channels, padding, the positions left after both stages, and the adaptations in sentences.
    """
    channels, height, width = image_shape(shape)
    # One position is left of 2 + (kernel - 1) pixels by a stage, so two stages need this many.
    smallest = 2 * (2 + kernel - 1) + kernel - 1
    padding, adaptations = padding_to(smallest, height, width)
    positions = 1
    for extent in (max(height, smallest), max(width, smallest)):
        after_first = (extent - kernel + 1) // 2
        positions *= (after_first - kernel + 1) // 2
    return channels, padding, positions, adaptations + changed("conv1 takes", "channel", "channels", channels, 1)


def _padded(x: torch.Tensor, padding: Padding) -> torch.Tensor:
    return F.pad(x, padding) if any(padding) else x
