"""The complete recipe of one run: what the user wrote, and for all else what the method and the situation imply.

Where the training settings come from, later ones winning: :class:`TrainSettings`, the method's paper, the recipe's
``train``, the run's ``train``. Where nothing can be trained (no data, an ONNX file) the epochs are 0, and so they are
for a method that prunes trained weights when the user brings such weights.
"""

from __future__ import annotations

import math
from typing import Any

import msgspec

from ..errors import UnsupportedError, UsageError, unknown_name
from ..models.seeding.initialisers import check_generator, check_initialiser
from .methods import METHODS, Method, choose, find_method
from .recipe_checks import build, check_train, choose_from
from .recipe_paths import is_checkpoint, is_factory, is_onnx, is_torchscript
from .saliency import AGGREGATIONS, SALIENCIES
from .settings import PruneRecipe, RunSettings, TrainSettings
from .structure import PARTS, Channel, Structure

# Fine-tuning: half as long as the training and at a tenth of its rate, where the recipe does not say.
_FINE_TUNE_SHARE = 0.5
_FINE_TUNE_SLOWER = 10


class Shared(msgspec.Struct, frozen=True):
    """What all runs of a recipe share; the attributes are those of :class:`PruneRecipe`, ``train`` as written."""

    model: str
    weights: str | None
    data: str
    seed: int
    threads: int | None
    device: str
    train: dict[str, Any]


def complete(shared: Shared, run: RunSettings, path: str) -> PruneRecipe:
    """Fill in every default of one run.

    Args:
        shared: the recipe's top level.
        run: one entry of ``runs``.
        path: where the run stands (``runs[0]``), for messages; empty on the command line.

    Raises:
        UsageError: a name, value or combination that cannot be.
        UnsupportedError: a combination that the method, the structure or the model's kind does not allow.
    """
    try:
        return _complete(shared, run, path)
    except (UsageError, UnsupportedError) as error:
        if not path or str(error).startswith(path) or f" at {path}" in str(error):
            raise
        raise type(error)(f"{path} ({run.name}): {error}") from error


def _complete(shared: Shared, run: RunSettings, path: str) -> PruneRecipe:
    method = find_method(run.method)
    choice = choose(
        method,
        structure=run.structure,
        allocation=run.allocation,
        schedule=run.schedule,
        sparsity=run.sparsity,
    )
    if run.rounds is not None and choice.schedule != "iterative":
        raise UsageError(f"rounds belong to the schedule 'iterative'; this run's schedule is '{choice.schedule}'.")
    if run.rounds is not None and run.rounds < 1:
        raise UsageError(f"rounds is {run.rounds}; an iterative schedule has at least one.")
    _check_source(shared, method)
    train = _training(shared, run, method, choice.schedule, path)
    if choice.schedule == "gradual" and train.epochs == 0:
        raise UsageError("schedule 'gradual' prunes while it trains, and there are no epochs of training.")
    return PruneRecipe(
        model=shared.model,
        weights=shared.weights,
        data=shared.data,
        seed=shared.seed if run.seed is None else run.seed,
        threads=shared.threads,
        device=shared.device,
        method=method.name,
        sparsity=choice.sparsity,
        structure=choice.structure.text,
        allocation=choice.allocation if isinstance(choice.allocation, str) else dict(choice.allocation),
        schedule=choice.schedule,
        rounds=run.rounds,
        init=_initialiser(shared, run, method),
        generator=check_generator(run.generator or method.generator),
        **_units(shared, run, method, choice.structure),
        keep_alive=run.keep_alive,
        exclude=list(run.exclude),
        train=train,
        fine_tune=_fine_tuning(shared, run, method, train, choice.schedule, path),
        options=method.resolve_options(run.options),
    )


def _units(shared: Shared, run: RunSettings, method: Method, structure: Structure) -> dict[str, Any]:
    """Check what a run says about coupled units, and that its structure has some."""
    saliency = run.saliency or (method.saliency if isinstance(structure, Channel) else None)
    given = {"saliency": saliency, "aggregation": run.aggregation, "round_to": run.round_to}
    if not isinstance(structure, Channel):
        for key, value in given.items():
            if value not in (None, 1):
                raise UsageError(f"{key} goes with the structures {', '.join(PARTS)}; this run's is {structure.text}.")
    if run.saliency is not None:
        if run.saliency not in SALIENCIES:
            raise unknown_name("saliency", run.saliency, SALIENCIES)
        if SALIENCIES[run.saliency].needs_gradients and not _trainable(shared):
            raise UsageError(f"saliency '{run.saliency}' needs gradients: a torch model, and data named with data.")
    if run.aggregation is not None:
        choose_from("aggregation", run.aggregation, AGGREGATIONS)
    if run.round_to < 1:
        raise UsageError(f"round_to is {run.round_to}; it is the number of units that widths are multiples of.")
    return given


