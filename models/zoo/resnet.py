"""ResNet-18 and ResNet-50 for ImageNet (He et al. 2016).

The stride of a stage is on its first 3x3 convolution ("version 1.5" of ResNet-50).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape


class Bottleneck(nn.Module):
    """1x1 - 3x3 - 1x1 with batch norm around a shortcut, which is a 1x1 convolution where the shape changes."""

    expansion = 4

    def __init__(self, taken: int, width: int, stride: int) -> None:
        super().__init__()
        given = width * self.expansion
        self.conv1 = nn.Conv2d(taken, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride=stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, given, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(given)
        self.downsample = _shortcut(taken, given, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, taken, H, W] to [N, 4 width, H / stride, W / stride]."""
        shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        x = F.relu(self.bn2(self.conv2(x)))
        return F.relu(self.bn3(self.conv3(x)) + shortcut)


class BasicBlock(nn.Module):
    """3x3 - 3x3 with batch norm around a shortcut, which is a 1x1 convolution where the shape changes."""

    expansion = 1

    def __init__(self, taken: int, width: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(taken, width, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.downsample = _shortcut(taken, width, stride)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map [N, taken, H, W] to [N, width, H / stride, W / stride]."""
        shortcut = self.downsample(x)
        x = F.relu(self.bn1(self.conv1(x)))
        return F.relu(self.bn2(self.conv2(x)) + shortcut)


Block = type[Bottleneck] | type[BasicBlock]


class ResNet(nn.Module):
    """A 7x7 convolution, max pool, four stages of blocks, global mean, classifier."""

    def __init__(self, channels: int, block: Block, blocks: tuple[int, int, int, int], classes: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 64, 7, stride=2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64)
        self.layer1 = _stage(block, 64, 64, blocks[0], 1)
        self.layer2 = _stage(block, 64 * block.expansion, 128, blocks[1], 2)
        self.layer3 = _stage(block, 128 * block.expansion, 256, blocks[2], 2)
        self.layer4 = _stage(block, 256 * block.expansion, 512, blocks[3], 2)
        self.fc = nn.Linear(512 * block.expansion, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        x = F.max_pool2d(F.relu(self.bn1(self.conv1(x))), 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        logits: torch.Tensor = self.fc(x.mean(dim=(2, 3)))
        return logits


def _shortcut(taken: int, given: int, stride: int) -> nn.Module:
    if stride == 1 and taken == given:
        return nn.Identity()
    return nn.Sequential(nn.Conv2d(taken, given, 1, stride=stride, bias=False), nn.BatchNorm2d(given))


def _stage(block: Block, taken: int, width: int, blocks: int, stride: int) -> nn.Sequential:
    first = block(taken, width, stride)
    return nn.Sequential(first, *(block(width * block.expansion, width, 1) for _ in range(blocks - 1)))


def resnet_18(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build ResNet-18; padding in every strided layer and the global mean take images of any size."""
    return _build(BasicBlock, (2, 2, 2, 2), shape, classes)


def resnet_50(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build ResNet-50; padding in every strided layer and the global mean take images of any size."""
    return _build(Bottleneck, (3, 4, 6, 3), shape, classes)


def _build(
    block: Block, blocks: tuple[int, int, int, int], shape: tuple[int, ...], classes: int
) -> tuple[nn.Module, list[str]]:
    channels, _, _ = image_shape(shape)
    return ResNet(channels, block, blocks, classes), changed("conv1 takes", "channel", "channels", channels, 3)
