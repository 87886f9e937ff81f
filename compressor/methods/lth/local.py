"""Tickets whose layers are pruned each for itself, a share of what is left a round: along the inputs, or by weight."""

from dataclasses import replace

from ..declaration import Option
from .tickets import KEEP_ROUNDS, LOTTERY_TICKET, RATE, REWIND_STEP

_LOCAL = "every round takes its share from each layer"
_OPTIONS = (
    Option(
        "kept",
        str,
        "rewind",
        "what kept weights begin a round with",
        choices=("rewind", "finetune", "sign-sigma", "sign"),
    ),
    Option("biases", bool, True, "with sign-sigma and sign: the biases of pruned layers too"),
    REWIND_STEP,
    RATE,
    KEEP_ROUNDS,
)

LOCAL_TICKET = replace(
    LOTTERY_TICKET,
    name="local-ticket",
    paper="On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020",
    summary="Rounds that take a share of what each layer has left: single weights, whole inputs by a norm, inputs of "
    "convolutions and weights of the rest (hybrid), or the fully connected layers alone; weights rewound or not.",
    structures=("element", "input-channel", "hybrid", "fully-connected"),
    allocations=("uniform",),
    schedules=("iterative",),
    plan="local-rounds",
    transforms=("kept-weights",),
    exact=False,
    options=(
        Option("norm", str, "l1", "of an input's weights", choices=("l1", "l2", "l-inf", "l-minus-inf")),
        *_OPTIONS,
    ),
    reasons={
        **LOTTERY_TICKET.reasons,
        "global": _LOCAL,
        "erdos-renyi": _LOCAL,
        "erdos-renyi-kernel": _LOCAL,
        "explicit": _LOCAL,
        "one-shot": "its rounds are what it is about; ask for rounds: 1",
        "N:M": "blocks have one density, and rounds go through many",
        "channel": "the inputs of each layer are pruned, not units coupled through several",
    },
)

RANDOM_LOCAL_TICKET = replace(
    LOCAL_TICKET,
    name="random-local-ticket",
    summary="The same rounds with what goes drawn at random: the control of every norm.",
    score="random",
    structures=("element", "input-channel"),
    options=_OPTIONS,
)
