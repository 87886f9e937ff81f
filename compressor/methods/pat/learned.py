"""Pruning while a trained network is tuned, or while it is trained: scores, thresholds and masks that move with it."""

from functools import partial

from ..declaration import Option
from .common import ANY_ALLOCATION, BY_LAYER, RETRAIN, after_training

_NEEDS = ("data", "labels", "gradients", "training")
_OWN_SCHEDULE = "its mask moves by its own rule while it trains"
_REASONS = {"iterative": _OWN_SCHEDULE, "gradual": _OWN_SCHEDULE}
_SINGLE = _REASONS | {
    "channel": "its scores and thresholds are those of single weights",
    "N:M": "its masks have no fixed count in a block until the end",
}
# These train what they keep while they choose it.
_NO_RETRAINING = (
    Option(
        "retrain",
        str,
        "none",
        "after the mask: a fresh schedule (fine_tune), the training's own again, or none",
        choices=("fresh", "rewound", "none"),
    ),
    RETRAIN[1],
)
_SCORE_RATE = Option("score_rate", float, 1.0, "learning rate of the scores", minimum=0, strict=True)

# Single weights, by scores or thresholds that learn with them: while a trained network is tuned, or from the start.
while_tuning = partial(
    after_training,
    plan="pruned-while-tuning",
    score="learned",
    structures=("element",),
    allocations=ANY_ALLOCATION,
    schedules=("one-shot",),
    needs=_NEEDS,
    reasons=_SINGLE,
)
while_training = partial(while_tuning, plan="pruned-by-training")

MOVEMENT = while_tuning(
    name="movement",
    paper="Sanh et al., Movement Pruning: Adaptive Sparsity by Fine-Tuning, NeurIPS 2020",
    summary="While fine-tuning, keep the weights that move away from zero: scores add up -g w, the best of them stay.",
    prepares="movement",
    options=(
        _SCORE_RATE,
        Option("start", float, 0.1, "share of fine-tuning before sparsity rises along a cubic", minimum=0, maximum=1),
        Option("end", float, 0.7, "share of fine-tuning from which on it is the final one", minimum=0, maximum=1),
        *_NO_RETRAINING,
    ),
)

SOFT_MOVEMENT = while_tuning(
    name="soft-movement",
    paper=MOVEMENT.paper,
    summary="The same with a threshold on sigmoid(score) and a penalty on it; the final mask has the asked size.",
    prepares="soft-movement",
    options=(
        _SCORE_RATE,
        Option("threshold", float, 0.1, "tau, of sigmoid(score)", minimum=0, maximum=1),
        Option("penalty", float, 100.0, "weight of the mean of sigmoid(score)", minimum=0),
        *_NO_RETRAINING,
    ),
)

SURGERY = while_tuning(
    name="dynamic-network-surgery",
    paper="Guo et al., Dynamic Network Surgery for Efficient DNNs, NIPS 2016",
    summary="While fine-tuning, prune below one threshold and splice back above another; pruned weights keep learning.",
    prepares="surgery",
    allocations=BY_LAYER,
    options=(
        Option("gamma", float, 1e-4, "masks move with probability (1 + gamma * step)^-power", minimum=0),
        Option("power", float, 1.0, "see gamma", minimum=0),
        Option("end", float, 0.75, "share of fine-tuning after which masks stay", minimum=0, maximum=1),
        *_NO_RETRAINING,
    ),
    reasons=_SINGLE | {"global": "each layer has thresholds of its own"},
)

GSM = while_tuning(
    name="global-sparse-momentum",
    paper="Ding et al., Global Sparse Momentum SGD for Pruning Very Deep Neural Networks, NeurIPS 2019",
    summary="While fine-tuning, only the weights of largest |g w| learn, the others decay; the largest stay.",
    prepares="global-momentum",
    score="magnitude",
    structures=("element", "N:M", "channel"),
    # The high momentum is what lets decay add up.
    training={"momentum": 0.98},
    options=RETRAIN,
    reasons=_REASONS,
)

STR = while_training(
    name="soft-threshold-reparametrisation",
    paper="Kusupati et al., Soft Threshold Weight Reparameterization for Learnable Sparsity, ICML 2020",
    summary="Train a soft threshold for each layer with the weights; the final mask has the asked size.",
    prepares="soft-threshold",
    options=(
        Option("start", float, -5.0, "first value of s; the threshold is sigmoid(s)", maximum=0),
        Option("threshold_decay", float, 5e-4, "weight decay of s, which raises the threshold", minimum=0),
        *_NO_RETRAINING,
    ),
)

THRESHOLDS = while_training(
    name="trained-thresholds",
    paper="Liu et al., Dynamic Sparse Training: Find Efficient Sparse Network From Scratch With Trainable Masked "
    "Layers, ICLR 2020",
    summary="Train a threshold for each output unit with the weights; the final mask has the asked size.",
    prepares="unit-threshold",
    options=(Option("alpha", float, 1e-5, "weight of the penalty sum exp(-t)", minimum=0), *_NO_RETRAINING),
)

SR_STE = while_training(
    name="sr-ste",
    paper="Zhou et al., Learning N:M Fine-Grained Structured Sparse Neural Networks From Scratch, ICLR 2021",
    summary="Train with the largest N of every M weights at each step, gradients passing straight through to all.",
    prepares="straight-through",
    score="magnitude",
    structures=("N:M",),
    allocations=("uniform",),
    options=(Option("decay", float, 2e-4, "lambda_w, of the weights that are out", minimum=0), *_NO_RETRAINING),
    reasons=_REASONS
    | {
        "element": "it is the training of N:M masks",
        "channel": "it is the training of N:M masks",
        "global": "every block keeps the same number",
        "erdos-renyi": "every block keeps the same number",
        "erdos-renyi-kernel": "every block keeps the same number",
        "explicit": "every block keeps the same number",
    },
)
