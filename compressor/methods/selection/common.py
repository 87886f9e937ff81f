"""What the declarations of sparse selection share: weights as they were drawn, scores that are trained."""

from __future__ import annotations

from functools import partial

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method

WHOLE_LAYER = "the algorithm keeps the top share of the scores of each whole layer, the same share everywhere"
SINGLE_WEIGHTS = "every weight has a score of its own"
EACH_STEP = "the mask has its final sparsity from the first step and is chosen anew at each"

# A mask that training moves over weights that nothing trains, zero elsewhere.
selecting = partial(
    Method,
    paradigm="PaI (sparse selection)",
    mask_from="current",
    weights_from="initial",
    trains_after=False,
    chi=0,
    score="learned",
    growth=None,
    structures=("element",),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    parametrisation="selected",
    initialiser="signed-constant",
    generator=KEYED_PRODUCT,
)

# These are for the scores: the weights have no optimiser.
SCORE_TRAINING = {
    "optimiser": "sgd",
    "learning_rate": 0.1,
    "momentum": 0.9,
    "weight_decay": 1e-4,
    "rate_schedule": "cosine",
}
REASONS = {"N:M": SINGLE_WEIGHTS, "channel": SINGLE_WEIGHTS, "iterative": EACH_STEP, "gradual": EACH_STEP}
SAME_SHARE = REASONS | dict.fromkeys(
    ("N:M", "channel", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit"), WHOLE_LAYER
)
ANY_DENSITY = ("uniform", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit")
