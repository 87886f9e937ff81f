"""Pruning after training (PaT): by the curvature of the loss, with or without making up for what goes."""

from ..declaration import Option
from .common import ANY_ALLOCATION, ANY_STRUCTURE, NOT_GRADUAL, RATE, RETRAIN, SCORED, after_training

_NOT_UNITS = "it models the removal of single weights; the update of a whole unit is another formula"

OBD = after_training(
    name="obd",
    paper="LeCun et al., Optimal Brain Damage, NIPS 1990",
    summary="Remove the weights of least saliency 1/2 h w^2, h being the diagonal of the curvature.",
    score="obd",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=("iterative", "one-shot"),
    needs=SCORED,
    options=(
        Option("samples", int, 256, "examples that the curvature is averaged over", minimum=1),
        Option(
            "curvature", str, "gauss-newton", "what h is the diagonal of", choices=("gauss-newton", "fisher", "hessian")
        ),
        Option("damp", float, 0.0, "added to h", minimum=0),
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL},
)

DIAGONAL_FISHER = after_training(
    name="diagonal-fisher",
    paper="Theis et al., Faster Gaze Prediction with Dense Networks and Fisher Pruning, 2018; "
    "the diagonal variant of Singh and Alistarh, WoodFisher, NeurIPS 2020",
    summary="Remove the weights of least w^2 E[g^2], the diagonal of the empirical Fisher matrix.",
    score="obd",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=("one-shot", "iterative"),
    needs=SCORED,
    options=(
        OBD.options[0],
        Option("curvature", str, "fisher", "what h is the diagonal of", choices=("fisher",)),
        # The authors' floor; without it weights of zero gradient would be tied.
        Option("damp", float, 1e-4, "added to h", minimum=0),
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL},
)

_SAMPLES = (
    Option("samples", int, 100, "gradients that the Fisher matrix is made of", minimum=1),
    Option("batch_size", int, 1, "examples whose mean each of them is", minimum=1),
    Option("damp", float, 1e-5, "lambda: added to the diagonal", minimum=0, strict=True),
)
_UPDATE = Option(
    "update", str, "sum", "what stays: sum of single updates, joint one, or none", choices=("sum", "joint", "none")
)

WOODFISHER = after_training(
    name="woodfisher",
    paper="Singh and Alistarh, WoodFisher: Efficient Second-Order Approximation for Neural Network Compression, "
    "NeurIPS 2020",
    summary="Remove the weights of least w^2 / (2 [F^-1]_qq) and move the others to make up for them, F in blocks.",
    score="obs",
    transforms=("obs-update",),
    structures=("element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("one-shot", "iterative"),
    needs=SCORED,
    options=(
        *_SAMPLES,
        Option("block_size", int, 2000, "weights that share a block; 0: all of the network", minimum=0),
        _UPDATE,
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL, "channel": _NOT_UNITS},
)

OBS = after_training(
    name="obs",
    paper="Hassibi and Stork, Second Order Derivatives for Network Pruning: Optimal Brain Surgeon, NIPS 1993",
    summary="Remove the weights of least w^2 / (2 [H^-1]_qq) and move the others to make up for them, H undivided.",
    score="obs",
    transforms=("obs-update",),
    structures=("element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("iterative", "one-shot"),
    needs=SCORED,
    options=(
        *_SAMPLES,
        Option("block_size", int, 0, "weights that share a block; 0: all of the network", minimum=0),
        _UPDATE,
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL, "channel": _NOT_UNITS},
)

_FACTORS = (
    Option("batches", int, 10, "batches that the Kronecker factors are averaged over", minimum=1),
    Option("batch_size", int, 64, "examples a batch", minimum=1),
    Option("labels", str, "model", "drawn from the network's predictions, or the data's", choices=("model", "data")),
)

MLPRUNE = after_training(
    name="mlprune",
    paper="Zeng and Urtasun, MLPrune: Multi-Layer Pruning for Automated Neural Network Compression, 2019",
    summary="Optimal brain surgeon's score with each layer's curvature as a Kronecker product, all layers at once.",
    score="kronecker-obs",
    structures=ANY_STRUCTURE,
    allocations=ANY_ALLOCATION,
    schedules=("one-shot", "iterative"),
    needs=SCORED,
    options=(
        *_FACTORS,
        Option("damp", float, 1e-3, "share of the mean diagonal added", minimum=0, strict=True),
        RATE,
        *RETRAIN,
    ),
    reasons={"gradual": NOT_GRADUAL},
)

EIGENDAMAGE = after_training(
    name="eigendamage",
    paper="Wang et al., EigenDamage: Structured Pruning in the Kronecker-Factored Eigenbasis, ICML 2019",
    summary="Rank by the importance that weights have in the eigenbasis of the Kronecker factors; layers stay as they "
    "are, where the paper replaces them by rotated bottlenecks.",
    score="kronecker-basis",
    structures=("channel", "element", "N:M"),
    allocations=ANY_ALLOCATION,
    schedules=("one-shot", "iterative"),
    needs=SCORED,
    options=(*_FACTORS, RATE, *RETRAIN),
    reasons={"gradual": NOT_GRADUAL},
)
