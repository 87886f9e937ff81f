"""Pruning at initialization, sparse training (PaI): mask and weights come from the untrained network."""

from ..declaration import Method, Option

SALIENCY_OPTIONS = (
    Option("batches", int, 1, "batches whose gradients are added up before they are scored", minimum=1),
    Option("batch_size", int, 128, "examples a batch (the paper: 100 for MNIST, 128 for CIFAR)", minimum=1),
    Option("mode", str, "eval", "batch normalisation while scoring", choices=("eval", "train")),
)

ONE_STEP = "the mask is found in one step, before training"

SNIP = Method(
    name="snip",
    paradigm="PaI (sparse training)",
    paper="Lee et al., SNIP: Single-shot Network Pruning based on Connection Sensitivity, ICLR 2019",
    summary="Keep the weights to which the loss of one batch is most sensitive at initialisation, then train them.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="gradient",
    growth=None,
    structures=("element", "N:M", "channel"),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    options=SALIENCY_OPTIONS,
    reasons={"iterative": ONE_STEP, "gradual": ONE_STEP},
)
