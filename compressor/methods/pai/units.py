"""Whole channels and neurons at initialisation: 3SP, SNAP-it, and CNIP-it, which weighs units and weights alike."""

from .common import ONE_STEP, SALIENCY_OPTIONS, SCORED, at_initialisation
from .rounds import LADDER_OPTIONS

_UNITS = "it removes whole units, so that the network can be rebuilt smaller"

THREE_SP = at_initialisation(
    name="3sp",
    paper="van Amersfoort et al., Single Shot Structured Pruning Before Training, 2020",
    summary="Remove the units to which the loss is least sensitive for the operations they cost; rescale the rest.",
    score="gradient",
    structures=("channel",),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=SALIENCY_OPTIONS,
    saliency="gate-per-operation",
    transforms=("smaller-fan-in",),
    reasons={"element": _UNITS, "N:M": _UNITS, "iterative": ONE_STEP, "gradual": ONE_STEP},
)

SNAP_IT = at_initialisation(
    name="snap-it",
    paper="Verdenius et al., Pruning via Iterative Ranking of Sensitivity Statistics, 2020",
    summary="Remove, in a few rounds that halve the way, the units to which the loss is least sensitive.",
    score="gradient",
    structures=("channel",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=LADDER_OPTIONS,
    saliency="gate",
    transforms=("smaller-fan-in",),
    reasons={"element": _UNITS, "N:M": _UNITS},
)

CNIP_IT = at_initialisation(
    name="cnip-it",
    paper="Verdenius et al., Pruning via Iterative Ranking of Sensitivity Statistics, 2020",
    summary="SNIP-it with one threshold for weights and whole units: a weight falls with its unit.",
    score="weights-and-units",
    structures=("element",),
    allocations=("global",),
    schedules=("iterative",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=LADDER_OPTIONS,
)
