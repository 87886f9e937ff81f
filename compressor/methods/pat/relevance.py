"""Pruning after training (PaT): by the first-order change of the loss, signed, squared or accumulated."""

from ..declaration import Option
from .common import (
    ANY_ALLOCATION,
    ANY_STRUCTURE,
    BATCHES,
    NOT_GRADUAL,
    RATE,
    RETRAIN,
    SCORED,
    after_training,
)

SKELETONIZATION = after_training(
    name="skeletonization",
    paper="Mozer and Smolensky, Skeletonization: a Technique for Trimming the Fat from a Network, NIPS 1989",
    summary="Remove the units, or weights, without which the loss would rise least: -g w, with its sign.",
    score="relevance",
    structures=("channel", "element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("iterative", "one-shot"),
    needs=SCORED,
    options=(*BATCHES, RATE, *RETRAIN),
    reasons={"gradual": NOT_GRADUAL},
)

KARNIN = after_training(
    name="karnin",
    paper="Karnin, A Simple Procedure for Pruning Back-Propagation Trained Neural Networks, "
    "IEEE Transactions on Neural Networks 1990",
    summary="Remove the weights to which the loss was least sensitive along the path that the training took.",
    prepares="update-squares",
    score="accumulated-sensitivity",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=("one-shot",),
    needs=(*SCORED, "training"),
    options=RETRAIN,
    reasons={
        "iterative": "the sensitivity is that of the one path from the initial to the final weights",
        "gradual": "the sensitivity is known only once the training is over",
    },
)

TAYLOR = after_training(
    name="taylor",
    paper="Molchanov et al., Importance Estimation for Neural Network Pruning, CVPR 2019; "
    "Pruning Convolutional Neural Networks for Resource Efficient Inference, ICLR 2017",
    summary="Remove the channels, or weights, whose removal changes the loss least to first order: (sum g w)^2.",
    score="taylor",
    structures=("channel", "element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("iterative", "one-shot"),
    needs=SCORED,
    # The paper averages over the 30 batches between two removals.
    options=(
        Option("batches", int, 30, "batches that the score is averaged over", minimum=1),
        *BATCHES[1:],
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL},
)

TAYLOR_SECOND_ORDER = after_training(
    name="taylor-second-order",
    paper=TAYLOR.paper,
    summary="The same to second order: (sum g w - 1/2 w (H w))^2, with exact Hessian-vector products.",
    score="taylor-second-order",
    structures=("channel", "element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("iterative", "one-shot"),
    needs=SCORED,
    options=TAYLOR.options,
    reasons={"gradual": NOT_GRADUAL},
)
