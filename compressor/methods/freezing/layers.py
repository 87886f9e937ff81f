"""Freezing by layer and by filter: which weights are trained does not depend on their values or on data."""

from ..declaration import Option
from .common import IN_ONE_STEP, NO_ZEROS, freezing, freezing_all

FIXED_CLASSIFIER = freezing_all(
    name="fixed-classifier",
    paper="Hoffer et al., Fix Your Classifier: The Marginal Value of Training the Last Weight Layer, ICLR 2018",
    summary="The last layer is a Hadamard matrix times one trained scale, and takes no bytes; all else is trained.",
    dynamics="fixed-classifier",
    needs=("data", "labels", "gradients"),
    only_head=True,
    options=(
        Option(
            "unit",
            str,
            "rows",
            "what has length 1: rows of the matrix, or (the paper, for a network that normalises its features) entries",
            choices=("rows", "entries"),
        ),
    ),
)

BATCHNORM_ONLY = freezing_all(
    name="batchnorm-only",
    paper="Frankle et al., Training BatchNorm and Only BatchNorm: On the Expressive Power of Random Features in CNNs, "
    "ICLR 2021; Rosenfeld and Tsotsos, Intriguing Properties of Randomly Weighted Networks, CRV 2019",
    summary="Train scales and shifts of the normalisation layers; every other parameter stays as drawn.",
    dynamics="norms-only",
    needs=("data", "labels", "gradients"),
)

RANDOM_FILTERS = freezing(
    name="random-filters",
    paper="Rosenfeld and Tsotsos, Intriguing Properties of Randomly Weighted Networks: Generalizing While Learning "
    "Next to Nothing, CRV 2019",
    summary="Train a random share of the filters of each layer, norms, biases and the last layer; the other filters "
    "stay as drawn.",
    score="random",
    structures=("channel",),
    allocations=("uniform", "explicit"),
    needs=("data", "labels", "gradients"),
    reasons={
        "element": "it freezes filters as a whole",
        "N:M": NO_ZEROS,
        "global": "filters are drawn at random, layer by layer",
        "erdos-renyi": "the same share of the filters of every layer is trained",
        "erdos-renyi-kernel": "the same share of the filters of every layer is trained",
        **IN_ONE_STEP,
    },
)
