"""Synaptic flow: pruning at initialisation without data, in many rounds."""

from ..declaration import Method, Option

_ROUNDS = Option("rounds", int, 100, "rounds that all remove the same share of what is left", minimum=1)

SYNFLOW = Method(
    name="synflow",
    paradigm="PaI (sparse training)",
    paper="Tanaka et al., Pruning neural networks without any data by iteratively conserving synaptic flow, "
    "NeurIPS 2020",
    summary="Remove, in rounds, what carries least of the flow through the network of absolute values; no data.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="synflow",
    growth=None,
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("gradients",),
    initialiser="kaiming-normal",
    options=(_ROUNDS,),
)

SYNFLOW_L2 = Method(
    name="synflow-l2",
    paradigm="PaI (sparse training)",
    paper="Patil and Dovrolis, PHEW, ICML 2021; Gebhart et al., A Unified Paths Perspective for Pruning at "
    "Initialization, 2021",
    summary="As synflow with squares in place of absolute values: the weights that carry the squared path norm.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="path-norm",
    growth=None,
    structures=("element",),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("gradients",),
    initialiser="kaiming-normal",
    options=(_ROUNDS,),
)
