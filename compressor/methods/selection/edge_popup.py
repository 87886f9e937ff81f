"""Pruning at initialization, sparse selection (PaI): the mask is trained, the weights never are."""

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method

_WHOLE_LAYER = "the algorithm keeps the top share of the scores of each whole layer, the same share everywhere"
_EACH_STEP = "the mask has its final sparsity from the first step and is chosen anew at each"

EDGE_POPUP = Method(
    name="edge-popup",
    paradigm="PaI (sparse selection)",
    paper="Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020",
    summary="Train a score for each random weight; the top of each layer is the network, its weights stay as drawn.",
    mask_from="current",
    weights_from="initial",
    trains_after=False,
    chi=0,
    dynamics="selected",
    score="learned",
    growth=None,
    structures=("element",),
    allocations=("uniform",),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    parametrisation="selected",
    initialiser="signed-constant",
    generator=KEYED_PRODUCT,
    # These are for the scores: the weights have no optimiser.
    training={
        "optimiser": "sgd",
        "learning_rate": 0.1,
        "momentum": 0.9,
        "weight_decay": 1e-4,
        "rate_schedule": "cosine",
    },
    reasons={
        "N:M": _WHOLE_LAYER,
        "channel": _WHOLE_LAYER,
        "global": _WHOLE_LAYER,
        "erdos-renyi": _WHOLE_LAYER,
        "erdos-renyi-kernel": _WHOLE_LAYER,
        "explicit": _WHOLE_LAYER,
        "iterative": _EACH_STEP,
        "gradual": _EACH_STEP,
    },
)
