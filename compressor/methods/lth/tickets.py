"""Lottery tickets (LTH): the mask of the trained network on the weights of an early moment, trained again."""

from ..declaration import Method, Option

LOTTERY_TICKET = Method(
    name="lottery-ticket",
    paradigm="LTH",
    paper="Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; "
    "rewinding: Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020",
    summary="Train, prune by magnitude, set the survivors back to an early step, and train again; in rounds (IMP).",
    mask_from="final",
    weights_from="early",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="magnitude",
    growth=None,
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("data", "labels", "training"),
    options=(
        Option("rewind_step", int, 0, "step that survivors are set back to; 0: the initial weights", minimum=0),
        Option("rate", float, 0.2, "share of what is left that a round removes", minimum=0, maximum=1, strict=True),
    ),
    reasons={
        "erdos-renyi": "a ticket's layer densities come from the trained weights or are equal",
        "erdos-renyi-kernel": "a ticket's layer densities come from the trained weights or are equal",
        "gradual": "survivors are set back after each training, so the mask has to stand still during it",
    },
)
