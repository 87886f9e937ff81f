"""SNIP's mask with weights made to carry signals again: approximated isometry, and rescaling to the edge of chaos."""

from ..declaration import Method, Option
from .sensitivity import ONE_STEP, SALIENCY_OPTIONS

SNIP_ISOMETRY = Method(
    name="snip-isometry",
    paradigm="PaI (sparse training)",
    paper="Lee et al., A Signal Propagation Perspective for Pruning Neural Networks at Initialization, ICLR 2020",
    summary="SNIP on an orthogonal initialisation; the kept weights are moved towards isometry before training.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="gradient",
    growth=None,
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    initialiser="orthogonal",
    options=(
        Option("isometry_steps", int, 10_000, "steps towards isometry", minimum=0),
        Option("isometry_rate", float, 0.1, "learning rate of these steps", minimum=0, strict=True),
        *SALIENCY_OPTIONS,
    ),
    transforms=("approximate-isometry",),
    reasons={"iterative": ONE_STEP, "gradual": ONE_STEP},
)

SBP_SR = Method(
    name="sbp-sr",
    paradigm="PaI (sparse training)",
    paper="Hayou et al., Robust Pruning at Initialization, ICLR 2021",
    summary="Sensitivity-based pruning at the edge of chaos; each layer is rescaled so that signals keep their size.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    # Its criterion, the mean square of w dL/dw, ranks as SNIP's absolute value does.
    score="gradient",
    growth=None,
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    initialiser="kaiming-normal",
    options=SALIENCY_OPTIONS,
    transforms=("edge-of-chaos",),
    reasons={"iterative": ONE_STEP, "gradual": ONE_STEP},
)
