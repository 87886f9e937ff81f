"""Pruning after training (PaT): large pre-trained networks in one shot, layer by layer with calibration data."""

from ..declaration import Option
from .common import BY_LAYER, RETRAIN, after_training

_CALIBRATION = (
    Option("samples", int, 128, "examples that calibrate", minimum=1),
    Option("batch_size", int, 16, "examples that run at once", minimum=1),
)
_REASONS = {
    "channel": "its rule compares the weights of one output unit with each other",
    "global": "layers are pruned one after the other, before the next one's inputs are known",
    "iterative": "it prunes in one pass over the layers",
    "gradual": "it prunes in one pass over the layers",
}

WANDA = after_training(
    name="wanda",
    paper="Sun et al., A Simple and Effective Pruning Approach for Large Language Models, ICLR 2024",
    summary="Layer by layer, keep in each output unit the weights of largest |w| times the norm of their input.",
    plan="layerwise",
    transforms=("wanda",),
    score=None,
    structures=("element", "N:M"),
    allocations=BY_LAYER,
    schedules=("one-shot",),
    needs=("data",),
    options=(*_CALIBRATION, *RETRAIN),
    reasons=_REASONS,
)

SPARSEGPT = after_training(
    name="sparsegpt",
    paper="Frantar and Alistarh, SparseGPT: Massive Language Models Can Be Accurately Pruned in One-Shot, ICML 2023",
    summary="Layer by layer, remove weights column by column by w^2 / [H^-1]^2; the columns to come make up for them.",
    plan="layerwise",
    transforms=("sparsegpt",),
    score=None,
    structures=("element", "N:M"),
    allocations=BY_LAYER,
    schedules=("one-shot",),
    needs=("data",),
    options=(
        *_CALIBRATION,
        Option("damp", float, 0.01, "share of the Hessian's mean diagonal added to its diagonal", minimum=0),
        Option("block_size", int, 128, "columns whose mask is chosen at once", minimum=1),
        *RETRAIN,
    ),
    reasons=_REASONS,
)
