"""A text classifier: a BERT-style encoder over token ids (Devlin et al. 2019), small by default.

Post-norm blocks with separate query, key, value and output projections, as BERT and its distilled relatives have them;
hidden 384, 6 layers, 12 heads, feed-forward 1536, vocabulary 30522 and 128 tokens give the shape of MiniLM-L6.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import nn

from ...errors import ModelError
from .entry import changed

PADDING_ID = 0
# Added to the attention scores of padding; exp(-10,000) is zero, and the number fits half precision.
_MASKED = -1e4


class EncoderBlock(nn.Module):
    """Self-attention and a two-layer perceptron, each with a residual sum followed by layer norm."""

    def __init__(self, hidden: int, heads: int, feed_forward: int) -> None:
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(hidden, hidden)
        self.key = nn.Linear(hidden, hidden)
        self.value = nn.Linear(hidden, hidden)
        self.attention_output = nn.Linear(hidden, hidden)
        self.attention_norm = nn.LayerNorm(hidden)
        self.intermediate = nn.Linear(hidden, feed_forward)
        self.output = nn.Linear(feed_forward, hidden)
        self.output_norm = nn.LayerNorm(hidden)

    def forward(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        """Map states [N, T, hidden] and an additive mask [N, 1, 1, T] to states [N, T, hidden]."""
        x = self.attention_norm(x + self._attend(x, mask))
        states: torch.Tensor = self.output_norm(x + self.output(F.gelu(self.intermediate(x))))
        return states

    def _attend(self, x: torch.Tensor, mask: torch.Tensor) -> torch.Tensor:
        _, tokens, hidden = x.shape
        split = (-1, tokens, self.heads, hidden // self.heads)
        query, key, value = (
            projection(x).reshape(split).transpose(1, 2) for projection in (self.query, self.key, self.value)
        )
        scores = query @ key.transpose(2, 3) / math.sqrt(hidden // self.heads) + mask
        mixed = (torch.softmax(scores, dim=-1) @ value).transpose(1, 2).reshape(-1, tokens, hidden)
        attended: torch.Tensor = self.attention_output(mixed)
        return attended


class TextEncoder(nn.Module):
    """Token and position embeddings, layer norm, encoder blocks, mean over the tokens, classifier.

    Id 0 is padding: it is not attended to and does not enter the mean.
    """

    def __init__(
        self, tokens: int, classes: int, vocabulary: int, hidden: int, layers: int, heads: int, feed_forward: int
    ) -> None:
        super().__init__()
        self.tokens = nn.Embedding(vocabulary, hidden)
        self.positions = nn.Embedding(tokens, hidden)
        self.norm = nn.LayerNorm(hidden)
        self.blocks = nn.ModuleList(EncoderBlock(hidden, heads, feed_forward) for _ in range(layers))
        self.classifier = nn.Linear(hidden, classes)

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        """Map token ids [N, tokens] (int64) to logits [N, classes]."""
        real = (ids != PADDING_ID).to(self.positions.weight.dtype)
        x = self.norm(self.tokens(ids) + self.positions.weight)
        mask = ((1.0 - real) * _MASKED)[:, None, None, :]
        for block in self.blocks:
            x = block(x, mask)
        # An input of padding alone divides by one instead of zero.
        mean = (x * real[:, :, None]).sum(dim=1) / real.sum(dim=1, keepdim=True).clamp(min=1.0)
        logits: torch.Tensor = self.classifier(mean)
        return logits


def text_encoder(
    shape: tuple[int, ...],
    classes: int,
    *,
    vocabulary: int,
    hidden: int,
    layers: int,
    heads: int,
    feed_forward: int,
) -> tuple[nn.Module, list[str]]:
    """Build the text encoder for inputs of ``shape[0]`` token ids.

    Raises:
        ModelError: the shape is not that of a token sequence, or the heads do not divide the hidden width.
    """
    if len(shape) != 1:
        raise ModelError(f"text-encoder takes token ids of shape (tokens,), the data has the shape {shape}.")
    if hidden % heads:
        raise ModelError(f"text-encoder cannot split a hidden width of {hidden} into {heads} equal heads.")
    module = TextEncoder(shape[0], classes, vocabulary, hidden, layers, heads, feed_forward)
    return module, changed("The encoder takes", "token", "tokens", shape[0], 32)
