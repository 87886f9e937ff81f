"""Pruning after training (PaT): an L2 penalty that grows on what is to go, before it is removed."""

from ..declaration import Option
from .common import ANY_ALLOCATION, RETRAIN, after_training

_REASONS = {
    "iterative": "the penalty grows once, during one training",
    "gradual": "the penalty grows while all weights are there; they go at its end",
}
_GROWTH = (
    Option("ceiling", float, 1.0, "coefficient at which growth ends", minimum=0, strict=True),
    Option(
        "end", float, 0.75, "share of the pruning training at which growth ends; the rest settles", minimum=0, maximum=1
    ),
    Option("update_interval", int, 10, "steps between two increments", minimum=1),
)
_NEEDS = ("data", "labels", "gradients", "training")

GREG_1 = after_training(
    name="greg-1",
    paper="Wang et al., Neural Pruning via Growing Regularization, ICLR 2021",
    summary="Choose the smallest weights or filters, press them to zero with a growing L2 penalty, then remove them.",
    plan="pruned-while-tuning",
    prepares="greg-1",
    score="magnitude",
    structures=("channel", "element", "N:M"),
    allocations=("uniform", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=_NEEDS,
    options=(*_GROWTH, *RETRAIN),
    reasons=_REASONS,
)

GREG_2 = after_training(
    name="greg-2",
    paper=GREG_1.paper,
    summary="Press all weights alike until their curvature tells them apart, choose the smallest, go on as greg-1.",
    plan="pruned-while-tuning",
    prepares="greg-2",
    score="magnitude",
    structures=("element", "channel", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("one-shot",),
    needs=_NEEDS,
    options=(
        *_GROWTH,
        Option("pick_ceiling", float, 0.01, "tau: coefficient of all weights when the choice is made", minimum=0),
        Option("pick", float, 0.25, "share of the pruning training at which the choice is made", minimum=0, maximum=1),
        *RETRAIN,
    ),
    reasons=_REASONS,
)

INCREG = after_training(
    name="increg",
    paper="Wang et al., Structured Pruning for Efficient Convolutional Neural Networks via Incremental Regularization, "
    "IEEE Journal of Selected Topics in Signal Processing 2019",
    summary="Let each group's L2 coefficient grow or shrink by its rank in the layer, then remove the smallest.",
    plan="pruned-while-tuning",
    prepares="increg",
    score="magnitude",
    structures=("channel", "element"),
    allocations=("uniform", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=_NEEDS,
    options=(*_GROWTH, *RETRAIN),
    reasons=_REASONS | {"N:M": "it ranks the groups of a layer, and blocks of N:M do not compete"},
)
