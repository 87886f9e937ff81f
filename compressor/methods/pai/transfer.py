"""Neural tangent transfer: a sparse network trained without labels to start as its dense teacher does."""

from ..declaration import Option
from .common import IN_ONE_STEP, at_initialisation

NEURAL_TANGENT_TRANSFER = at_initialisation(
    name="neural-tangent-transfer",
    paper="Liu and Zenke, Finding trainable sparse networks through Neural Tangent Transfer, ICML 2020",
    summary="Fit a sparse network, without labels, to outputs and tangent kernel of the dense one at its start.",
    # The first mask; later ones are chosen as the student is fitted.
    score="magnitude",
    structures=("element",),
    allocations=("uniform", "global", "explicit"),
    schedules=("one-shot",),
    needs=("data", "gradients"),
    initialiser="kaiming-normal",
    options=(
        Option("transfer_epochs", int, 20, "passes over the inputs", minimum=0),
        Option("transfer_rate", float, 5e-4, "learning rate of Adam", minimum=0, strict=True),
        Option("transfer_batch", int, 64, "examples a step; the kernel is between its halves", minimum=2),
        Option("kernel_weight", float, 1e-3, "weight of the kernels' distance", minimum=0),
        Option("kernel_decay", float, 1e-4, "weight of the squared weights over the density", minimum=0),
        Option("mask_interval", int, 100, "steps between two masks", minimum=1),
    ),
    transforms=("tangent-transfer",),
    resurrects=True,
    reasons=IN_ONE_STEP,
)
