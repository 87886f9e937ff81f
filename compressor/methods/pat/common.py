"""What the declarations of pruning after training share: k1 = k2 = K, the same choices, the same options."""

from __future__ import annotations

from functools import partial

from ..declaration import Method, Option

# Mask and weights from the trained network, zero elsewhere, fine-tuned with a fixed mask.
after_training = partial(
    Method,
    paradigm="PaT",
    mask_from="final",
    weights_from="final",
    trains_after=True,
    chi=0,
    dynamics="static",
    growth=None,
)

ANY_STRUCTURE = ("element", "N:M", "block", "channel")
ANY_ALLOCATION = ("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit")
BY_LAYER = ("uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit")
IN_ROUNDS = ("one-shot", "iterative")
SCORED = ("data", "labels", "gradients")

NOT_GRADUAL = "its scores need passes over data of their own, between trainings; iterative alternates the two"

RATE = Option(
    "rate", float, 0.2, "iterative: share of what is left that a round removes", minimum=0, maximum=1, strict=True
)
RETRAIN = (
    Option(
        "retrain",
        str,
        "fresh",
        "after the mask: a fresh schedule (fine_tune), the training's own again, or none",
        choices=("fresh", "rewound", "none"),
    ),
    Option("retrain_step", int, 0, "rewound: step of the training's schedule to begin at", minimum=0),
)
# Scores from a few batches, the network in use mode: batch statistics are another function of the weights.
BATCHES = (
    Option("batches", int, 10, "batches that the score is averaged over", minimum=1),
    Option("batch_size", int, 64, "examples a batch", minimum=1),
    Option("mode", str, "eval", "batch normalisation while scoring", choices=("eval", "train")),
)
