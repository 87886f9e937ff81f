"""What a run's network says about examples, round by round, and how much each layer's sparsity costs it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import nn

from ...files import Array
from ...models.dataset import Dataset
from ...models.evaluating import evaluating
from ..mask import BoolArray
from ..scores.magnitude import magnitude
from ..selection import top_k
from .predictions import softmax

_BATCH = 500


def class_probabilities(module: nn.Module, data: Dataset) -> Array:
    """Return the probabilities [examples, classes] (float64) that a network gives the test split."""
    inputs, labels = data.test()
    with evaluating(module):
        parts = [module(inputs[start : start + _BATCH]) for start in range(0, len(labels), _BATCH)]
    return softmax(torch.cat(parts).float().numpy())


def layer_sensitivity(
    module: nn.Module, masks: Mapping[str, BoolArray], data: Dataset, sparsities: Sequence[float], examples: int
) -> dict[str, list[dict[str, float]]]:
    """Return what each layer's sparsity alone costs: one pass over calibration data, with all variants of each batch.

    A layer loses the smallest of the weights that its mask keeps; the others stay as they are.

    Args:
        module: the network; it is left as it was.
        masks: by weight name.
        data: its first training examples, without augmentation, are the calibration data.
        sparsities: shares of the kept weights to remove.
        examples: how many are looked at.

    Returns:
        by layer, for each sparsity its ``sparsity``, ``loss`` (mean cross-entropy) and ``accuracy``; under the empty
        name the network as it is.
    """
    parameters = dict(module.named_parameters())
    whole = {name: parameters[name].detach().clone() for name in masks}
    variants: dict[tuple[str, float], torch.Tensor | None] = {("", 0.0): None}
    for name, mask in masks.items():
        weights = whole[name].numpy()
        scores = magnitude({name: weights})[name].reshape(-1)
        for sparsity in sparsities:
            left = int(np.count_nonzero(mask))
            (kept,) = top_k([scores], left - round(sparsity * left), [mask.reshape(-1)])
            variants[name, sparsity] = torch.from_numpy(weights * kept.reshape(weights.shape))
    losses, right, seen = dict.fromkeys(variants, 0.0), dict.fromkeys(variants, 0), 0
    with evaluating(module):
        for inputs, labels in data.batches("train", _BATCH, shuffle=False, augment=False):
            inputs, labels = inputs[: examples - seen], labels[: examples - seen]
            for (name, sparsity), weights_of_layer in variants.items():
                if weights_of_layer is not None:
                    parameters[name].copy_(weights_of_layer)
                outputs = module(inputs)
                if weights_of_layer is not None:
                    parameters[name].copy_(whole[name])
                losses[name, sparsity] += float(F.cross_entropy(outputs, labels, reduction="sum"))
                right[name, sparsity] += int((outputs.argmax(dim=1) == labels).sum())
            seen += len(labels)
            if seen >= examples:
                break
    found: dict[str, list[dict[str, float]]] = {}
    for (name, sparsity), loss in losses.items():
        row = {"sparsity": sparsity, "loss": loss / max(seen, 1), "accuracy": right[name, sparsity] / max(seen, 1)}
        found.setdefault(name, []).append(row)
    return found
