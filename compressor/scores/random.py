"""Random scores: the control that every criterion has to beat, and the first mask of dynamic sparse training."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from ...files import Array
from ...models.seeding.philox import words


def random(shapes: Mapping[str, tuple[int, ...]], seed: int, draw: int = 0) -> dict[str, Array]:
    """Return uniform float32 scores in [0, 1), 24 random bits each, from the counter-based generator.

    Args:
        shapes: by tensor name.
        seed: the run's seed; the scores share no random word with the weights drawn from it.
        draw: number of the draw; another number gives independent scores. (Drawing the same numbers in each round of an
            iterative schedule would correlate the rounds' masks.)
    """
    return {
        name: _uniform(seed, f"{name}/random-score/{draw}", int(np.prod(shape, dtype=np.int64))).reshape(shape)
        for name, shape in shapes.items()
    }


def _uniform(seed: int, stream: str, count: int) -> Array:
    drawn = words(seed, stream, 0, count)
    drawn >>= np.uint32(8)
    scores: Array = drawn.astype(np.float32)
    scores *= np.float32(2.0**-24)
    return scores
