"""VGG-16 and VGG-19 for CIFAR: 3x3 convolutions with batch norm and one fully connected layer.

Simonyan and Zisserman 2015, in the form that the pruning literature uses (Tanaka et al. 2020 and others).
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape

# Convolutions of each stage by their channels; a 2x2 max pool ends a stage.
_VGG_16 = ((64,) * 2, (128,) * 2, (256,) * 3, (512,) * 3, (512,) * 3)
_VGG_19 = ((64,) * 2, (128,) * 2, (256,) * 4, (512,) * 4, (512,) * 4)
Stages = tuple[tuple[int, ...], ...]


class VGG(nn.Module):
    """conv1 .. conv13 (conv16 in VGG-19), each with batch norm and ReLU, pools between the stages, then ``fc``."""

    def __init__(self, stages: Stages, channels: int, pools: int, average: bool, classes: int) -> None:
        super().__init__()
        self.stages = stages
        self.pools = pools
        self.average = average
        index = 0
        for stage in stages:
            for width in stage:
                index += 1
                # Batch norm subtracts the mean, so a bias before it would do nothing.
                self.add_module(f"conv{index}", nn.Conv2d(channels, width, 3, padding=1, bias=False))
                self.add_module(f"bn{index}", nn.BatchNorm2d(width))
                channels = width
        self.fc = nn.Linear(channels, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        index = 0
        for number, stage in enumerate(self.stages):
            for _ in stage:
                index += 1
                x = F.relu(self.get_submodule(f"bn{index}")(self.get_submodule(f"conv{index}")(x)))
            if number < self.pools:
                x = F.max_pool2d(x, 2)
        if self.average:
            x = F.adaptive_avg_pool2d(x, 1)
        logits: torch.Tensor = self.fc(torch.flatten(x, 1))
        return logits


def vgg_16(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build VGG-16; pools that no longer fit are left out, and what is larger than one position is averaged."""
    return _build(_VGG_16, shape, classes)


def vgg_19(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build VGG-19; pools that no longer fit are left out, and what is larger than one position is averaged."""
    return _build(_VGG_19, shape, classes)


def _build(stages: Stages, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    channels, height, width = image_shape(shape)
    pools = min(len(stages), min(height, width).bit_length() - 1)
    adaptations = changed("conv1 takes", "channel", "channels", channels, 3)
    if pools < len(stages):
        kept = f"only the first {pools} of {len(stages)} pools" if pools else f"none of the {len(stages)} pools"
        adaptations.append(f"The {height}x{width} input has room for {kept}.")
    left = (height >> pools, width >> pools)
    average = left != (1, 1)
    if average:
        adaptations.append(f"The {left[0]}x{left[1]} positions before fc are averaged.")
    return VGG(stages, channels, pools, average, classes), adaptations