def fine_tunes(method: Method) -> bool:
    """Return whether the method keeps trained weights and may train them further once the mask is known."""
    if method.plan == "selected-from-trained":
        return True  # what is tuned is the choice of weights, not the weights
    kept = method.mask_from == "final" and method.weights_from == "final" and method.trains_after
    # The plans of lottery tickets say themselves what is trained after the mask.
    return kept and (method.plan == "standard" or method.paradigm == "PaT")


def _trainable(shared: Shared) -> bool:
    return shared.data != "none" and not is_onnx(shared.model)


def _check_source(shared: Shared, method: Method) -> None:
    if is_onnx(shared.model) and method.needs:
        able = ", ".join(name for name, other in METHODS.items() if not other.needs)
        raise UnsupportedError(
            f"method '{method.name}' needs {' and '.join(method.needs)}, and an ONNX file gives weights only. "
            f"Methods that work on it: {able}."
        )
    if shared.data == "none" and "data" in method.needs:
        raise UsageError(f"method '{method.name}' needs data; name it with data (for example digits or npz:FILE).")


def _initialiser(shared: Shared, run: RunSettings, method: Method) -> str | None:
    if run.init is not None:
        if is_onnx(shared.model):
            raise UnsupportedError("an ONNX file keeps the weights that it has; leave init out.")
        return check_initialiser(run.init)
    own = is_factory(shared.model) or is_onnx(shared.model) or is_torchscript(shared.model) or _continues(shared)
    return None if own else method.initialiser


def _continues(shared: Shared) -> bool:
    """Return whether the user brings weights: a file of them, or a checkpoint as the model."""
    return shared.weights is not None or is_checkpoint(shared.model)


def _brings_trained_weights(shared: Shared, method: Method, schedule: str) -> bool:
    # A method that learns its mask from the training itself trains trained weights all the same.
    learns = method.prepares != "none" and method.plan != "pruned-while-tuning"
    return _continues(shared) and fine_tunes(method) and schedule != "gradual" and not learns


def _training(shared: Shared, run: RunSettings, method: Method, schedule: str, path: str) -> TrainSettings:
    build(TrainSettings, shared.train, "train")
    build(TrainSettings, run.train, f"{path}.train" if path else "train")
    written = {**shared.train, **run.train}
    idle = not _trainable(shared) or _brings_trained_weights(shared, method, schedule)
    implied: dict[str, Any] = {"epochs": 0} if idle else {}
    merged = {**method.training, **implied, **written}
    settings = check_train(build(TrainSettings, merged, path), f"{path}.train" if path else "train")
    if settings.epochs and not _trainable(shared):
        raise UsageError(_why_no_training(shared))
    return settings


def _fine_tuning(
    shared: Shared, run: RunSettings, method: Method, train: TrainSettings, schedule: str, path: str
) -> TrainSettings | None:
    where = f"{path}.fine_tune" if path else "fine_tune"
    if not fine_tunes(method):
        if run.fine_tune is not None:
            raise UsageError(
                "fine_tune is the training after the mask for methods that keep trained weights (such as magnitude; "
                f"'compress methods' lists those of the paradigm PaT); method '{method.name}' is set by train alone."
            )
        return None
    written = run.fine_tune or {}
    build(TrainSettings, written, where)
    if not _trainable(shared) or schedule == "gradual":
        epochs = 0
    elif _brings_trained_weights(shared, method, schedule) and not train.epochs:
        epochs = math.ceil(TrainSettings().epochs * _FINE_TUNE_SHARE)
    else:
        epochs = math.ceil(train.epochs * _FINE_TUNE_SHARE)
    implied = {"epochs": epochs, "learning_rate": train.learning_rate / _FINE_TUNE_SLOWER}
    settings = build(TrainSettings, {**msgspec.to_builtins(train), **implied, **written}, where)
    if settings.epochs and not _trainable(shared):
        raise UsageError(_why_no_training(shared))
    if settings.augment != train.augment:
        raise UsageError("augment is one for the whole run; set it under train.")
    return check_train(settings, where)


def _why_no_training(shared: Shared) -> str:
    if is_onnx(shared.model):
        return "an ONNX file cannot be trained; leave epochs out, or give the model as a factory."
    return "training needs data; name it with data (for example digits or npz:FILE), or set epochs to 0."
