"""Sparse selection by the top of the scores: edge-popup and what was built on it."""

from ..declaration import Option
from .common import ANY_DENSITY, REASONS, SAME_SHARE, SCORE_TRAINING, selecting

EDGE_POPUP = selecting(
    name="edge-popup",
    paper="Ramanujan et al., What's Hidden in a Randomly Weighted Neural Network?, CVPR 2020",
    summary="Train a score for each random weight; the top of each layer is the network, its weights stay as drawn.",
    dynamics="selected",
    allocations=("uniform",),
    training=SCORE_TRAINING,
    reasons=SAME_SHARE,
)

ITERAND = selecting(
    name="iterand",
    paper="Chijiwa et al., Pruning Randomly Initialized Neural Networks with Iterative Randomization, NeurIPS 2021",
    summary="edge-popup, with a share of the weights that are out drawn anew from time to time.",
    dynamics="iterand",
    parametrisation="options",
    allocations=ANY_DENSITY,
    training=SCORE_TRAINING,
    options=(
        Option("update_interval", int, 300, "K_per: steps between two redrawings", minimum=1),
        Option("redraw", float, 0.1, "r: share of the pruned weights that is redrawn then", minimum=0, maximum=1),
    ),
    reasons=REASONS,
)

BIPROP = selecting(
    name="biprop",
    paper="Diffenderfer and Kailkhura, Multi-Prize Lottery Ticket Hypothesis: Finding Accurate Binary Neural Networks "
    "by Pruning a Randomly Weighted Network, ICLR 2021",
    summary="edge-popup whose layers compute with the signs of the chosen weights times one scale a layer.",
    dynamics="biprop",
    allocations=ANY_DENSITY,
    training=SCORE_TRAINING,
    parametrisation="signs",
    initialiser="kaiming-normal",
    reasons=REASONS,
)

SIGNED_SUPERMASK = selecting(
    name="signed-supermask",
    paper="Koster et al., Signing the Supermask: Keep, Hide, Invert, ICLR 2022",
    summary="Train a real mask whose sign may invert a weight; the largest in magnitude of each layer compute.",
    dynamics="signed-supermask",
    parametrisation="signs",
    allocations=ANY_DENSITY,
    # The paper's 0.005 goes with its fixed threshold of 0.01 and a hundred epochs.
    training=SCORE_TRAINING | {"weight_decay": 3e-4},
    options=(
        Option("threshold", float, 0.0, "tau of |v| (the paper: 0.01); 0: what keeps the asked share", minimum=0),
    ),
    reasons=REASONS,
)
