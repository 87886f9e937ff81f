"""Dynamic sparse training (DST): sparse from the first step, while connections move."""

from ..declaration import Method, Option

_SINGLE = (
    "connections are dropped and grown one by one; a place that is free in its layer need not be free in its group"
)
_CONSTANT = "the sparsity is the same from the first step to the last; only the connections move"

RIGL = Method(
    name="rigl",
    paradigm="DST",
    paper="Evci et al., Rigging the Lottery: Making All Tickets Winners, ICML 2020",
    summary="Train a sparse network; now and then drop its smallest weights and grow where the gradient is largest.",
    mask_from="current",
    weights_from="current",
    trains_after=True,
    chi=0,
    dynamics="rigl",
    # The start is a random mask; later masks follow from magnitude (drop) and gradient (growth).
    score="random",
    growth="gradient",
    structures=("element",),
    allocations=("erdos-renyi-kernel", "erdos-renyi", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    options=(
        Option(
            "drop_fraction", float, 0.3, "alpha: share of a layer exchanged at first", minimum=0, maximum=1, strict=True
        ),
        Option("update_interval", int, 100, "Delta T: steps between two exchanges", minimum=1),
        Option("update_end", float, 0.75, "T_end: share of the training after which masks stay", minimum=0, maximum=1),
    ),
    reasons={
        "N:M": _SINGLE,
        "channel": _SINGLE,
        "global": "the count of each layer is fixed before training, when there is no score to compare layers by",
        "iterative": _CONSTANT,
        "gradual": _CONSTANT,
    },
)
