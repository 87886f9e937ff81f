"""Wide residual networks for CIFAR: pre-activation blocks, WRN-depth-width (Zagoruyko and Komodakis 2016)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape


class WideBlock(nn.Module):
    """Norm - ReLU - 3x3, twice, around a shortcut, which is a 1x1 convolution where the shape changes."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(taken)
        self.conv1 = nn.Conv2d(taken, given, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(given)
        self.conv2 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.changes = stride != 1 or taken != given
        self.shortcut = nn.Conv2d(taken, given, 1, stride=stride, bias=False) if self.changes else nn.Identity()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, taken, H, W] to [N, given, H / stride, W / stride]."""
        active = F.relu(self.bn1(x))
        # Where the shape changes, norm and activation are shared by both paths.
        kept = self.shortcut(active) if self.changes else x
        total: torch.Tensor = kept + self.conv2(F.relu(self.bn2(self.conv1(active))))
        return total


class WideResNet(nn.Module):
    """A 3x3 convolution, three stages of blocks, norm and ReLU, global mean, classifier."""

    def __init__(self, channels: int, blocks: int, width: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.layer1 = _stage(16, 16 * width, blocks, 1)
        self.layer2 = _stage(16 * width, 32 * width, blocks, 2)
        self.layer3 = _stage(32 * width, 64 * width, blocks, 2)
        self.bn = nn.BatchNorm2d(64 * width)
        self.fc = nn.Linear(64 * width, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = F.relu(self.bn(self.layer3(self.layer2(self.layer1(self.conv1(x))))))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(taken: int, given: int, blocks: int, stride: int) -> nn.Sequential:
    first = WideBlock(taken, given, stride)
    return nn.Sequential(first, *(WideBlock(given, given, 1) for _ in range(blocks - 1)))


def wrn_22_2(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build WRN-22-2; the global mean takes images of any size."""
    return _build(shape, classes, 3, 2)


def wrn_28_10(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build WRN-28-10; the global mean takes images of any size."""
    return _build(shape, classes, 4, 10)


def _build(shape: tuple[int, ...], classes: int, blocks: int, width: int) -> tuple[nn.Module, list[str]]:
    channels, _, _ = image_shape(shape)
    return WideResNet(channels, blocks, width, classes), changed("conv1 takes", "channel", "channels", channels, 3)
