"""What the declarations of sparse training share: k1 = k2 = 0, a fixed mask, and how gradients are gathered for it."""

from __future__ import annotations

from functools import partial

from ..declaration import Method, Option

# Mask and weights from the untrained network, zero elsewhere, then trained with a fixed mask.
at_initialisation = partial(
    Method,
    paradigm="PaI (sparse training)",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="static",
    growth=None,
)

SCORED = ("data", "labels", "gradients")
SALIENCY_OPTIONS = (
    Option("batches", int, 1, "batches whose gradients are added up before they are scored", minimum=1),
    Option("batch_size", int, 128, "examples a batch (the paper: 100 for MNIST, 128 for CIFAR)", minimum=1),
    Option("mode", str, "eval", "batch normalisation while scoring", choices=("eval", "train")),
)

ONE_STEP = "the mask is found in one step, before training"
IN_ONE_STEP = {"iterative": ONE_STEP, "gradual": ONE_STEP}
