"""AlexNet and VGG-11 for ImageNet: convolutions, an average to fixed positions, and three fully connected layers.

AlexNet is the single-column form of Krizhevsky (2014, "One weird trick"); VGG-11 is configuration A of Simonyan and
Zisserman (2015), without batch norm.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape, padding_to

_HIDDEN = 4096


class Convolutional(nn.Module):
    """``features``, an average over a grid of ``positions`` squared, then 4096, 4096, classes with dropout before each.

    The last layer has no dropout before it, as in the papers' networks.
    """

    def __init__(
        self, features: nn.Sequential, width: int, positions: int, padding: tuple[int, int, int, int], classes: int
    ) -> None:
        super().__init__()
        self.padding = padding
        self.positions = positions
        self.features = features
        self.dropout = nn.Dropout(0.5)
        self.fc1 = nn.Linear(width * positions * positions, _HIDDEN)
        self.fc2 = nn.Linear(_HIDDEN, _HIDDEN)
        self.fc3 = nn.Linear(_HIDDEN, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = self.features(x)
        if x.shape[2:] != (self.positions, self.positions):
            x = F.adaptive_avg_pool2d(x, self.positions)
        x = F.relu(self.fc1(self.dropout(torch.flatten(x, 1))))
        logits: torch.Tensor = self.fc3(F.relu(self.fc2(self.dropout(x))))
        return logits


def alexnet(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build AlexNet; images below 63x63 are padded, and other sizes are averaged to 6x6 positions before fc1."""
    channels, height, width = image_shape(shape)
    padding, adaptations = padding_to(63, height, width)
    adaptations += changed("The first convolution takes", "channel", "channels", channels, 3)
    features = nn.Sequential(
        nn.Conv2d(channels, 64, 11, stride=4, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(64, 192, 5, padding=2), nn.ReLU(), nn.MaxPool2d(3, 2),
        nn.Conv2d(192, 384, 3, padding=1), nn.ReLU(),
        nn.Conv2d(384, 256, 3, padding=1), nn.ReLU(),
        nn.Conv2d(256, 256, 3, padding=1), nn.ReLU(), nn.MaxPool2d(3, 2),
    )  # fmt: skip
    return Convolutional(features, 256, 6, padding, classes), adaptations


def vgg_11(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build VGG-11; images below 32x32 are padded, and other sizes are averaged to 7x7 positions before fc1."""
    channels, height, width = image_shape(shape)
    padding, adaptations = padding_to(32, height, width)
    adaptations += changed("The first convolution takes", "channel", "channels", channels, 3)
    layers: list[nn.Module] = []
    for stage in ((64,), (128,), (256, 256), (512, 512), (512, 512)):
        for given in stage:
            layers += [nn.Conv2d(channels, given, 3, padding=1), nn.ReLU()]
            channels = given
        layers.append(nn.MaxPool2d(2))
    return Convolutional(nn.Sequential(*layers), 512, 7, padding, classes), adaptations
