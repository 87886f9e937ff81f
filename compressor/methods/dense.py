"""The baseline: the same network, trained the same way, with nothing pruned."""

from .declaration import Method

DENSE = Method(
    name="dense",
    paradigm="baseline",
    paper="none",
    summary="Train the whole network; what every pruned one is compared with.",
    mask_from=None,
    weights_from="final",
    trains_after=False,
    chi=0,
    dynamics="none",
    score=None,
    growth=None,
    structures=("element",),
    allocations=("uniform",),
    schedules=("one-shot",),
    needs=(),
    reasons=dict.fromkeys(
        ("N:M", "channel", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit", "iterative", "gradual"),
        "nothing is pruned, so there is nothing to choose",
    ),
)
