"""A checkpoint of a run's shape before its training, with weights that stand in for trained ones.

Weights that a model brings, and those of a run that trains nothing, stand for themselves. Others are what a few short
passes over some of the data leave, which show how far training pulls the layers apart and moves their weights, and a
Laplace part that the rest of a long training is taken to add. They keep the seed that drew them first: formats that
store the distance from there profit as they will.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.methods import find_method
from ..compressor.pipeline import load_network, prune
from ..compressor.recipe import single_run
from ..compressor.recipe_paths import is_onnx
from ..errors import TrainingDivergedError, UnsupportedError
from .measure.environment import default_threads

if TYPE_CHECKING:
    from torch import nn

    from ..compressor.settings import PruneRecipe, TrainSettings
    from ..models.dataset import Dataset
    from ..models.seeding.record import SeedRecord
    from ..models.source import ModelSource, TorchSource

# The rehearsed training: at most so many passes over at most so many examples, as long as they take no more operations.
PASSES = 4
EXAMPLES = 2048
_SMALLEST = 64
_OPERATIONS = 2e13
# How much the rest of a training adds at most to what these passes leave, in its spread.
_LATER = 0.85
# What the recipe says about the mask; everything else of it is about training.
_MASK = ("sparsity", "structure", "allocation", "keep_alive", "exclude", "round_to", "saliency", "aggregation", "seed")


def stand_in(recipe: PruneRecipe, run: Path) -> tuple[SparseCheckpoint, ModelSource | None, list[str]]:
    """Return a checkpoint of the recipe's shape without its training, the network, and what was taken for granted."""
    method = find_method(recipe.method)
    if is_onnx(recipe.model):
        return prune(recipe, run), None, ["an ONNX file is not trained: nothing is predicted, this is what comes out."]
    if method.parametrisation != "identity":
        raise UnsupportedError(
            f"what the method '{method.name}' stores ({method.parametrisation}) only shows in its training; "
            "a dry run predicts methods that keep weights under a mask."
        )
    source, data = load_network(recipe)
    assumptions = []
    seeds: Mapping[str, SeedRecord] = {}
    init = None
    trainings = [part for part in (recipe.train, recipe.fine_tune) if part is not None and part.epochs]
    if data is None or not trainings:
        init = recipe.init
        assumptions.append("nothing is trained: the weights are those that the network begins with.")
    elif recipe.init is not None or not source.brings_weights:
        source, seeds, assumption = _trained(recipe, trainings, source, data, run.with_name("probe"))
        assumptions.append(assumption)
    if method.mask_from is None and method.paradigm == "baseline":
        rehearsed = single_run(None, recipe.model, data="none", method="dense")
    else:
        rehearsed = single_run(None, recipe.model, data="none", method="magnitude", sparsity=0.5)
        mask: dict[str, Any] = {field: getattr(recipe, field) for field in _MASK}
        rehearsed = msgspec.structs.replace(rehearsed, **mask)
        if method.name != "magnitude":
            assumptions.append(f"magnitude stands in for {method.name}: as many weights, perhaps others.")
        if recipe.allocation == "global":
            assumptions.append("how a global share falls on layers depends on the training, and the bytes a little.")
    rehearsed = msgspec.structs.replace(
        rehearsed, init=init, generator=recipe.generator, seed=recipe.seed, threads=recipe.threads or default_threads()
    )
    return _drawn_by(prune(rehearsed, run, source=source), seeds), source, assumptions


def _drawn_by(checkpoint: SparseCheckpoint, seeds: Mapping[str, SeedRecord]) -> SparseCheckpoint:
    """Return the checkpoint with the seeds that drew its tensors before anything was trained."""
    tensors = {
        name: replace(tensor, record=msgspec.structs.replace(tensor.record, seed=seeds.get(name, tensor.record.seed)))
        for name, tensor in checkpoint.tensors.items()
    }
    records = [tensor.record for tensor in tensors.values()]
    return SparseCheckpoint(msgspec.structs.replace(checkpoint.metadata, tensors=records), tensors)


