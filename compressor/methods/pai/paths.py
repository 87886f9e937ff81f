"""PHEW: paths of higher edge weight, walked at random; no data and no score."""

from .common import ONE_STEP, at_initialisation

_WALKED = "the walks decide how many weights each layer keeps"

PHEW = at_initialisation(
    name="phew",
    paper="Patil and Dovrolis, PHEW: Constructing Sparse Networks that Learn Fast and Generalize Well Without Any "
    "Training Data, ICML 2021",
    summary="Keep the weights on random walks between inputs and outputs that prefer large weights; no data.",
    score="walks",
    structures=("element",),
    allocations=("global",),
    schedules=("one-shot",),
    needs=("gradients",),
    initialiser="kaiming-normal",
    reasons={
        "uniform": _WALKED,
        "erdos-renyi": _WALKED,
        "erdos-renyi-kernel": _WALKED,
        "explicit": _WALKED,
        "iterative": ONE_STEP,
        "gradual": ONE_STEP,
    },
)
