"""Freezing: most weights keep the value that the seed gave them, the rest are trained."""

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method
from ..pai.common import ONE_STEP, SALIENCY_OPTIONS

_NO_ZEROS = "the frozen weights still compute, so a pattern gains no speed and only limits which weights are trained"

FREEZENET = Method(
    name="freezenet",
    paradigm="freezing",
    paper="Wimmer et al., FreezeNet: Full Performance by Reduced Storage Costs, ACCV 2020",
    summary="Train only the weights that SNIP would keep; the others stay as drawn and are stored as a seed.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=1,
    dynamics="frozen",
    score="gradient",
    growth=None,
    structures=("element",),
    allocations=("global", "uniform", "erdos-renyi", "erdos-renyi-kernel", "explicit"),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients"),
    parametrisation="frozen",
    generator=KEYED_PRODUCT,
    options=SALIENCY_OPTIONS,
    reasons={"N:M": _NO_ZEROS, "channel": _NO_ZEROS, "iterative": ONE_STEP, "gradual": ONE_STEP},
)
