"""Powerpropagation: a reparametrisation of dense training that any pruning by magnitude can follow."""

from dataclasses import replace

from ..declaration import Option
from ..pat.magnitude import MAGNITUDE

POWERPROPAGATION = replace(
    MAGNITUDE,
    name="powerpropagation",
    paradigm="DST",
    paper="Schwarz et al., Powerpropagation: A Sparsity Inducing Weight Reparameterisation, NeurIPS 2021",
    summary="Train a power of the weights, so that large ones grow and small ones stay small; then prune by magnitude.",
    needs=("data", "labels", "training"),
    prepares="powerpropagation",
    schedules=("one-shot", "iterative"),
    options=(
        Option("alpha", float, 2.0, "the power; 1 is ordinary training", minimum=1),
        *(option for option in MAGNITUDE.options if not option.name.startswith(("gradual", "update"))),
    ),
    reasons={"gradual": "its weights are trained whole, and pruned when that is done"},
)
