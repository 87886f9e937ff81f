"""Criteria of the gradient's norm: what removing a weight does to how fast the network can learn."""

from ..declaration import Option
from .common import IN_ONE_STEP, SALIENCY_OPTIONS, SCORED, at_initialisation

_CURVATURE_OPTIONS = (
    Option("examples_per_class", int, 10, "training examples of each class (the paper's CIFAR runs: 10)", minimum=1),
    Option("temperature", float, 200.0, "logits are divided by it", minimum=0, strict=True),
    Option("mode", str, "train", "batch normalisation while scoring", choices=("eval", "train")),
)

GRASP = at_initialisation(
    name="grasp",
    paper="Wang et al., Picking Winning Tickets Before Training by Preserving Gradient Flow, ICLR 2020",
    summary="Keep the weights without which the norm of the gradient would fall most, then train them.",
    score="grasp",
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=_CURVATURE_OPTIONS,
    reasons=IN_ONE_STEP,
)

GRADIENT_NORM = at_initialisation(
    name="gradient-norm-preservation",
    paper="Lubana and Dick, A Gradient Flow Framework For Analyzing Network Pruning, ICLR 2021",
    summary="Keep the weights whose removal would change the norm of the gradient most, up or down.",
    score="gradient-norm-preservation",
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=(
        _CURVATURE_OPTIONS[0],
        Option("temperature", float, 1.0, "logits are divided by it", minimum=0, strict=True),
        _CURVATURE_OPTIONS[2],
    ),
    reasons=IN_ONE_STEP,
)

LOSS_PRESERVATION = at_initialisation(
    name="loss-preservation",
    paper="Lubana and Dick, A Gradient Flow Framework For Analyzing Network Pruning, ICLR 2021",
    summary="SNIP aware of magnitude: keep the weights of largest |gradient| times squared weight.",
    score="loss-preservation",
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    # The paper's 5,000 examples.
    options=(
        Option("batches", int, 40, "batches whose gradients are added up before they are scored", minimum=1),
        *SALIENCY_OPTIONS[1:],
    ),
    reasons=IN_ONE_STEP,
)

COPS = at_initialisation(
    name="cops",
    paper="Wimmer et al., COPS: Controlled Pruning Before Training Starts, IJCNN 2021",
    summary="The mask that is best by SNIP's score while it keeps a set share of the best that GraSP's score allows.",
    score="cops",
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=(
        Option(
            "control",
            float,
            0.9,
            "share of the largest GraSP sum that the mask keeps; 0: the mix is given",
            minimum=0,
            maximum=1,
        ),
        Option("mix", float, 0.5, "SNIP's share of the score when control is 0", minimum=0, maximum=1),
        *SALIENCY_OPTIONS[:2],
        *_CURVATURE_OPTIONS,
    ),
    reasons=IN_ONE_STEP,
)
