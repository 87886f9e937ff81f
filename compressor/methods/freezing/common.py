"""What the declarations of freezing share: k1 = k2 = 0, the initial weights where the mask is 0, a seed for them."""

from __future__ import annotations

from functools import partial

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method
from ..pai.common import ONE_STEP

NO_ZEROS = "the frozen weights still compute, so a pattern gains no speed and only limits which weights are trained"
IN_ONE_STEP = {"iterative": ONE_STEP, "gradual": ONE_STEP}

# What is trained is chosen on the untrained network; the rest is rebuilt from the seed.
freezing = partial(
    Method,
    paradigm="freezing",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=1,
    dynamics="frozen",
    growth=None,
    schedules=("one-shot",),
    parametrisation="frozen",
    generator=KEYED_PRODUCT,
)

_WHOLE = "every weight that it freezes is named by its layer, so there is nothing to choose"

# No weight of the space is trained. (A mask that keeps nothing needs no score; a random one costs least.)
freezing_all = partial(
    freezing,
    score="random",
    sparsity=1.0,
    structures=("element",),
    allocations=("uniform",),
    reasons=dict.fromkeys(
        ("N:M", "channel", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit", "iterative", "gradual"), _WHOLE
    ),
)
