"""Pruning after training (PaT): by magnitude, and the control that any criterion has to beat."""

from ...scores.magnitude import NORMS
from ..declaration import Option
from .common import ANY_ALLOCATION, ANY_STRUCTURE, IN_ROUNDS, NOT_GRADUAL, RATE, RETRAIN, after_training

MAGNITUDE = after_training(
    name="magnitude",
    paper="Han et al., Learning both Weights and Connections for Efficient Neural Networks, NeurIPS 2015; "
    "gradual: Zhu and Gupta, To prune, or not to prune, 2017; "
    "retrain=rewound: Renda et al., Comparing Rewinding and Fine-tuning in Neural Network Pruning, ICLR 2020",
    summary="Remove the weights of smallest magnitude from a trained network, then fine-tune the rest.",
    score="magnitude",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=("one-shot", "iterative", "gradual"),
    needs=(),
    options=(
        Option("norm", str, "l1", "channels: norm of a unit's weights", choices=tuple(NORMS)),
        RATE,
        # Begin and end as in the ResNet-50 runs of Evci et al. 2020: steps 10,000 and 25,000 of 32,000.
        Option("gradual_start", float, 0.3125, "gradual: share of the training before it", minimum=0, maximum=1),
        Option("gradual_end", float, 0.78125, "gradual: share of the training at its end", minimum=0, maximum=1),
        Option("update_interval", int, 100, "gradual: steps between two masks", minimum=1),
        *RETRAIN,
    ),
)

RANDOM = after_training(
    name="random",
    paper="the control in Blalock et al., What is the State of Neural Network Pruning?, MLSys 2020",
    summary="Remove weights of a trained network at random, then fine-tune the rest.",
    score="random",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=IN_ROUNDS,
    needs=(),
    options=(RATE, *RETRAIN),
    reasons={"gradual": NOT_GRADUAL},
)