def _trained(
    recipe: PruneRecipe, trainings: Sequence[TrainSettings], source: TorchSource, data: Dataset, run: Path
) -> tuple[TorchSource, dict[str, SeedRecord], str]:
    """Return the source with weights as the training might leave them, what drew them at first, and the assumption.

    Rates mostly fall to nothing, so half as many passes at the full rate stand for a training. After ``PASSES`` of them
    a weight's distance from its beginning is taken to grow as the fourth root of the passes, which lies between that of
    a random walk and none; what is added is a Laplace part: most weights move little and a few move far, and those are
    kept.
    """
    import torch

    from ..models.prunable import prunable_tensors
    from ..models.tensors import to_torch

    settings = trainings[0]
    epochs = sum(part.epochs * part.learning_rate for part in trainings) / settings.learning_rate
    some, at_full_rate = _some(source, data, epochs)
    passes = min(PASSES, math.ceil(at_full_rate))
    rest = math.sqrt(max(0.0, math.sqrt(at_full_rate / passes) - 1))
    rate = settings.learning_rate * min(1.0, at_full_rate / passes)
    short = msgspec.structs.replace(
        settings,
        epochs=passes,
        learning_rate=rate,
        augment=None,
        rate_schedule="constant",
        warmup_epochs=0.0,
        milestones=[],
    )
    dense = single_run(None, recipe.model, data=recipe.data, method="dense")
    dense = msgspec.structs.replace(dense, seed=recipe.seed, init=recipe.init, threads=recipe.threads, train=short)
    untrained = msgspec.structs.replace(dense, train=msgspec.structs.replace(short, epochs=0))
    drawn = prune(untrained, run, source=source, data=some)
    assumption = (
        f"trained weights are taken to be what at most {PASSES} passes over at most {EXAMPLES:,} examples leave, and "
        f"for a longer training a Laplace part of at most {_LATER} times their spread."
    )
    first = drawn.dense_state()
    try:
        last = prune(dense, run.with_name(run.name + "-passes"), source=source, data=some).dense_state()
    except TrainingDivergedError:
        last = first
        assumption = (
            f"the training diverges at the rate {rate:g} within {passes} passes over "
            f"{len(some.train_labels):,} examples: trained weights are taken to be their initialisation and a Laplace "
            f"part of {_LATER} times its spread."
        )
    state = {name: to_torch(array) for name, array in last.items()}
    generator = torch.Generator().manual_seed(recipe.seed)
    for tensor in prunable_tensors(source.build()):
        weight = state[tensor.name]
        if weight.numel() < 2:
            continue
        added = _LATER * float(weight.std())
        if last is not first:
            added = min(added, rest * float((weight - to_torch(first[tensor.name])).std()))
        # Of two exponential variables the difference follows a Laplace law, of twice their variance.
        one, other = (torch.empty_like(weight).exponential_(generator=generator) for _ in range(2))
        state[tensor.name] = weight.add(one.sub_(other), alpha=added / 2**0.5)

    def make() -> nn.Module:
        module = source.build()
        module.load_state_dict(state)
        return module

    seeds = {name: tensor.record.seed for name, tensor in drawn.tensors.items() if tensor.record.seed is not None}
    return replace(source, brings_weights=True, _make=make, _ready=[]), seeds, assumption


def _some(source: TorchSource, data: Dataset, epochs: float) -> tuple[Dataset, float]:
    """Return the rehearsed examples, and how many passes over them at the full rate a training comes to."""
    from ..models.data import make_dataset
    from ..models.flops import layer_macs

    # A multiply-add is two operations, and a step forwards and backwards three times as much as an answer.
    each = 6 * sum(layer_macs(source.build(), source.example_inputs(2)).values())
    count = min(EXAMPLES, max(_SMALLEST, int(_OPERATIONS / (PASSES * max(1, each)))))
    inputs, labels = (part.numpy() for part in next(data.batches("train", count, augment=False)))
    some = make_dataset(data.name, inputs, labels, inputs[:1], labels[:1], classes=data.classes)
    return some, epochs * len(data.train_labels) / len(labels) / 2
