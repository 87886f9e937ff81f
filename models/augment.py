"""Augmentation of training images: random crops and flips, drawn from the seeded generator, on whole batches.

What happens to an image depends on (seed, epoch, its place in the data set) alone, not on batch size or order.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt
import torch
import torch.nn.functional as F
from torch import Tensor

from .seeding.shuffle import integers

PADDING = 4

# A batch [B, C, H, W] as stored and its places in the data set -> the batch, augmented.
Transform = Callable[[Tensor, npt.NDArray[np.int64]], Tensor]


def crop_flip(seed: int, epoch: int, count: int) -> Transform:
    """Return the usual augmentation of small images for one epoch: pad by 4 with zeros, crop at random, flip half.

    Source: He et al. 2016, "Deep residual learning for image recognition", section 4.2. Zeros are those of the stored
    images (black), as in torchvision.

    Args:
        seed: the run's seed.
        epoch: number of the epoch.
        count: examples in the split.
    """
    rows, columns = (
        integers(seed, f"augment/{epoch}/{axis}", 0, count, 2 * PADDING + 1) for axis in ("rows", "columns")
    )
    flips = integers(seed, f"augment/{epoch}/flips", 0, count, 2)

    def transform(images: Tensor, places: npt.NDArray[np.int64]) -> Tensor:
        batch, channels, height, width = images.shape
        padded = F.pad(images, (PADDING, PADDING, PADDING, PADDING))
        down = rows[places][:, None] + np.arange(height)
        along = np.arange(width)
        across = columns[places][:, None] + np.where(flips[places][:, None] == 1, along[::-1], along)
        # One flat gather a channel; it is seven times faster than indexing rows and columns.
        pixels = torch.from_numpy(down[:, :, None] * padded.shape[3] + across[:, None, :]).to(images.device)
        index = pixels.reshape(batch, 1, -1).expand(batch, channels, -1)
        return padded.reshape(batch, channels, -1).gather(2, index).reshape(images.shape)

    return transform


AUGMENTATIONS: dict[str, Callable[[int, int, int], Transform]] = {"crop-flip": crop_flip}
