"""Synaptic flow: pruning at initialisation without data, in many rounds."""

from ..declaration import Option
from .common import at_initialisation

_ROUNDS = Option("rounds", int, 100, "rounds that all remove the same share of what is left", minimum=1)

SYNFLOW = at_initialisation(
    name="synflow",
    paper="Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, "
    "NeurIPS 2020",
    summary="Remove, in rounds, what carries least of the flow through the network of absolute values; no data.",
    score="synflow",
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("gradients",),
    initialiser="kaiming-normal",
    options=(_ROUNDS,),
)

SYNFLOW_L2 = at_initialisation(
    name="synflow-l2",
    paper="Patil and Dovrolis, PHEW, ICML 2021; Gebhart et al., A Unified Paths Perspective for Pruning at "
    "Initialization, 2021",
    summary="As synflow with squares in place of absolute values: the weights that carry the squared path norm.",
    score="path-norm",
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("gradients",),
    initialiser="kaiming-normal",
    options=(_ROUNDS,),
)
