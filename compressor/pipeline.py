"""``prune``: a resolved recipe in, a RUN folder with a sparse checkpoint out.

Guaranteed: the same recipe gives the same checkpoint bytes; a run that was killed goes on where it stopped and ends in
those bytes too; a folder with another run in it is left alone.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import msgspec

from ..errors import ModelError, OutputExistsError, UsageError
from ..files import canonical_json, sha256_file
from .checkpoint import SparseCheckpoint
from .interrupts import deferred_interrupts
from .loading import checkpoint_source
from .progress import Progress, Silent
from .recipe import recipe_text
from .recipe_paths import factory_file, is_checkpoint, is_onnx, is_torchscript
from .run_folder import SCHEMA, Manifest, RunFolder
from .settings import PruneRecipe

if TYPE_CHECKING:
    from ..models.dataset import Dataset
    from ..models.source import ModelSource, OnnxSource, TorchSource

SNAPSHOT_SECONDS = 30.0

# What is left to do once everything was checked, and what makes it.
Work = Callable[[], SparseCheckpoint]
Job = Callable[[RunFolder, int, Progress, float], Work]


def prune(
    recipe: PruneRecipe,
    run: Path,
    *,
    source: ModelSource | None = None,
    data: Dataset | None = None,
    force: bool = False,
    progress: Progress | None = None,
    snapshot_seconds: float = SNAPSHOT_SECONDS,
    shared: Path | None = None,
) -> SparseCheckpoint:
    """Carry out one run, or what is left of it.

    Args:
        recipe: complete, as ``single_run`` or ``Recipe.prune_recipes`` give it.
        run: the RUN folder.
        source: the network, when the caller has it; otherwise ``recipe.model`` says where it comes from.
        data: the data, when the caller has it; otherwise ``recipe.data`` says.
        force: begin anew over whatever run the folder holds.
        progress: told of stages and steps.
        snapshot_seconds: how much work a kill may cost; the result does not depend on it.
        shared: a folder for dense trainings that several runs begin with, which are then done once; the result does
            not depend on it.

    Returns:
        the checkpoint, which is also ``run/checkpoint.safetensors``.

    Raises:
        OutputExistsError: the folder holds another recipe's run.
        SparsepackError: anything else that the model, the data, the recipe or the disk does not allow.
        KeyboardInterrupt: the user asked to stop; the same call goes on from there.
    """
    folder = RunFolder(run)
    if not force and (finished := _finished(recipe, folder)) is not None:
        return finished
    # Whatever is wrong with model or data shows before the folder is touched.
    common = None if shared is None or source is not None or data is not None else shared
    job = _prepare(recipe, source, data, common)
    with folder.lock():
        manifest = None if force else folder.read_manifest()
        threads = _threads(recipe, manifest)
        identity = run_identity(msgspec.structs.replace(recipe, threads=threads))
        if manifest is not None:
            _check_identity(manifest, identity, run)
        carry_out = job(folder, threads, progress or Silent(), snapshot_seconds)
        if manifest is None:
            manifest = Manifest(SCHEMA, identity, threads)
            folder.begin(manifest, recipe_text(msgspec.structs.replace(recipe, threads=threads), run))
        checkpoint = carry_out()
        checkpoint.save(folder.checkpoint, force=True)
        folder.complete(manifest)
    return checkpoint


def run_identity(recipe: PruneRecipe) -> str:
    """Return the SHA-256 that tells this run from others: of the recipe, and of the model files that it names."""
    whole = {"recipe": msgspec.to_builtins(recipe), "files": _named_files(recipe)}
    return hashlib.sha256(canonical_json(whole)).hexdigest()


def _named_files(recipe: PruneRecipe) -> dict[str, str]:
    is_file = is_onnx(recipe.model) or is_torchscript(recipe.model) or is_checkpoint(recipe.model)
    file = recipe.model if is_file else None
    # The run that a ticket comes from decides what this one finds.
    ticket = recipe.options.get("ticket")
    found = str(RunFolder(Path(ticket)).checkpoint) if ticket else None
    named = [factory_file(recipe.model), file, recipe.weights, found]
    return {name: sha256_file(Path(name)) for name in named if name is not None and Path(name).is_file()}


def available_cores() -> int:
    """Return how many cores this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _threads(recipe: PruneRecipe, manifest: Manifest | None) -> int:
    # A run that goes on keeps the number it began with: sums depend on it.
    return recipe.threads or (manifest.threads if manifest is not None else available_cores())


