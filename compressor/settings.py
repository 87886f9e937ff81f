"""The parts of a recipe as typed values: what a training, a run, an export and a measurement may say.

Every struct refuses unknown keys and wrong types; ranges that a type cannot hold are checked by ``recipe.py``, which
knows the path to name in the message.
"""

from __future__ import annotations

from typing import Any

import msgspec

OPTIMISERS = ("sgd", "adam", "adamw")
RATE_SCHEDULES = ("constant", "cosine", "step")
PRECISIONS = ("float32", "bfloat16", "float16")
DEVICES = ("cpu", "cuda")


class TrainSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One training.

    Attributes:
        optimiser: one of :data:`OPTIMISERS`.
        learning_rate: the peak.
        momentum: of SGD; the Adams have their published moments.
        weight_decay: L2 (decoupled for ``adamw``), on every parameter: the papers do not except biases or norms.
        epochs: passes over the training split.
        batch_size: examples a step.
        rate_schedule: one of :data:`RATE_SCHEDULES`.
        warmup_epochs: linear warm-up, step by step; fractions count.
        milestones: epochs at which ``step`` multiplies the rate by ``gamma``.
        gamma: see ``milestones``.
        label_smoothing: share of the target spread over all classes.
        precision: one of :data:`PRECISIONS`; the lower ones compute in mixed precision, weights stay float32.
        augment: a name in ``models.augment.AUGMENTATIONS``; None leaves training examples as the data gives them.
    """

    optimiser: str = "sgd"
    learning_rate: float = 0.1
    momentum: float = 0.9
    weight_decay: float = 0.0005
    epochs: int = 20
    batch_size: int = 64
    rate_schedule: str = "cosine"
    warmup_epochs: float = 0.0
    milestones: list[float] = []
    gamma: float = 0.1
    label_smoothing: float = 0.0
    precision: str = "float32"
    augment: str | None = None


class ExportRequest(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One artifact of a run: a format (see ``compress formats``) and how its values are stored."""

    format: str
    values: str = "fp32"


class RunSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One entry of ``runs``; None where the method's default holds.

    Attributes:
        name: folder name of the run, unique in the recipe.
        method: see ``compress methods``.
        sparsity: share of the prunable weights to remove.
        structure: ``element``, ``N:M``, ``block:RxC``, ``channel``, ``neuron``, ``head``, ``input-channel``, ``hybrid``
            or ``fully-connected``.
        allocation: a name, or densities by layer name or glob.
        schedule: ``one-shot``, ``iterative`` or ``gradual``.
        rounds: of an iterative schedule; None: as many as the method's ``rate`` needs.
        init: the initialiser; None keeps the weights that a user's model brings, a zoo model has the method's.
        generator: what draws seeded weights.
        saliency: what ranks coupled units (channels, neurons, heads); None: the sum of the method's own scores.
        aggregation: how the numbers of a unit's layers become one; None: the saliency's own.
        round_to: every width keeps a multiple of so many units.
        keep_alive: every layer keeps at least one weight or group.
        exclude: names or globs of tensors that are never pruned.
        seed: of everything random in this run; None: the recipe's.
        train: keys that differ from the recipe's ``train``.
        fine_tune: keys that differ from this run's ``train`` in the training after the mask.
        options: the method's own settings.
        export: the artifacts to write.
    """

    name: str
    method: str
    sparsity: float | None = None
    structure: str | None = None
    allocation: str | dict[str, float] | None = None
    schedule: str | None = None
    rounds: int | None = None
    init: str | None = None
    generator: str | None = None
    saliency: str | None = None
    aggregation: str | None = None
    round_to: int = 1
    keep_alive: bool = False
    exclude: list[str] = []
    seed: int | None = None
    train: dict[str, Any] = {}
    fine_tune: dict[str, Any] | None = None
    options: dict[str, Any] = {}
    export: list[ExportRequest] = []


class RequireRule(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A requirement on some artifacts only; None: on those of every run or format."""

    expression: str
    run: str | None = None
    format: str | None = None


class MeasureSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How a recipe's artifacts are measured.

    Attributes:
        runtimes: see ``compress runtimes``; None: all that fit.
        baseline: the run whose ``onnx`` export the others are compared with.
        time_budget: seconds for the timing of one pair.
        require: expressions that must hold.
    """

    runtimes: list[str] | None = None
    baseline: str | None = None
    time_budget: float = 2.0
    require: list[str | RequireRule] = []


class PruneRecipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One run, complete: every default filled in. This is what ``prune`` takes and what a checkpoint records.

    Attributes:
        model: zoo name, ``file.py:factory``, ``package.module:factory`` or ``model.onnx``.
        weights: safetensors for a factory's model, or None.
        data: data source; ``none`` for methods that need none.
        seed: of everything random.
        threads: None means all cores; a run records how many that were.
        device: ``cpu`` or ``cuda``.
        method: see ``compress methods``.
        sparsity: share of the prunable weights to remove; None when densities by layer imply it.
        structure: as :class:`RunSettings`.
        allocation: as :class:`RunSettings`.
        schedule: as :class:`RunSettings`.
        rounds: as :class:`RunSettings`.
        init: None when the model's own weights are used.
        generator: what draws seeded weights.
        saliency: as :class:`RunSettings`.
        aggregation: as :class:`RunSettings`.
        round_to: as :class:`RunSettings`.
        keep_alive: as :class:`RunSettings`.
        exclude: as :class:`RunSettings`.
        train: the training (of the weights, or of the scores).
        fine_tune: the training after the mask, for methods whose mask comes from trained weights that are kept.
        options: every option of the method.
    """

    model: str
    weights: str | None
    data: str
    seed: int
    threads: int | None
    device: str
    method: str
    sparsity: float | None
    structure: str
    allocation: str | dict[str, float]
    schedule: str
    rounds: int | None
    init: str | None
    generator: str
    saliency: str | None
    aggregation: str | None
    round_to: int
    keep_alive: bool
    exclude: list[str]
    train: TrainSettings
    fine_tune: TrainSettings | None
    options: dict[str, Any]
