"""Lottery tickets: the mask of the trained network on early weights, and the two ways of keeping the trained ones."""

from dataclasses import replace

from ..declaration import Method, Option

RATE = Option("rate", float, 0.2, "share of what is left that a round removes", minimum=0, maximum=1, strict=True)
REWIND_STEP = Option("rewind_step", int, 0, "step that survivors are set back to; 0: the initial weights", minimum=0)

KEEP_ROUNDS = Option("keep_rounds", bool, False, "record state and masks at the end of every round, for analyze")

_TRAINED_DENSITIES = "a ticket's layer densities come from the trained weights or are equal"

LOTTERY_TICKET = Method(
    name="lottery-ticket",
    paradigm="LTH",
    paper="Frankle and Carbin, The Lottery Ticket Hypothesis, ICLR 2019; "
    "rewinding: Frankle et al., Linear Mode Connectivity and the Lottery Ticket Hypothesis, ICML 2020",
    summary="Train, prune by magnitude, set the survivors back to an early step, and train again; in rounds (IMP).",
    mask_from="final",
    weights_from="early",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="magnitude",
    growth=None,
    structures=("element", "N:M", "block", "channel"),
    allocations=("global", "uniform", "explicit"),
    schedules=("iterative", "one-shot"),
    needs=("data", "labels", "training"),
    options=(REWIND_STEP, RATE, KEEP_ROUNDS),
    reasons={
        "erdos-renyi": _TRAINED_DENSITIES,
        "erdos-renyi-kernel": _TRAINED_DENSITIES,
        "gradual": "survivors are set back after each training, so the mask has to stand still during it",
    },
)

LEARNING_RATE_REWINDING = replace(
    LOTTERY_TICKET,
    name="learning-rate-rewinding",
    paper="Renda et al., Comparing Rewinding and Fine-tuning in Neural Network Pruning, ICLR 2020",
    summary="Train, prune by magnitude, keep the weights, and train again on the learning rates of the first training.",
    weights_from="final",
    plan="learning-rate-rewinding",
    options=(replace(REWIND_STEP, doc="step that the learning-rate schedule is set back to; 0: all of it again"), RATE),
)

LAMP = Method(
    name="lamp",
    paradigm="LTH",
    paper="Lee et al., Layer-adaptive Sparsity for the Magnitude-based Pruning, ICLR 2021",
    summary="Magnitude relative to the layer's weights that are not smaller, ranked over all layers; then train on.",
    mask_from="final",
    weights_from="final",
    trains_after=True,
    chi=0,
    dynamics="static",
    score="layer-adaptive-magnitude",
    growth=None,
    structures=("element",),
    allocations=("global",),
    schedules=("iterative", "one-shot"),
    needs=(),
    options=(RATE,),
    reasons={
        "N:M": "the score ranks layers against each other, and blocks fix the density of each",
        "gradual": "the authors prune between trainings",
    },
)

PRETRAINED_TICKET = replace(
    LOTTERY_TICKET,
    name="bert-ticket",
    paper="Chen et al., The Lottery Ticket Hypothesis for Pre-trained BERT Networks, NeurIPS 2020",
    summary="Tickets in a pre-trained encoder: prune by global magnitude, 10 % a round, and set back to the "
    "pre-trained weights; embeddings and the task's head stay dense.",
    structures=("element",),
    allocations=("global", "uniform"),
    options=(REWIND_STEP, replace(RATE, default=0.1)),
    spares_head=True,
    reasons={**LOTTERY_TICKET.reasons, "channel": "the tickets of the paper are unstructured"},
)
