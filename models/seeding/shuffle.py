"""Orders and small draws from a seed: the batch order of an epoch, the augmentation of an example."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from .philox import words


def permutation(seed: int, name: str, n: int) -> npt.NDArray[np.int64]:
    """Return a random order of ``n`` things: the stable argsort of 64-bit keys.

    Key ``i`` is word ``2i`` (high half) and word ``2i + 1`` (low half) of the stream ``name``.

    Returns:
        int64 [n], each of 0 .. n - 1 once.
    """
    halves = words(seed, name, 0, 2 * n).astype(np.uint64).reshape(n, 2)
    return np.argsort(halves[:, 0] << np.uint64(32) | halves[:, 1], kind="stable")


def integers(seed: int, name: str, start: int, count: int, below: int) -> npt.NDArray[np.int64]:
    """Return whole numbers in [0, ``below``): draw ``i`` is (word ``i`` * ``below``) >> 32.

    Args:
        seed: the run's seed.
        name: the stream's name.
        start: position of the first draw; any slice can be drawn alone.
        count: how many.
        below: exclusive upper end, 1 to 2**31. Values differ in probability by at most below / 2**32.

    Returns:
        int64 [count].
    """
    if not 1 <= below <= 2**31:
        raise ValueError(f"the upper end of a draw is 1 to 2**31, not {below}.")
    wide = words(seed, name, start, count).astype(np.uint64) * np.uint64(below)
    return (wide >> np.uint64(32)).astype(np.int64)
