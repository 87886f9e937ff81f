"""Pruning at initialization, sparse training (PaI): mask and weights come from the untrained network."""

from .common import IN_ONE_STEP, SALIENCY_OPTIONS, SCORED, at_initialisation

SNIP = at_initialisation(
    name="snip",
    paper="Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019",
    summary="Keep the weights to which the loss of one batch is most sensitive at initialisation, then train them.",
    score="gradient",
    structures=("element", "N:M", "block", "channel"),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=SCORED,
    options=SALIENCY_OPTIONS,
    reasons=IN_ONE_STEP,
)
