"""Pruning of recurrent networks by their temporal Jacobian."""

from ..declaration import Method, Option
from .sensitivity import ONE_STEP

TEMPORAL_JACOBIAN = Method(
    name="temporal-jacobian",
    paradigm="PaI (sparse training)",
    paper="Zhang and Stadie, One-Shot Pruning of Recurrent Neural Networks by Jacobian Spectrum Evaluation, ICLR 2020",
    summary="Keep the weights that matter most for how a recurrent state depends on the state some steps before.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="temporal-jacobian",
    growth=None,
    structures=("element",),
    allocations=("global", "uniform"),
    schedules=("one-shot",),
    needs=("data", "gradients"),
    initialiser="uniform",
    options=(
        Option("batch_size", int, 64, "examples of the one batch", minimum=1),
        Option("span", int, 4, "steps that the Jacobian spans", minimum=1),
        Option("normalise", bool, True, "divide by the mean gradient of each matrix"),
    ),
    spares_head=True,
    reasons={"iterative": ONE_STEP, "gradual": ONE_STEP},
)
