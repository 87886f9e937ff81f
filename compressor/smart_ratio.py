"""Smart ratios: layer densities that fall with depth by a formula, for random tickets (Su et al. 2020).

Layer l of L (convolutions and linear layers counted together) keeps in proportion to (L - l + 1)^2 + (L - l + 1), in
VGG-like networks divided by l^2; linear layers keep 0.3. What a full layer cannot take goes to the layers after it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

LINEAR_DENSITY = 0.3


def smart_ratio(kinds: Sequence[str], sizes: Sequence[int], sparsity: float, *, vgg: bool) -> list[float]:
    """Return the density of each layer.

    Args:
        kinds: ``conv`` or ``linear``, by layer. A network without convolutions has the formula in its linear layers.
        sizes: weights of each layer.
        sparsity: of all layers together.
        vgg: divide by l^2.

    Linear layers keep the overall density where 0.3 of them would be more than half of all that stays: the paper's
    networks have small classifiers and give no rule for others.
    """
    count = len(kinds)
    budget = (1 - sparsity) * sum(sizes)
    decaying = [i for i in range(count) if kinds[i] == "conv"] or list(range(count))
    rest = [i for i in range(count) if i not in decaying]
    linear = math.fsum(sizes[i] for i in rest)
    flat = LINEAR_DENSITY if LINEAR_DENSITY * linear <= budget / 2 else 1 - sparsity
    found = [flat] * count
    left = budget - flat * linear
    raw = {i: ((count - i) ** 2 + (count - i)) / ((i + 1) ** 2 if vgg else 1) for i in decaying}
    scale = left / math.fsum(raw[i] * sizes[i] for i in decaying)
    surplus = 0.0
    for i in decaying:
        wanted = scale * raw[i] * sizes[i] + surplus
        found[i] = min(1.0, wanted / sizes[i])
        surplus = wanted - found[i] * sizes[i]
    for i in [*decaying, *rest]:
        # The last layers were full: the earliest that is not takes it.
        more = min(surplus, (1 - found[i]) * sizes[i])
        found[i] += more / sizes[i]
        surplus -= more
    return found
