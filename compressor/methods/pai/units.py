"""Whole channels and neurons at initialisation: 3SP, SNAP-it, and CNIP-it, which weighs units and weights alike."""

from ..declaration import Method
from .rounds import LADDER_OPTIONS
from .sensitivity import ONE_STEP, SALIENCY_OPTIONS

_UNITS = "it removes whole units, so that the network can be rebuilt smaller"

THREE_SP = Method(
    name="3sp",
    paradigm="PaI (sparse training)",
    paper="van Amersfoort et al., Single Shot Structured Pruning Before Training, 2020",
    summary="Remove the units to which the loss is least sensitive for the operations they cost; rescale the rest.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="gradient",
    growth=None,
    structures=("channel",),
    allocations=("global", "uniform", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    initialiser="kaiming-normal",
    options=SALIENCY_OPTIONS,
    saliency="gate-per-operation",
    transforms=("smaller-fan-in",),
    reasons={"element": _UNITS, "N:M": _UNITS, "iterative": ONE_STEP, "gradual": ONE_STEP},
)

SNAP_IT = Method(
    name="snap-it",
    paradigm="PaI (sparse training)",
    paper="Verdenius et al., Pruning via Iterative Ranking of Sensitivity Statistics, 2020",
    summary="Remove, in a few rounds that halve the way, the units to which the loss is least sensitive.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="gradient",
    growth=None,
    structures=("channel",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative",),
    needs=("data", "labels", "gradients"),
    initialiser="kaiming-normal",
    options=LADDER_OPTIONS,
    saliency="gate",
    transforms=("smaller-fan-in",),
    reasons={"element": _UNITS, "N:M": _UNITS},
)

CNIP_IT = Method(
    name="cnip-it",
    paradigm="PaI (sparse training)",
    paper="Verdenius et al., Pruning via Iterative Ranking of Sensitivity Statistics, 2020",
    summary="SNIP-it with one threshold for weights and whole units: a weight falls with its unit.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="weights-and-units",
    growth=None,
    structures=("element",),
    allocations=("global",),
    schedules=("iterative",),
    needs=("data", "labels", "gradients"),
    initialiser="kaiming-normal",
    options=LADDER_OPTIONS,
)
