"""Pruning after training (PaT): whole filters, by norms, scales, or a penalty that prepares for it."""

from ..declaration import Option
from .common import BY_LAYER, IN_ROUNDS, NOT_GRADUAL, RATE, RETRAIN, after_training

_WHOLE = {
    "element": "it removes whole filters",
    "N:M": "it removes whole filters, which no block of a kept one takes part in",
}
_PENALISED = _WHOLE | {
    "iterative": "the penalty acts during the one training that leads to the mask",
    "gradual": "the penalty acts during the training, the mask is chosen after it",
}

L1_FILTERS = after_training(
    name="l1-filters",
    paper="Li et al., Pruning Filters for Efficient ConvNets, ICLR 2017",
    summary="Remove the filters of smallest L1 norm, so many of each layer, with all that belongs to them.",
    score="magnitude",
    saliency="l1",
    structures=("channel",),
    allocations=("uniform", "explicit"),
    schedules=IN_ROUNDS,
    needs=(),
    options=(RATE, *RETRAIN),
    reasons=_WHOLE
    | {
        "global": "sums of filters of different size do not compare; each layer has a share of its own",
        "erdos-renyi": "each layer's share is given, by its sensitivity",
        "erdos-renyi-kernel": "each layer's share is given, by its sensitivity",
        "gradual": NOT_GRADUAL,
    },
)

NETWORK_SLIMMING = after_training(
    name="network-slimming",
    paper="Liu et al., Learning Efficient Convolutional Networks through Network Slimming, ICCV 2017",
    summary="Train with an L1 penalty on the scales of batch normalisation, remove the channels of smallest scale.",
    prepares="scale-penalty",
    score="magnitude",
    saliency="batch-norm-scale",
    structures=("channel",),
    allocations=("global", *BY_LAYER),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    options=(Option("penalty", float, 1e-4, "lambda (VGG; the paper: 1e-5 for ResNet)", minimum=0), *RETRAIN),
    reasons=_PENALISED,
)

SSL = after_training(
    name="ssl",
    paper="Wen et al., Learning Structured Sparsity in Deep Neural Networks, NIPS 2016",
    summary="Train with a group lasso on filters and input channels, remove the filters of smallest L2 norm.",
    prepares="group-lasso",
    score="magnitude",
    saliency="l2",
    structures=("channel",),
    allocations=("global", *BY_LAYER),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    options=(
        Option("filter_penalty", float, 5e-4, "lambda_n, of output filters", minimum=0),
        Option("channel_penalty", float, 5e-4, "lambda_c, of input channels", minimum=0),
        *RETRAIN,
    ),
    reasons=_PENALISED,
)

SSS = after_training(
    name="sparse-structure-selection",
    paper="Huang and Wang, Data-Driven Sparse Structure Selection for Deep Neural Networks, ECCV 2018",
    summary="Train a scale on every filter with an L1 penalty by proximal steps, remove the filters of smallest scale.",
    plan="pruned-by-training",
    prepares="scaled-units",
    score="learned",
    structures=("channel",),
    allocations=("global", *BY_LAYER),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    options=(
        Option("penalty", float, 1e-3, "gamma, of the L1 norm of the scales", minimum=0),
        Option("scale_momentum", float, 0.9, "mu, of the scales", minimum=0, maximum=1),
        *RETRAIN,
    ),
    reasons=_PENALISED,
)
