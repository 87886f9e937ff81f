"""A recurrent classifier: an LSTM (Hochreiter and Schmidhuber 1997) that reads an image row by row.

With 400 units and rows of 28 pixels it is the network of Zhang and Stadie (2020) for sequential MNIST. Input and
recurrent matrices are linear layers called once a step, so that they are pruned like all others.
"""

from __future__ import annotations

import torch
from torch import nn

from .entry import changed, image_shape


class LSTM(nn.Module):
    """Rows -> LSTM -> the last hidden state -> classes."""

    def __init__(self, features: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.hidden = hidden
        # The four gates stacked: input, forget, candidate, output; the recurrent matrix needs no second bias.
        self.input = nn.Linear(features, 4 * hidden)
        self.recurrent = nn.Linear(hidden, 4 * hidden, bias=False)
        self.fc = nn.Linear(hidden, classes)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Map images [N, C, H, W], read as H rows of C * W numbers, to logits [N, classes]."""
        rows = x.transpose(1, 2).flatten(2)
        hidden = rows.new_zeros(rows.shape[0], self.hidden)
        cell = hidden
        for step in range(rows.shape[1]):
            gates = self.input(rows[:, step]) + self.recurrent(hidden)
            enter, forget, candidate, leave = gates.chunk(4, dim=1)
            cell = torch.sigmoid(forget) * cell + torch.sigmoid(enter) * torch.tanh(candidate)
            hidden = torch.sigmoid(leave) * torch.tanh(cell)
        logits: torch.Tensor = self.fc(hidden)
        return logits


def lstm(shape: tuple[int, ...], classes: int, *, hidden: int) -> tuple[nn.Module, list[str]]:
    """Build the LSTM for images of any size; a step reads one row of all channels."""
    channels, _, width = image_shape(shape)
    return LSTM(channels * width, hidden, classes), changed("A step takes", "feature", "features", channels * width, 28)
