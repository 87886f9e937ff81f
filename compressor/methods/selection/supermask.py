"""Sparse selection by probabilities: supermasks."""

from ..declaration import Option
from .common import ANY_DENSITY, REASONS, selecting

SUPERMASK = selecting(
    name="supermask",
    paper="Zhou et al., Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask, NeurIPS 2019",
    summary="Train for each random weight the probability that it computes; the most probable ones are the network.",
    dynamics="supermask",
    allocations=("global", *(name for name in ANY_DENSITY if name != "global")),
    training={
        "optimiser": "sgd",
        "learning_rate": 100.0,
        "momentum": 0.9,
        "weight_decay": 0.0,
        "rate_schedule": "constant",
    },
    options=(Option("rescale", bool, False, "multiply each layer by its weights over those that compute (DWR)"),),
    reasons=REASONS | {"gradual": "each step draws its mask; only the final one has the asked size"},
)
