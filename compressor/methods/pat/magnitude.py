"""Pruning after training (PaT): mask and weights both come from the trained network."""

from ..declaration import Method, Option

MAGNITUDE = Method(
    name="magnitude",
    paradigm="PaT",
    paper="Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015; "
    "gradual: Zhu and Gupta, To prune, or not to prune, 2017",
    summary="Remove the weights of smallest magnitude from a trained network, then fine-tune the rest.",
    mask_from="final",
    weights_from="final",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="magnitude",
    growth=None,
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot", "iterative", "gradual"),
    needs=(),
    options=(
        Option(
            "rate",
            float,
            0.2,
            "iterative: share of what is left that a round removes",
            minimum=0,
            maximum=1,
            strict=True,
        ),
        # Begin and end as in the ResNet-50 runs of Evci et al. 2020: steps 10,000 and 25,000 of 32,000.
        Option("gradual_start", float, 0.3125, "gradual: share of the training before it", minimum=0, maximum=1),
        Option("gradual_end", float, 0.78125, "gradual: share of the training at its end", minimum=0, maximum=1),
        Option("update_interval", int, 100, "gradual: steps between two masks", minimum=1),
    ),
)
