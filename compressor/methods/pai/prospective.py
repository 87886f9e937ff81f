"""ProsPr: pruning for the network that training will make of the initialisation."""

from ..declaration import Option
from .common import IN_ONE_STEP, SCORED, at_initialisation

PROSPR = at_initialisation(
    name="prospr",
    paper="Alizadeh et al., Prospect Pruning: Finding Trainable Weights at Initialization using Meta-Gradients, "
    "ICLR 2022",
    summary="Keep the weights to which the loss after a few training steps is most sensitive, through those steps.",
    score="prospr",
    structures=("element", "N:M"),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=(
        Option("steps", int, 3, "M: training steps that are looked ahead; 0 is SNIP", minimum=0),
        Option("inner_rate", float, 0.5, "learning rate of these steps", minimum=0),
        Option("inner_momentum", float, 0.9, "their momentum", minimum=0, maximum=1),
        Option("first_order", bool, False, "only the last gradient goes through the gates: less memory"),
        Option("batch_size", int, 128, "examples of each step, and of the loss after them", minimum=1),
        Option("mode", str, "train", "batch normalisation while scoring", choices=("eval", "train")),
    ),
    reasons=IN_ONE_STEP,
)
