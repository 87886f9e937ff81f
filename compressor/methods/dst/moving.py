"""Dynamic sparse training: the rules beside RigL's, in the order of their papers."""

from dataclasses import replace

from ..declaration import Option
from .rigl import RIGL

EACH_EPOCH = Option("update_interval", int, 0, "steps between two exchanges; 0: an epoch", minimum=0)
UPDATE_END = Option("update_end", float, 1.0, "share of the training after which masks stay", minimum=0, maximum=1)

DEEP_REWIRING = replace(
    RIGL,
    name="deep-rewiring",
    paper="Bellec et al., Deep Rewiring: Training Very Sparse Deep Networks, ICLR 2018",
    summary="Fixed signs: a weight that noise and decay push through zero is cut, a random dormant one begins.",
    dynamics="deep-rewiring",
    growth="random",
    allocations=("uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    options=(
        Option("pull", float, 1e-5, "alpha: L1 pull towards zero, times the learning rate", minimum=0),
        Option("noise", float, 1e-5, "deviation of the noise, times the learning rate", minimum=0),
    ),
)

SET = replace(
    RIGL,
    name="set",
    paper="Mocanu et al., Scalable Training of Artificial Neural Networks with Adaptive Sparse Connectivity Inspired "
    "by Network Science, Nature Communications 2018",
    summary="After each epoch the smallest weights of a layer leave and as many random ones come in.",
    dynamics="set",
    growth="random",
    allocations=("erdos-renyi", "erdos-renyi-kernel", "uniform", "explicit"),
    options=(
        Option("drop_fraction", float, 0.3, "zeta: share of a layer exchanged", minimum=0, maximum=1, strict=True),
        Option("by_sign", bool, True, "drop that share of positive and negative weights apart"),
        EACH_EPOCH,
        UPDATE_END,
    ),
)

DSR = replace(
    RIGL,
    name="dsr",
    paper="Mostafa and Wang, Parameter Efficient Training of Deep Convolutional Neural Networks by Dynamic Sparse "
    "Reparameterization, ICML 2019",
    summary="One adapted threshold for all layers; as many weights as fall below it come in where most survive.",
    dynamics="dsr",
    growth="random",
    allocations=("uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    options=(
        # N_p = 20,000 of the 146,000 that a WRN-28-2 keeps at 90 %.
        Option("move_fraction", float, 0.14, "share of the kept weights to exchange", minimum=0, maximum=1),
        Option("threshold", float, 1e-3, "H at first", minimum=0, strict=True),
        EACH_EPOCH,
        replace(UPDATE_END, default=0.95),
    ),
)

SNFS = replace(
    RIGL,
    name="snfs",
    paper="Dettmers and Zettlemoyer, Sparse Networks from Scratch: Faster Training without Losing Performance, 2019",
    summary="Sparse momentum: the smallest weights of every layer leave, and come in where momentum is largest.",
    dynamics="snfs",
    growth="momentum",
    allocations=("uniform", "erdos-renyi-kernel", "erdos-renyi", "explicit"),
    options=(
        Option("drop_fraction", float, 0.5, "share of a layer exchanged at first", minimum=0, maximum=1, strict=True),
        Option("smoothing", float, 0.9, "beta of the momentum of all weights", minimum=0, maximum=1),
        EACH_EPOCH,
    ),
)

ITOP = replace(
    RIGL,
    name="rigl-itop",
    paper="Liu et al., Do We Actually Need Dense Over-Parameterization? In-Time Over-Parameterization in Sparse "
    "Training, ICML 2021",
    summary="RigL with rare, large exchanges, so that most weights are explored in time; the explored share is logged.",
    options=(
        replace(RIGL.options[0], default=0.5),
        # On CIFAR at batch 128, where 4,000 steps are ten epochs.
        replace(RIGL.options[1], default=4000),
        replace(RIGL.options[2], default=1.0),
    ),
)

TOP_KAST = replace(
    RIGL,
    name="top-kast",
    paper="Jayakumar et al., Top-KAST: Top-K Always Sparse Training, NeurIPS 2020",
    summary="The largest weights of a layer compute, a larger set is trained; what lies outside both never changes.",
    dynamics="top-kast",
    score="learned",
    growth="magnitude",
    allocations=("uniform", "erdos-renyi-kernel", "erdos-renyi", "explicit"),
    options=(
        Option("extra", float, 0.1, "M: share of a layer that is trained besides", minimum=0, maximum=1),
        Option("penalty", float, 1e-4, "lambda of the penalty on trained weights", minimum=0),
        Option("update_interval", int, 100, "steps between two choices of the sets", minimum=1),
    ),
)
