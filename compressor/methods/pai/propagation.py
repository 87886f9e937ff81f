"""SNIP's mask with weights made to carry signals again: approximated isometry, and rescaling to the edge of chaos."""

from ..declaration import Option
from .common import IN_ONE_STEP, SALIENCY_OPTIONS, SCORED, at_initialisation

SNIP_ISOMETRY = at_initialisation(
    name="snip-isometry",
    paper="Lee et al., A Signal Propagation Perspective for Pruning Neural Networks at Initialization, ICLR 2020",
    summary="SNIP on an orthogonal initialisation; the kept weights are moved towards isometry before training.",
    score="gradient",
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="orthogonal",
    options=(
        Option("isometry_steps", int, 10_000, "steps towards isometry", minimum=0),
        Option("isometry_rate", float, 0.1, "learning rate of these steps", minimum=0, strict=True),
        *SALIENCY_OPTIONS,
    ),
    transforms=("approximate-isometry",),
    reasons=IN_ONE_STEP,
)

SBP_SR = at_initialisation(
    name="sbp-sr",
    paper="Hayou et al., Robust Pruning at Initialization, ICLR 2021",
    summary="Sensitivity-based pruning at the edge of chaos; each layer is rescaled so that signals keep their size.",
    # Its criterion, the mean square of w dL/dw, ranks one batch as SNIP's absolute value does.
    score="gradient",
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=SALIENCY_OPTIONS,
    transforms=("edge-of-chaos",),
    reasons=IN_ONE_STEP,
)
