"""SNIP in rounds: the sensitivity is looked at again each time some weights are gone."""

from dataclasses import replace

from ..declaration import Option
from .common import SALIENCY_OPTIONS, SCORED, at_initialisation

_DENSE_OPTIONS = (
    Option("rounds", int, 60, "rounds (the paper: 60 to 300)", minimum=1),
    Option(
        "spacing",
        str,
        "exponential",
        "how sparsity grows from round to round",
        choices=("exponential", "linear", "ladder"),
    ),
)

# The authors' code scores with the statistics of the batch, unlike SNIP's.
_SCORING_OPTIONS = (*SALIENCY_OPTIONS[:2], replace(SALIENCY_OPTIONS[2], default="train"))

ITERATIVE_SNIP = at_initialisation(
    name="iterative-snip",
    paper="de Jorge et al., Progressive Skeletonization: Trimming more fat from a network at initialization, ICLR 2021",
    summary="SNIP in many rounds; what a round removes stays removed.",
    score="gradient",
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=(*_DENSE_OPTIONS, *_SCORING_OPTIONS),
)

FORCE = at_initialisation(
    name="force",
    paper="de Jorge et al., Progressive Skeletonization: Trimming more fat from a network at initialization, ICLR 2021",
    summary="SNIP in many rounds with the gradients of the pruned network; a removed weight may return.",
    score="force",
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=(*_DENSE_OPTIONS, *_SCORING_OPTIONS),
    resurrects=True,
)

LADDER_OPTIONS = (
    Option("rounds", int, 7, "rounds; the first removes half of the weights", minimum=1),
    Option(
        "spacing", str, "ladder", "how sparsity grows from round to round", choices=("exponential", "linear", "ladder")
    ),
    Option("batches", int, 5, "batches whose gradients are added up before they are scored", minimum=1),
    *SALIENCY_OPTIONS[1:],
)

SNIP_IT = at_initialisation(
    name="snip-it",
    paper="Verdenius et al., Pruning via Iterative Ranking of Sensitivity Statistics, 2020",
    summary="SNIP in a few rounds that halve the way to the sparsity; what a round removes stays removed.",
    score="gradient",
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative",),
    needs=SCORED,
    initialiser="kaiming-normal",
    options=LADDER_OPTIONS,
)
