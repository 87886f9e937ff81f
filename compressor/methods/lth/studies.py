"""What makes a ticket: other criteria and weights, sanity checks, and tickets that move to another task."""

from dataclasses import replace

from ...scores.ticket_criteria import CONDITIONS, CRITERIA, RANDOM
from ..declaration import Option
from .tickets import LOTTERY_TICKET, RATE, REWIND_STEP

_KEPT = ("rewind", "reinitialise", "sign-sigma", "sign", "random-sign", "shuffle")
_PRUNED = ("zero", "freeze", "freeze-or-zero")
_CHECKS = ("shuffle-mask", "shuffle-weights", "reinitialise", "invert", "random-labels", "shuffled-pixels")
_ONLY_ELEMENTS = {"N:M": "the study is of single weights", "channel": "the study is of single weights"}

MASK_CRITERIA = replace(
    LOTTERY_TICKET,
    name="mask-criteria",
    paper="Zhou et al., Deconstructing Lottery Tickets: Zeros, Signs, and the Supermask, NeurIPS 2019",
    summary="Tickets by where a weight began and where training took it; survivors rewound, drawn again or reduced to "
    "their sign, the others zero or frozen, one by one.",
    score="ticket-criterion",
    structures=("element",),
    allocations=("uniform", "global", "explicit"),
    transforms=("kept-weights", "pruned-weights"),
    options=(
        Option("criterion", str, "large_final", "what ranks a weight", choices=(*CRITERIA, RANDOM)),
        Option("condition", str, "any", "which weights are ranked; the others go first", choices=tuple(CONDITIONS)),
        Option("kept", str, "rewind", "what kept weights begin with", choices=_KEPT),
        Option("pruned", str, "zero", "what stands for the others", choices=_PRUNED),
        REWIND_STEP,
        RATE,
    ),
    reasons={**LOTTERY_TICKET.reasons, **_ONLY_ELEMENTS},
)

REINITIALISED_TICKET = replace(
    LOTTERY_TICKET,
    name="reinitialised-ticket",
    paper="Frankle and Carbin, ICLR 2019, section 2; On Iterative Neural Network Pruning, Reinitialization, and the "
    "Similarity of Masks, 2020",
    summary="A ticket whose weights are drawn again, or are the sign of the early ones, plain or times the layer's "
    "standard deviation.",
    transforms=("kept-weights",),
    options=(
        Option("kept", str, "reinitialise", "what kept weights begin with", choices=_KEPT[1:]),
        Option("biases", bool, False, "treat the biases of pruned layers in the same way"),
        REWIND_STEP,
        RATE,
    ),
)

TICKET_CHECK = replace(
    LOTTERY_TICKET,
    name="ticket-sanity-check",
    paper="Su et al., Sanity-Checking Pruning Methods: Random Tickets can Win the Jackpot, NeurIPS 2020; Frankle et "
    "al., Pruning Neural Networks at Initialization: Why Are We Missing the Mark?, ICLR 2021",
    summary="A ticket with one thing destroyed: the places in each layer, the weights, the ranking, or the data that "
    "it was found on.",
    score="sanity-check",
    structures=("element",),
    plan="ticket-check",
    transforms=("sanity-check",),
    options=(
        Option("check", str, "shuffle-mask", "what is destroyed", choices=_CHECKS),
        REWIND_STEP,
        RATE,
    ),
    reasons={**LOTTERY_TICKET.reasons, **_ONLY_ELEMENTS},
)

TICKET_TRANSFER = replace(
    LOTTERY_TICKET,
    name="ticket-transfer",
    paper="Morcos et al., One Ticket to Win Them All, NeurIPS 2019",
    summary="Find a ticket on other data or with another optimiser, give it a fresh classifier, train it on this task.",
    allocations=("global", "uniform", "explicit"),
    plan="ticket-transfer",
    transforms=("fresh-classifier",),
    options=(
        Option("source_data", str, "", "where the ticket is found (as data); empty: the run's own"),
        Option(
            "source_optimiser",
            str,
            "",
            "what it is found with; empty: the run's own",
            choices=("", "sgd", "adam", "adamw"),
        ),
        REWIND_STEP,
        RATE,
    ),
)
