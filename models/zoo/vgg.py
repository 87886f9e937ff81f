"""VGG-16 and VGG-19 for CIFAR: 3x3 convolutions with batch norm and one fully connected layer.

Simonyan and Zisserman 2015, in the form that the pruning literature uses (Liu et al. 2017, Tanaka et al. 2020): four
max pools between the stages, and the mean over the 2x2 positions that a 32x32 image then has left.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import nn

from .entry import changed, image_shape

# Convolutions of each stage by their channels; a 2x2 max pool ends each stage but the last.
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
        # Synaptic flow and other sums over paths need the mean here: a max pool lets one position of four through.
        if self.average:
            x = F.adaptive_avg_pool2d(x, 1)
        logits: torch.Tensor = self.fc(torch.flatten(x, 1))
        return logits


def vgg_16(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build VGG-16; pools that no longer fit are left out, and the positions that are left are averaged."""
    return _build(_VGG_16, shape, classes)


def vgg_19(shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    """Build VGG-19; pools that no longer fit are left out, and the positions that are left are averaged."""
    return _build(_VGG_19, shape, classes)


def _build(stages: Stages, shape: tuple[int, ...], classes: int) -> tuple[nn.Module, list[str]]:
    channels, height, width = image_shape(shape)
    fitting = len(stages) - 1
    pools = min(fitting, min(height, width).bit_length() - 1)
    adaptations = changed("conv1 takes", "channel", "channels", channels, 3)
    if pools < fitting:
        kept = f"only the first {pools} of {fitting} pools" if pools else f"none of the {fitting} pools"
        adaptations.append(f"The {height}x{width} input has room for {kept}.")
    left = (height >> pools, width >> pools)
    if left not in ((1, 1), (2, 2)):
        adaptations.append(f"The {left[0]}x{left[1]} positions before fc are averaged instead of 2x2.")
    return VGG(stages, channels, pools, left != (1, 1), classes), adaptations
