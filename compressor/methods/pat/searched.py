"""Pruning after training (PaT): the share of each layer is searched for instead of declared."""

from ..declaration import Option
from .common import RETRAIN, after_training

_SEARCHED = "how the weights are divided among the layers is what it searches for"

RATIO_SEARCH = after_training(
    name="ratio-search",
    paper="in the spirit of He et al., AMC: AutoML for Model Compression and Acceleration on Mobile Devices, ECCV 2018",
    summary="Try densities by layer under one budget on data, keep those of smallest loss; magnitude chooses in each.",
    plan="layerwise",
    transforms=("ratio-search",),
    score=None,
    saliency="l1",
    structures=("channel", "element"),
    allocations=("global",),
    schedules=("one-shot",),
    needs=("data", "labels"),
    options=(
        Option("candidates", int, 128, "densities that are tried", minimum=1),
        Option("samples", int, 256, "examples that judge each of them", minimum=1),
        Option("batch_size", int, 64, "examples that run at once", minimum=1),
        Option("floor", float, 0.2, "least density of a layer, as a share of the mean one", minimum=0, maximum=1),
        *RETRAIN,
    ),
    reasons={
        "N:M": "every layer has the same density, so there is nothing to search for",
        "uniform": _SEARCHED,
        "erdos-renyi": _SEARCHED,
        "erdos-renyi-kernel": _SEARCHED,
        "explicit": _SEARCHED,
        "iterative": "the search ends in one mask",
        "gradual": "the search ends in one mask",
    },
)
