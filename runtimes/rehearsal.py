"""What a run will come to, before its training: a rehearsal with weights that stand in for trained ones.

The network is pruned at once, as the recipe says how much and in which structure, and exported to the formats that are
asked for: bytes and multiply-adds are read off that. Each export is loaded and run for a moment on the runtimes that it
is meant for: what a graph takes depends on its shapes and masks, hardly on its weights' values. Weights that a model
brings, and those of a run that trains nothing, stand for themselves; others are what one short pass over some of the
data leaves, which shows how far training pulls the layers apart, and a Laplace part that the rest of the training is
taken to add.
"""

from __future__ import annotations

import json
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.methods import find_method
from ..compressor.pipeline import load_network, prune
from ..compressor.recipe import single_run
from ..compressor.recipe_paths import is_onnx
from ..errors import SparsepackError, UnsupportedError
from ..exporters import export
from . import RUNTIMES
from .measure.environment import default_threads
from .measure.inputs import example_inputs
from .measure.latency import time_alone

if TYPE_CHECKING:
    from torch import nn

    from ..compressor.settings import PruneRecipe
    from ..exporters.artifact import Artifact
    from ..models.dataset import Dataset
    from ..models.source import ModelSource, TorchSource

SCHEMA = "sparsepack.prediction/1"
# Formats and values of a dry run that names none.
FORMATS = (("packed", "fp32"), ("onnx", "fp32"), ("onnx-sparse", "fp32"))
# Examples of the one pass that shows how far training pulls the layers' weights apart.
PROBE = 2048
# How much a whole training adds to what that pass leaves, in its spread: fitted to three LeNets and a ResNet-20 that
# were trained on the digits. Most weights move little and a few move far, and those are kept.
_LATER = 0.85
_CALIBRATION = 64
_SECONDS = 0.4
# What the recipe says about the mask; everything else of it is about training.
_MASK = ("sparsity", "structure", "allocation", "keep_alive", "exclude", "round_to", "saliency", "aggregation", "seed")


class Predicted(msgspec.Struct, frozen=True):
    """One artifact: its bytes, and by runtime milliseconds of a run; or why it cannot be written or run."""

    format: str
    values: str
    bytes: int | None
    latency: dict[str, float]
    unavailable: dict[str, str]


class Prediction(msgspec.Struct, frozen=True):
    """What one run will come to.

    Attributes:
        schema: of this record.
        model: as the recipe names it.
        method: likewise.
        sparsity: of the prunable weights.
        macs: multiply-adds of one example, ``dense`` and ``kept``; None where they are not counted.
        threads: of a run.
        artifacts: in the order in which they were asked for.
        assumptions: what was taken for granted, in sentences.
    """

    schema: str
    model: str
    method: str
    sparsity: float
    macs: dict[str, int] | None
    threads: int
    artifacts: list[Predicted]
    assumptions: list[str]


def rehearse(
    recipe: PruneRecipe,
    formats: Sequence[tuple[str, str]] = FORMATS,
    *,
    threads: int | None = None,
    seconds: float = _SECONDS,
) -> Prediction:
    """Predict a run.

    Args:
        recipe: complete.
        formats: pairs of format and values.
        threads: of a timed run; by default all usable cores.
        seconds: of timing each export on each runtime; 0 times nothing.

    Raises:
        UnsupportedError: what the method stores beside a mask and its weights only shows in its training.
        SparsepackError: the recipe asks for something that cannot be.
    """
    threads = threads or default_threads()
    with tempfile.TemporaryDirectory(prefix="sparsepack-") as folder:
        checkpoint, source, assumptions = stand_in(recipe, Path(folder) / "run")
        artifacts = [
            _predicted(checkpoint, source, Path(folder) / f"{number}", *wanted, threads=threads, seconds=seconds)
            for number, wanted in enumerate(formats)
        ]
    masked = [tensor for tensor in checkpoint.tensors.values() if tensor.record.role == "prunable"]
    total = sum(int(np.prod(tensor.record.shape)) for tensor in masked)
    return Prediction(
        SCHEMA,
        recipe.model,
        recipe.method,
        1 - sum(tensor.kept for tensor in masked) / total if total else 0.0,
        _macs(checkpoint, source),
        threads,
        artifacts,
        assumptions,
    )


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
    init = None
    if data is None or not (recipe.train.epochs or (recipe.fine_tune is not None and recipe.fine_tune.epochs)):
        init = recipe.init
        assumptions.append("nothing is trained: the weights are those that the network begins with.")
    elif recipe.init is not None or not source.brings_weights:
        probed = recipe.train.epochs > 0
        begun = _probe(recipe, source, data, run.with_name("probe")) if probed else source.build()
        source = _trained_later(source, begun, recipe.seed)
        since = f"one pass over at most {PROBE:,} examples leaves" if probed else "its initialisation leaves"
        assumptions.append(
            f"trained weights are taken to be what {since} and a Laplace part of {_LATER} times its spread."
        )
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
    return prune(rehearsed, run, source=source), source, assumptions


