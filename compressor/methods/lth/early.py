"""Tickets that are found with less: before the training is over, or on a part of the data."""

from dataclasses import replace

from ..declaration import Method, Option
from .tickets import LOTTERY_TICKET, RATE, REWIND_STEP

_WINDOW = Option("window", int, 5, "masks, one an epoch, that have to agree", minimum=2)
_BLOCKS = {"N:M": "the paper's tickets are unstructured; blocks of N:M leave nothing to find in rounds"}

EARLY_BIRD = Method(
    name="early-bird",
    paradigm="LTH",
    paper="You et al., Drawing Early-Bird Tickets: Towards More Efficient Training of Deep Networks, ICLR 2020",
    summary="Train with an L1 penalty on the scales of batch normalisation until the channels that they would keep "
    "have settled, remove the others, and go on.",
    mask_from="early",
    weights_from="early",
    trains_after=True,
    chi=0,
    dynamics="early-bird",
    score="learned",
    growth=None,
    structures=("channel",),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    saliency="batch-norm-scale",
    options=(
        Option("penalty", float, 1e-4, "lambda of the L1 norm of the scales, until the ticket is drawn", minimum=0),
        _WINDOW,
        Option("tolerance", float, 0.1, "largest share of channels in which they may differ", minimum=0, maximum=1),
    ),
    reasons={
        "element": "it removes whole channels, by their scales",
        "N:M": "it removes whole channels, by their scales",
        "erdos-renyi": LOTTERY_TICKET.reasons["erdos-renyi"],
        "erdos-renyi-kernel": LOTTERY_TICKET.reasons["erdos-renyi-kernel"],
        "iterative": "one ticket is drawn, in the one training that there is",
        "gradual": "the ticket is drawn at once, when the ranking of channels has settled",
    },
)

CRITICAL_EXAMPLES = replace(
    LOTTERY_TICKET,
    name="prac",
    paper="Zhang et al., Efficient Lottery Ticket Finding: Less Data is More, ICML 2021",
    summary="Lottery tickets whose rounds train only on examples that were forgotten or that pruning changes the "
    "answer to, and only until the mask has settled.",
    prepares="forgetting",
    structures=("element",),
    plan="critical-examples",
    transforms=("critical-examples",),
    options=(
        REWIND_STEP,
        RATE,
        Option("threshold", int, 0, "examples forgotten more often than so many times are hard", minimum=0),
        Option("fewest", int, 128, "with fewer critical examples, a round trains on all", minimum=1),
        _WINDOW,
        Option("tolerance", float, 0.08, "largest share of weights in which they may differ", minimum=0, maximum=1),
        Option("final_data", str, "all", "what the ticket itself is trained on", choices=("all", "critical")),
    ),
    reasons={**LOTTERY_TICKET.reasons, **_BLOCKS, "channel": "the paper's tickets are unstructured"},
)
