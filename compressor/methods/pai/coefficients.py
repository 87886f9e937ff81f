"""Sparse coefficients in place of sparse weights: the network that computes is dense, what is stored is sparse."""

from ..declaration import Option
from .common import IN_ONE_STEP, SALIENCY_OPTIONS, SCORED, at_initialisation

_OF_COEFFICIENTS = {
    "N:M": "the mask is of coefficients; the weights that they make are dense",
    "block": "the mask is of coefficients; the weights that they make are dense",
    "channel": "the mask is of coefficients, one by one",
    **IN_ONE_STEP,
}

DCT_PLUS_SPARSE = at_initialisation(
    name="dct-plus-sparse",
    paper="Price and Tanner, Dense for the Price of Sparse: Improved Performance of Sparsely Initialized Networks via "
    "a Subspace Offset, ICML 2021",
    summary="Each layer is a fixed cosine transform times a trained number, plus sparse weights in random places that "
    "begin at zero.",
    score="random",
    dynamics="cosine-offset",
    parametrisation="offset",
    structures=("element",),
    allocations=("erdos-renyi-kernel", "erdos-renyi", "uniform", "global", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "training"),
    reasons=_OF_COEFFICIENTS,
)

INTERSPACE = at_initialisation(
    name="interspace",
    paper="Wimmer et al., Interspace Pruning: Using Adaptive Filter Representations to Improve Training of Sparse "
    "CNNs, CVPR 2022",
    summary="SNIP on the coefficients of filters in a basis; the kept coefficients and the basis are trained together.",
    score="interspace-gradient",
    dynamics="filter-basis",
    parametrisation="basis",
    structures=("element",),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=(*SCORED, "training"),
    options=(
        *SALIENCY_OPTIONS,
        Option("basis", str, "standard", "the first: unit filters, or random ones", choices=("standard", "random")),
        Option("sharing", str, "layer", "whose filters share a basis", choices=("layer", "network")),
        Option("train_basis", bool, True, "train the basis with the coefficients"),
    ),
    reasons=_OF_COEFFICIENTS,
)
