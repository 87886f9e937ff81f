"""What every criterion at initialisation has to beat: random masks, and the magnitude of untrained weights."""

from .common import IN_ONE_STEP, at_initialisation

RANDOM_AT_INIT = at_initialisation(
    name="random-at-init",
    paper="Liu et al., The Unreasonable Effectiveness of Random Pruning, ICLR 2022; smart ratios: Su et al., "
    "Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020",
    summary="Keep random weights of the untrained network, with chosen layer densities, and train them.",
    score="random",
    structures=("element", "N:M", "block", "channel"),
    allocations=(
        "erdos-renyi-kernel",
        "erdos-renyi",
        "uniform",
        "smart-ratio",
        "smart-ratio-vgg",
        "global",
        "explicit",
    ),
    schedules=("one-shot",),
    needs=(),
    reasons=IN_ONE_STEP,
)

MAGNITUDE_AT_INIT = at_initialisation(
    name="magnitude-at-init",
    paper="Frankle et al., Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021",
    summary="Keep the weights that were drawn largest, and train them; with smart ratios a hybrid ticket.",
    score="magnitude",
    structures=("element", "N:M", "block", "channel"),
    allocations=("global", "uniform", "erdos-renyi-kernel", "smart-ratio", "smart-ratio-vgg", "explicit"),
    schedules=("one-shot",),
    needs=(),
    initialiser="kaiming-normal",
    reasons=IN_ONE_STEP,
)
