"""Freezing: most weights keep the value that the seed gave them, the rest are trained."""

from dataclasses import replace

from ..declaration import Option
from ..pai.common import SALIENCY_OPTIONS, SCORED
from .common import IN_ONE_STEP, NO_ZEROS, freezing

FREEZENET = freezing(
    name="freezenet",
    paper="Wimmer et al., FreezeNet: Full Performance by Reduced Storage Costs, ACCV 2020",
    summary="Train only the weights that SNIP would keep; the others stay as drawn and are stored as a seed.",
    score="gradient",
    structures=("element",),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    needs=SCORED,
    options=SALIENCY_OPTIONS,
    reasons={"N:M": NO_ZEROS, "channel": NO_ZEROS, **IN_ONE_STEP},
)

FREEZENET_WD = replace(
    FREEZENET,
    name="freezenet-wd",
    summary="FreezeNet with weight decay on the frozen part, which is gone at the end: a sparse network like SNIP's.",
    chi="fading",
    dynamics="fading",
    parametrisation="identity",
    options=(
        *SALIENCY_OPTIONS,
        Option(
            "left",
            float,
            1e-3,
            "share of a frozen weight that the decay leaves at the end, and that is then cut",
            minimum=0,
            maximum=1,
            strict=True,
        ),
    ),
    reasons=IN_ONE_STEP
    | dict.fromkeys(("N:M", "channel"), "what is frozen computes until the end, and its places follow SNIP's scores"),
)

FISH = freezing(
    name="fish",
    paper="Sung et al., Training Neural Networks with Fixed Sparse Masks, NeurIPS 2021",
    summary="Train the weights of largest Fisher information, and the last layer; the others stay as they are.",
    score="fisher",
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    needs=SCORED,
    spares_head=True,
    options=(
        Option("samples", int, 1024, "examples that the information is averaged over", minimum=1),
        Option(
            "curvature",
            str,
            "fisher",
            "fisher: with the labels of the data; expected: with every label, by the network's probability of it",
            choices=("fisher", "expected"),
        ),
    ),
    reasons={
        "N:M": NO_ZEROS,
        "channel": NO_ZEROS,
        "erdos-renyi": "the information itself says which layers need training",
        "erdos-renyi-kernel": "the information itself says which layers need training",
        **IN_ONE_STEP,
    },
)