def _check_identity(manifest: Manifest, identity: str, run: Path) -> None:
    if (manifest.schema, manifest.identity) != (SCHEMA, identity):
        raise OutputExistsError(
            f"{run} holds the run of another recipe or model; give --force to replace it, or choose another folder."
        )


def _finished(recipe: PruneRecipe, folder: RunFolder) -> SparseCheckpoint | None:
    """Return the checkpoint of this very run when it is complete; refuse the folder when it holds another's."""
    manifest = folder.read_manifest()
    if manifest is None:
        return None
    identity = run_identity(msgspec.structs.replace(recipe, threads=_threads(recipe, manifest)))
    _check_identity(manifest, identity, folder.path)
    if not manifest.complete:
        return None
    folder.check_complete(manifest)
    return SparseCheckpoint.load(folder.checkpoint)


def _prepare(recipe: PruneRecipe, source: ModelSource | None, data: Dataset | None, shared: Path | None) -> Job:
    """Load model and data and check that they fit; what comes back checks the rest, then runs."""
    # Frameworks are loaded only here, so that a finished run is opened without them.
    from ..models.source import OnnxSource, load_source

    if is_onnx(recipe.model):
        onnx = source or load_source(recipe.model)
        if not isinstance(onnx, OnnxSource):
            raise UsageError(f"'{recipe.model}' is an ONNX file, and the given source is none.")
        return _onnx_job(recipe, onnx)
    return _torch_job(recipe, *load_network(recipe, source, data), shared)


def load_network(
    recipe: PruneRecipe, source: ModelSource | None = None, data: Dataset | None = None
) -> tuple[TorchSource, Dataset | None]:
    """Return the network and the data that a recipe names, or those that are given; neither is an ONNX file's.

    Raises:
        SparsepackError: one of them cannot be found or built, or the two do not fit.
    """
    from ..models.data import load_data
    from ..models.source import OnnxSource

    if data is None:
        data = load_data(recipe.data, augment=recipe.train.augment)
    if source is None:
        source = checkpoint_source(recipe)
    if source is None:
        source = _load_for(recipe, data)
    if isinstance(source, OnnxSource):
        raise UsageError(f"'{recipe.model}' is no ONNX file, and the given source is one.")
    if data is not None:
        data = data.fitted(source.record)
    return source, data


def _load_for(recipe: PruneRecipe, data: Dataset | None) -> ModelSource:
    """Load the model for the data's inputs; where it does not take images of one channel, for series."""
    from ..models.source import load_source

    def load(data: Dataset | None) -> ModelSource:
        return load_source(
            recipe.model,
            weights=None if recipe.weights is None else Path(recipe.weights),
            options={} if data is None else data.model_options,
            inputs=None if data is None else [data.input_spec],
            allow_import=True,
        )

    try:
        return load(data)
    except ModelError:
        series = None if data is None else data.shaped(data.input_spec.shape[1:])
        if series is None or series is data:
            raise
        # Where that fails as well, the first error is about what the user gave.
        with suppress(ModelError):
            return load(series)
        raise


def _onnx_job(recipe: PruneRecipe, source: OnnxSource) -> Job:
    from .onnx_pruning import prune_onnx

    def job(folder: RunFolder, threads: int, progress: Progress, snapshot_seconds: float) -> Work:
        checkpoint = prune_onnx(recipe, source, threads)
        return lambda: checkpoint

    return job


def _torch_job(recipe: PruneRecipe, source: TorchSource, data: Dataset | None, shared: Path | None) -> Job:
    from .assemble import assemble
    from .engine import Engine
    from .shared_training import SharedTrainings
    from .training.devices import deterministic, find_device

    device = find_device(recipe.device, recipe.train.precision)
    if recipe.fine_tune is not None:
        find_device(recipe.device, recipe.fine_tune.precision)

    def job(folder: RunFolder, threads: int, progress: Progress, snapshot_seconds: float) -> Work:
        common = None if shared is None else SharedTrainings(shared, _named_files(recipe), threads)
        with deterministic(threads, device):
            engine = Engine(recipe, source, data, folder, device, progress, snapshot_seconds, common)

        def work() -> SparseCheckpoint:
            with deterministic(threads, device), deferred_interrupts() as interrupts:
                engine.run(interrupts)
                return assemble(engine.network, threads)

        return work

    return job
