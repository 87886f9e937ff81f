"""Tickets whose mask or weights come from elsewhere: another depth, a draw, or the space that the training moves in."""

from dataclasses import replace

from ..declaration import Option
from .tickets import LOTTERY_TICKET, RATE, REWIND_STEP

_ORDERS = ("interpolate", "append")
_GIVEN = "the layer densities are those of the ticket that is given"

ELASTIC_TICKET = replace(
    LOTTERY_TICKET,
    name="elastic-ticket",
    paper="Chen et al., The Elastic Lottery Ticket Hypothesis, NeurIPS 2021",
    summary="Stretch or shrink the ticket of a network of another depth: its blocks are repeated or left out, with "
    "their masks and early values, and the result is trained.",
    score=None,
    structures=("element",),
    allocations=("global",),
    schedules=("one-shot",),
    plan="elastic-ticket",
    transforms=("elastic-ticket",),
    exact=False,
    options=(
        Option("ticket", str, "", "folder of the run that found it (of lottery-ticket or a kin)"),
        Option("order", str, _ORDERS[0], "repeated blocks stand side by side, or behind the last", choices=_ORDERS),
        Option("first_step", int, 0, "step of the schedule to begin at: the ticket's rewind_step", minimum=0),
    ),
    reasons={
        "N:M": "the mask is that of the given ticket",
        "channel": "the mask is that of the given ticket",
        "uniform": _GIVEN,
        "explicit": _GIVEN,
        "erdos-renyi": _GIVEN,
        "erdos-renyi-kernel": _GIVEN,
        "iterative": "the rounds are those in which the given ticket was found",
        "gradual": "the mask is that of the given ticket",
    },
)

DUAL_TICKET = replace(
    LOTTERY_TICKET,
    name="dual-lottery-ticket",
    paper="Bai et al., Dual Lottery Ticket Hypothesis, ICLR 2022",
    summary="Draw the mask at random, train the dense network while a growing L2 penalty empties what the mask leaves "
    "out, remove it, and train what stays.",
    mask_from="initial",
    weights_from="current",
    score="random",
    prepares="extrusion",
    structures=("element",),
    allocations=("uniform", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot", "iterative"),
    plan="extrusion",
    options=(
        Option("ceiling", float, 1.0, "coefficient at which the penalty's growth ends", minimum=0, strict=True),
        Option("end", float, 0.55, "share of the extrusion at which growth ends", minimum=0, maximum=1),
        Option("update_interval", int, 5, "steps between two increments", minimum=1),
        Option(
            "extrusion_rate",
            float,
            0.01,
            "learning rate of the extrusion (the paper: 0.001 for 90,000 steps)",
            minimum=0,
            strict=True,
        ),
        Option("rounds", int, 5, "iterative: cycles of extrusion", minimum=1),
    ),
    reasons={
        "N:M": "the paper's tickets are unstructured",
        "channel": "the paper's tickets are unstructured",
        "gradual": "the penalty's growth is what is gradual; the mask is known from the start",
    },
)

MANIFOLD_TICKET = replace(
    LOTTERY_TICKET,
    name="inertial-manifold",
    paper="Zhang et al., Validating the Lottery Ticket Hypothesis with Inertial Manifold Theory, NeurIPS 2021",
    summary="Lottery tickets whose survivors start from their early values projected on the space that the first "
    "epochs of the training moved in.",
    prepares="trajectory",
    structures=("element",),
    plan="projected-ticket",
    transforms=("trajectory-space",),
    options=(
        REWIND_STEP,
        RATE,
        Option("snapshots", int, 10, "states of the training that span the space", minimum=2),
        Option("share", float, 0.1, "share of the training that they are taken from", minimum=0, maximum=1),
        Option("rank", int, 5, "dimensions of the space", minimum=1),
    ),
    reasons={
        **LOTTERY_TICKET.reasons,
        "N:M": "the paper's tickets are unstructured",
        "channel": "the paper's tickets are unstructured",
    },
)
