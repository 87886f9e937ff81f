"""Accuracy on the test split, in evaluation mode and float32."""

from __future__ import annotations

import torch
from torch import nn

from ...models.dataset import Dataset
from ...models.evaluating import evaluating

_BATCH = 500


def test_accuracy(module: nn.Module, data: Dataset, device: torch.device) -> float | None:
    """Return the share of test examples whose largest output is their label; None when there is no test split."""
    inputs, labels = data.test()
    if not len(labels):
        return None
    right = 0
    with evaluating(module):
        for start in range(0, len(labels), _BATCH):
            outputs = module(inputs[start : start + _BATCH].to(device))
            right += int((outputs.argmax(dim=-1).cpu() == labels[start : start + _BATCH]).sum())
    return right / len(labels)