def _probe(recipe: PruneRecipe, source: TorchSource, data: Dataset, run: Path) -> nn.Module:
    """Return the dense network after one short pass, which is enough for the layers' spreads to take their places."""
    from ..models.data import make_dataset
    from ..models.tensors import to_torch

    inputs, labels = (part.numpy() for part in next(data.batches("train", PROBE, augment=False)))
    some = make_dataset(data.name, inputs, labels, inputs[:1], labels[:1], classes=data.classes)
    once = msgspec.structs.replace(recipe.train, epochs=1, augment=None, warmup_epochs=0.0, milestones=[])
    dense = single_run(None, recipe.model, data=recipe.data, method="dense")
    dense = msgspec.structs.replace(dense, seed=recipe.seed, init=recipe.init, threads=recipe.threads, train=once)
    checkpoint = prune(dense, run, source=source, data=some)
    module = source.build()
    module.load_state_dict({name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    return module


def _trained_later(source: TorchSource, begun: nn.Module, seed: int) -> TorchSource:
    """Return the source with weights as the rest of a training might leave them."""
    import torch

    from ..models.prunable import prunable_tensors

    state = {name: tensor.clone() for name, tensor in begun.state_dict().items()}
    generator = torch.Generator().manual_seed(seed)
    for tensor in prunable_tensors(begun):
        weight = state[tensor.name]
        spread = float(weight.std()) if weight.numel() > 1 else 1.0
        # Of two exponential variables the difference follows a Laplace law, of twice their variance.
        one, other = (torch.empty_like(weight).exponential_(generator=generator) for _ in range(2))
        weight.add_(one.sub_(other), alpha=_LATER * spread / 2**0.5)

    def make() -> nn.Module:
        module = source.build()
        module.load_state_dict(state)
        return module

    return replace(source, brings_weights=True, _make=make, _ready=[])


def _predicted(
    checkpoint: SparseCheckpoint,
    source: ModelSource | None,
    path: Path,
    format: str,
    values: str,
    *,
    threads: int,
    seconds: float,
) -> Predicted:
    from ..models.source import TorchSource

    typed = source if isinstance(source, TorchSource) else None
    examples = None
    if typed is not None and format == "onnx-int8":
        examples = [tensor.numpy() for tensor in typed.example_inputs(_CALIBRATION)]
    try:
        artifact = export(checkpoint, format, path, values=values, source=source, calibration=examples)
    except SparsepackError as error:
        return Predicted(format, values, None, {}, {"export": str(error).removesuffix(".")})
    latency: dict[str, float] = {}
    unavailable: dict[str, str] = {}
    for name, runtime in RUNTIMES.items():
        if format not in runtime.formats or not seconds:
            continue
        reason = runtime.available() or runtime.accepts(artifact)
        if reason is None:
            try:
                latency[name] = _time(artifact, name, typed, threads, seconds)
            except SparsepackError as error:
                reason = str(error).removesuffix(".")
        if reason is not None:
            unavailable[name] = reason
    size = artifact.size
    for file in artifact.files():
        file.unlink()
    return Predicted(format, values, size, latency, unavailable)


def _time(artifact: Artifact, runtime: str, source: TorchSource | None, threads: int, seconds: float) -> float:
    session = RUNTIMES[runtime].load(artifact, threads=threads, source=source)
    inputs = example_inputs(artifact, session, 1)
    run: Callable[[], object] = lambda: session.run(*inputs)  # noqa: E731
    return time_alone(lambda: run, budget=seconds).median_ms


def _macs(checkpoint: SparseCheckpoint, source: ModelSource | None) -> dict[str, int] | None:
    from ..models.flops import layer_macs
    from ..models.source import TorchSource

    if not isinstance(source, TorchSource):
        return None
    counts = layer_macs(source.build(), source.example_inputs(2))
    kept = 0.0
    for name, macs in counts.items():
        tensor = checkpoint.tensors[name]
        size = int(np.prod(tensor.record.shape))
        kept += macs * (tensor.kept / size if size else 1.0)
    return {"dense": sum(counts.values()), "kept": round(kept)}


def held_against(predictions: Mapping[str, Any], artifact: Mapping[str, Any]) -> list[str]:
    """Return what was predicted of an artifact and what came of it, in sentences.

    Args:
        predictions: by artifact name, as :func:`by_artifact` reads them.
        artifact: its measurement record as plain data.
    """
    found = predictions.get(artifact["artifact"])
    if found is None:
        return []
    parts = []
    if found["bytes"] is not None:
        parts.append(_against(f"{found['bytes']:,} bytes", artifact["storage"]["bytes"] / found["bytes"]))
    for runtime, ms in found["latency"].items():
        entry = artifact["latency"].get(runtime, {})
        if "median_ms" in entry:
            parts.append(_against(f"{ms:.3g} ms on {runtime}", entry["median_ms"] / ms))
    return [f"predicted before the training: {'; '.join(parts)}."] if parts else []


def _against(what: str, ratio: float) -> str:
    return f"{what} (it came to {100 * (ratio - 1):+.1f} %)"


def by_artifact(path: Path) -> dict[str, Any]:
    """Return the predictions in a file of a dry run, by artifact name; nothing where there is no readable one."""
    try:
        fields = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    known = isinstance(fields, dict) and fields.get("schema") == SCHEMA and isinstance(fields.get("artifacts"), dict)
    return dict(fields["artifacts"]) if known else {}
