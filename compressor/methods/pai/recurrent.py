"""Pruning of recurrent networks by their temporal Jacobian."""

from ..declaration import Option
from .common import IN_ONE_STEP, at_initialisation

TEMPORAL_JACOBIAN = at_initialisation(
    name="temporal-jacobian",
    paper="Zhang and Stadie, One-Shot Pruning of Recurrent Neural Networks by Jacobian Spectrum Evaluation, ICLR 2020",
    summary="Keep the weights that matter most for how a recurrent state depends on the state some steps before.",
    score="temporal-jacobian",
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
    reasons=IN_ONE_STEP,
)
