"""A search for each layer's density under one budget, by the reward of the pruned network, without training.

In: how large the layers are, what share of all weights stays, and a function that rewards densities. Out: the best
densities found. The cross-entropy method stands in for the reinforcement learning of AMC (He et al. 2018): same
actions (a density a layer), same budget met by every candidate, same reward. Pure; random numbers come from the seed.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from ..models.seeding.philox import words

Vector = npt.NDArray[np.float64]

_ELITE = 0.25
_GENERATION = 16


def search(
    sizes: Vector, density: float, reward: Callable[[Vector], float], *, candidates: int, floor: float, seed: int
) -> Vector:
    """Return the densities of highest reward; the uniform ones are the first candidate.

    Args:
        sizes: weights of each layer.
        density: share of all weights that stays.
        reward: of densities, higher is better.
        candidates: how many densities are tried.
        floor: least density of a layer, as a share of ``density``.
        seed: of the draws.
    """
    layers = len(sizes)
    mean, spread = np.zeros(layers), np.ones(layers)
    best, best_reward = within_budget(mean, sizes, density, floor), -np.inf
    tried = 0
    for generation in range(-(-candidates // _GENERATION)):
        count = min(_GENERATION, candidates - tried)
        offsets = mean + spread * _normals(seed, f"ratio-search/{generation}", count * layers).reshape(count, layers)
        if generation == 0:
            offsets[0] = 0
        rewards = np.empty(count)
        for number, offset in enumerate(offsets):
            found = within_budget(offset, sizes, density, floor)
            rewards[number] = reward(found)
            if rewards[number] > best_reward:
                best, best_reward = found, rewards[number]
        tried += count
        elite = offsets[np.argsort(-rewards, kind="stable")[: max(2, round(_ELITE * count))]]
        # Half of the old spread stays, or a few alike candidates would end the search.
        mean, spread = elite.mean(axis=0), 0.5 * spread + 0.5 * elite.std(axis=0)
    return best


def within_budget(offsets: Vector, sizes: Vector, density: float, floor: float) -> Vector:
    """Return densities proportional to ``exp(offsets)`` within [floor * density, 1] that keep exactly the budget."""
    low, high = -60.0, 60.0
    for _ in range(100):
        middle = (low + high) / 2
        found = np.clip(density * np.exp(offsets + middle), floor * density, 1.0)
        if found @ sizes > density * sizes.sum():
            high = middle
        else:
            low = middle
    result: Vector = np.clip(density * np.exp(offsets + low), floor * density, 1.0)
    return result


def _normals(seed: int, stream: str, count: int) -> Vector:
    drawn = (words(seed, stream, 0, 2 * count).astype(np.float64) + 0.5) * 2.0**-32
    result: Vector = np.sqrt(-2 * np.log(drawn[:count])) * np.cos(2 * np.pi * drawn[count:])
    return result
