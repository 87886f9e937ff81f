"""CIFAR residual networks of depth 6n + 2 with option A shortcuts (He et al. 2016, section 4.2)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape


class BasicBlock(nn.Module):
    """Two 3x3 convolutions with batch norm around a shortcut that has no parameters."""

    def __init__(self, taken: int, given: int, stride: int) -> None:
        super().__init__()
        self.stride = stride
        self.added = given - taken
        self.conv1 = nn.Conv2d(taken, given, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(given)
        self.conv2 = nn.Conv2d(given, given, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(given)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, taken, H, W] to [N, given, H / stride, W / stride]."""
        shortcut = x
        if self.added:
            # Option A: every second position, and zeros for the new channels, half of them on each side.
            before = self.added // 2
            shortcut = F.pad(x[:, :, :: self.stride, :: self.stride], (0, 0, 0, 0, before, self.added - before))
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


class CifarResNet(nn.Module):
    """A 3x3 convolution, three stages of ``blocks`` blocks with 16, 32 and 64 channels, global mean, classifier."""

    def __init__(self, channels: int, blocks: int, classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        self.layer1 = _stage(16, 16, blocks, 1)
        self.layer2 = _stage(16, 32, blocks, 2)
        self.layer3 = _stage(32, 64, blocks, 2)
        self.fc = nn.Linear(64, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = F.relu(self.bn1(self.conv1(x)))
        x = self.layer3(self.layer2(self.layer1(x)))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _stage(taken: int, given: int, blocks: int, stride: int) -> nn.Sequential:
    first = BasicBlock(taken, given, stride)
    return nn.Sequential(first, *(BasicBlock(given, given, 1) for _ in range(blocks - 1)))


def resnet_20(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build ResNet-20; the global mean takes images of any size."""
    return _build(shape, classes, 3)


def resnet_32(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build ResNet-32; the global mean takes images of any size."""
    return _build(shape, classes, 5)


def resnet_56(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build ResNet-56; the global mean takes images of any size."""
    return _build(shape, classes, 9)


def _build(shape: tuple[int, ...], classes: int, blocks: int) -> tuple[nn.Module, list[str]]:
    channels, _, _ = image_shape(shape)
    return CifarResNet(channels, blocks, classes), changed("conv1 takes", "channel", "channels", channels, 3)
