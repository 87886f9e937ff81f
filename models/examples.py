"""Inputs to trace and compare networks with, drawn from the seeded generator."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
import torch

from .seeding.philox import words
from .source import InputSpec


def draw_inputs(
    specs: Sequence[InputSpec],
    batch: int,
    seed: int,
    *,
    examples: Sequence[torch.Tensor] = (),
    vocabulary: int | None = None,
) -> tuple[torch.Tensor, ...]:
    """Draw a batch for every input.

    Args:
        specs: the inputs; an open extent (-1) becomes 1.
        batch: extent of the first axis.
        seed: of the draw.
        examples: the user's own examples; whole numbers are drawn between their least and their greatest.
        vocabulary: number of token ids; without it and without examples, ids are 0 or 1, which every network takes.

    Returns:
        standard normal values in float inputs, whole numbers in integer inputs.
    """
    drawn = []
    for index, spec in enumerate(specs):
        shape = (batch, *(max(extent, 1) for extent in spec.shape))
        count = math.prod(shape)
        bits = words(seed, f"example/{spec.name}", 0, 2 * count).reshape(2, count).astype(np.float64)
        dtype = getattr(torch, spec.dtype)
        if dtype.is_floating_point:
            # Box and Muller 1958; the half keeps the logarithm finite.
            radius = np.sqrt(-2 * np.log((bits[0] + 0.5) / 2**32))
            values = torch.from_numpy(radius * np.cos(2 * math.pi * bits[1] / 2**32))
        else:
            low, high = 0, vocabulary or 2
            if index < len(examples) and examples[index].numel():
                low, high = int(examples[index].min()), int(examples[index].max()) + 1
            values = torch.from_numpy(np.floor(bits[0] / 2**32 * (high - low)) + low)
        drawn.append(values.reshape(shape).to(dtype))
    return tuple(drawn)
