"""A small vision transformer (Dosovitskiy et al. 2021) for CIFAR-sized images."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import ModelError
from .entry import changed, image_shape, padding_to


class Block(nn.Module):
    """Pre-norm self-attention and a two-layer perceptron, each added to its input."""

    def __init__(self, hidden: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.attention_norm = nn.LayerNorm(hidden)
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.intermediate = nn.Linear(hidden, feed_forward)
        self.output = nn.Linear(feed_forward, hidden)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map states [N, T, hidden] to states [N, T, hidden]."""
        x = x + self._attend(self.attention_norm(x))
        states: torch.Tensor = x + self.output(F.gelu(self.intermediate(self.norm(x))))
        return states

    def _attend(self, x: torch.Tensor) -> torch.Tensor:
        _, tokens, hidden = x.shape
        split = (-1, tokens, self.heads, hidden // self.heads)
        query, key, value = (
            projection(x).reshape(split).transpose(1, 2) for projection in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(hidden // self.heads)
        mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(-1, tokens, hidden)
        attended: torch.Tensor = self.attention_output(mixed)
        return attended


class VisionTransformer(nn.Module):
    """Patches -> linear embedding + positions -> blocks -> norm -> mean over the patches -> classes."""

    def __init__(
        self,
        channels: int,
        grid: tuple[int, int],
        padding: tuple[int, int, int, int],
        classes: int,
        *,
        patch: int,
        hidden: int,
        layers: int,
        heads: int,
        feed_forward: int,
    ) -> None:
        super().__init__()
        self.padding = padding
        self.patches = nn.Conv2d(channels, hidden, patch, stride=patch)
        self.positions = nn.Embedding(grid[0] * grid[1], hidden)
        self.blocks = nn.ModuleList(Block(hidden, heads, feed_forward) for _ in range(layers))
        self.norm = nn.LayerNorm(hidden)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W] to logits [N, classes]."""
        if any(self.padding):
            x = F.pad(x, self.padding)
        x = self.patches(x).flatten(2).transpose(1, 2) + self.positions.weight
        for block in self.blocks:
            x = block(x)
        logits: torch.Tensor = self.fc(self.norm(x).mean(dim=1))
        return logits


def vit_tiny(
    shape: tuple[int, ...], classes: int, *, patch: int, hidden: int, layers: int, heads: int, feed_forward: int
) -> tuple[nn.Module, list[str]]:
    """Build the transformer; an image smaller than a patch is padded, and pixels that fill no patch are not read.

    Raises:
        ModelError: the heads do not divide the hidden width.
    """
    if hidden % heads:
        raise ModelError(f"vit-tiny cannot split a hidden width of {hidden} into {heads} equal heads.")
    channels, height, width = image_shape(shape)
    padding, adaptations = padding_to(patch, height, width)
    grid = max(height, patch) // patch, max(width, patch) // patch
    adaptations += changed("The patches take", "channel", "channels", channels, 3)
    adaptations += changed("The encoder takes", "patch", "patches", grid[0] * grid[1], 64)
    module = VisionTransformer(
        channels, grid, padding, classes, patch=patch, hidden=hidden, layers=layers, heads=heads,
        feed_forward=feed_forward,
    )  # fmt: skip
    return module, adaptations
