"""Sparse selection of signs and of values: what is trained is which sign, or which of several values, a weight has."""

from ....models.seeding.record import KEYED_PRODUCT
from ..declaration import Method, Option
from ..pai.flow import SYNFLOW
from .common import SCORE_TRAINING

PEEK_A_BOO = Method(
    name="peek-a-boo",
    paradigm="PaI (sparse selection)",
    paper="Chen et al., Peek-a-Boo: What (More) is Disguised in a Randomly Weighted Neural Network, and How to Find It "
    "Efficiently, ICLR 2022; the sign optimiser: Helwegen et al., Latent Weights Do Not Exist, NeurIPS 2019",
    summary="Prune the random network by synaptic flow, then train only the signs of what is left.",
    mask_from="initial",
    weights_from="initial",
    trains_after=True,
    chi=0,
    dynamics="signs",
    score="synflow",
    growth=None,
    structures=("element",),
    allocations=SYNFLOW.allocations,
    schedules=SYNFLOW.schedules,
    needs=("data", "labels", "gradients", "training"),
    parametrisation="signs",
    generator=KEYED_PRODUCT,
    options=(
        *SYNFLOW.options,
        Option("gamma", float, 1e-3, "adaptivity rate: weight of a gradient in the momentum", minimum=0, maximum=1),
        Option("gamma_decay", float, 0.15, "by which gamma is multiplied at each quarter", minimum=0, maximum=1),
        Option("threshold", float, 1e-6, "tau: momentum from which on a sign flips", minimum=0),
    ),
    reasons={
        "N:M": "it trains what synaptic flow leaves of single weights",
        "channel": "it trains what synaptic flow leaves of single weights",
        "gradual": "the mask is found before the signs are trained",
    },
)

_NOTHING_PRUNED = "it chooses a value for every weight and prunes none"

SLOT_MACHINES = Method(
    name="slot-machines",
    paradigm="PaI (sparse selection)",
    paper="Aladago and Torresani, Slot Machines: Discovering Winning Combinations of Random Weights in Neural "
    "Networks, ICML 2021",
    summary="Train a score for each of K random values of every weight; the best-scored value is the weight.",
    mask_from=None,
    weights_from="initial",
    trains_after=False,
    chi=0,
    dynamics="slots",
    score=None,
    growth=None,
    structures=("element",),
    allocations=("uniform",),
    schedules=("one-shot",),
    needs=("data", "labels", "gradients", "training"),
    parametrisation="options",
    generator=KEYED_PRODUCT,
    training=SCORE_TRAINING | {"learning_rate": 0.2},
    options=(
        Option("values", int, 8, "K: random values of each weight", minimum=2, maximum=4096),
        Option("choice", str, "greedy", "how training picks a value", choices=("greedy", "sampled")),
    ),
    reasons=dict.fromkeys(
        ("N:M", "channel", "global", "erdos-renyi", "erdos-renyi-kernel", "explicit", "iterative", "gradual"),
        _NOTHING_PRUNED,
    ),
)
