"""The runs of a job: each pruned and exported, one after the other or several at once in processes of their own.

Runs that begin with the same dense training share it (see ``compressor.shared_training``). How many run at once decides
nothing but the time.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import threading
from collections.abc import Mapping, Sequence
from concurrent.futures import Future, ProcessPoolExecutor, as_completed
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from queue import Queue
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from ..compressor.checkpoint import SparseCheckpoint
from ..compressor.pipeline import prune
from ..compressor.progress import Progress
from ..compressor.recipe import PruneRecipe, Recipe
from ..compressor.run_folder import CHECKPOINT
from ..errors import FileFormatError, SparsepackError
from ..exporters import export, needs_source, open_artifact
from ..files import canonical_json, sha256_file, write_bytes
from ..models.source import source_from_record
from .job_plan import Product
from .measure.inputs import calibration

if TYPE_CHECKING:
    from ..models.source import ModelSource

EXPORTS = "exports.json"
# Hidden, so that nobody takes it for a run; it goes when the last run is done.
SHARED = ".shared"


@runtime_checkable
class JobProgress(Progress, Protocol):
    """Progress that tells runs apart, as the command line's table does."""

    def run(self, name: str) -> Progress:
        """Return what the run of that name reports to."""

    def done(self, name: str, *, failed: bool = False) -> None:
        """Tell that a run is finished, or that it failed."""


class Named:
    """Progress of one run: its name stands before each stage."""

    def __init__(self, progress: Progress, name: str) -> None:
        self._progress = progress
        self._name = name

    def stage(self, title: str, total: int | None = None) -> None:
        """Begin a stage of the run."""
        self._progress.stage(f"{self._name}: {title}", total)

    def advance(self, steps: int = 1) -> None:
        """Count steps of the present stage."""
        self._progress.advance(steps)


@dataclass(frozen=True)
class Task:
    """One run and its artifacts.

    Attributes:
        name: of the run.
        recipe: complete.
        folder: the RUN folder.
        products: its artifacts.
        shared: folder of trainings that runs have in common.
    """

    name: str
    recipe: PruneRecipe
    folder: Path
    products: list[Product]
    shared: Path


def carry_out(
    recipe: Recipe, out: Path, products: Sequence[Product], progress: Progress, jobs: int
) -> tuple[dict[str, Any], dict[str, SparsepackError]]:
    """Prune and export every run, or what is left of it; a run that fails keeps no other from being carried out.

    Args:
        recipe: the job.
        out: its folder.
        products: all artifacts of the job.
        progress: told of stages and steps.
        jobs: how many at once.

    Returns:
        By run, in the recipe's order, what the manifest says of it; and likewise the errors of those that failed.

    Raises:
        SparsepackError: every run failed, the first with this error; or one's process was killed.
    """
    tasks = [
        Task(
            settings.name, complete, out / settings.name, [p for p in products if p.run == settings.name], out / SHARED
        )
        for settings, complete in zip(recipe.runs, recipe.prune_recipes(), strict=True)
    ]
    found: dict[str, dict[str, Any]] = {}
    failed: dict[str, SparsepackError] = {}
    if jobs > 1 and len(tasks) > 1:
        _at_once(tasks, progress, min(jobs, len(tasks)), found, failed)
    else:
        for task in tasks:
            try:
                found[task.name] = _finish(task, _of(progress, task.name))
            except SparsepackError as error:
                failed[task.name] = error
            if isinstance(progress, JobProgress):
                progress.done(task.name, failed=task.name in failed)
    failed = {task.name: failed[task.name] for task in tasks if task.name in failed}
    if failed and not found:
        raise _failure(failed)
    return {task.name: found[task.name] for task in tasks if task.name in found}, failed


def _failure(failed: Mapping[str, SparsepackError]) -> SparsepackError:
    """Return the first run's error, of its own kind, with the names of all that failed."""
    (name, error), *others = failed.items()
    also = f" Failed as well: {', '.join(other for other, _ in others)}." if others else ""
    named = type(error)(f"run '{name}': {error}{also}")
    named.__cause__ = error
    return named


def _of(progress: Progress, name: str) -> Progress:
    return progress.run(name) if isinstance(progress, JobProgress) else Named(progress, name)


def _finish(task: Task, progress: Progress) -> dict[str, Any]:
    checkpoint = prune(task.recipe, task.folder, progress=progress, shared=task.shared)
    exported = _export_run(checkpoint, task.recipe, task.folder, task.products, progress)
    return {**exported, "tensors": _hashes(checkpoint)}


class _Told:
    """Progress of a run in another process: what happens goes into a queue."""

    def __init__(self, queue: Queue[Any], name: str) -> None:
        self._queue = queue
        self._name = name

    def stage(self, title: str, total: int | None = None) -> None:
        self._queue.put((self._name, title, total))

    def advance(self, steps: int = 1) -> None:
        self._queue.put((self._name, steps))


def _at_once(
    tasks: Sequence[Task],
    progress: Progress,
    jobs: int,
    found: dict[str, dict[str, Any]],
    failed: dict[str, SparsepackError],
) -> None:
    """Carry out tasks in ``jobs`` processes; those that would wait for one another's training come late."""
    # Fresh processes: PyTorch's threads do not survive a fork.
    context = multiprocessing.get_context("spawn")
    with context.Manager() as manager:
        queue: Queue[Any] = manager.Queue()
        listener = threading.Thread(target=_listen, args=(queue, progress), daemon=True)
        listener.start()
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_end_with_parent)
        try:
            futures: dict[Future[dict[str, Any]], str] = {
                pool.submit(_elsewhere, task, queue): task.name for task in _spread(tasks)
            }
            for future in as_completed(futures):
                name = futures[future]
                try:
                    found[name] = future.result()
                except SparsepackError as error:
                    failed[name] = error
                except BrokenProcessPool as error:
                    # Every run that was not finished ends so; the system says of none that it was the one.
                    raise SparsepackError(
                        "a run's process was killed, perhaps because memory ran out; the same command with "
                        "fewer --jobs goes on where it stopped."
                    ) from error
                if isinstance(progress, JobProgress):
                    progress.done(name, failed=name in failed)
        finally:
            pool.shutdown(wait=True, cancel_futures=True)
            queue.put(None)
            listener.join()


def _spread(tasks: Sequence[Task]) -> list[Task]:
    """Return the tasks so that the first of each training come first and nobody need wait for them."""
    seen: dict[str, int] = {}
    places = []
    for task in tasks:
        alike = repr((task.recipe.seed, task.recipe.init, task.recipe.train))
        places.append(seen.setdefault(alike, 0))
        seen[alike] += 1
    return [task for _, task in sorted(zip(places, tasks, strict=True), key=lambda pair: pair[0])]


def _elsewhere(task: Task, queue: Queue[Any]) -> dict[str, Any]:
    return _finish(task, _Told(queue, task.name))


def _listen(queue: Queue[Any], progress: Progress) -> None:
    known: dict[str, Progress] = {}
    while (message := queue.get()) is not None:
        name, *what = message
        one = known.setdefault(name, _of(progress, name))
        if len(what) == 1:
            one.advance(what[0])
        else:
            one.stage(*what)


def _end_with_parent() -> None:
    """Let this process end when the one that started it was killed; its run goes on from its snapshot later."""
    parent = multiprocessing.parent_process()
    if parent is not None:

        def wait() -> None:
            parent.join()
            os._exit(1)

        threading.Thread(target=wait, daemon=True).start()


def _export_run(
    checkpoint: SparseCheckpoint, recipe: PruneRecipe, folder: Path, products: list[Product], progress: Progress
) -> dict[str, Any]:
    """Write a run's artifacts, those that are missing or damaged, and return what the manifest says of them."""
    source: ModelSource | None = None
    digest = sha256_file(folder / CHECKPOINT)
    known = _known_exports(folder / EXPORTS, digest)
    done: dict[str, Any] = {}
    for product in products:
        entry = known.get(product.path.name)
        if entry is None or not _intact(product.path, entry):
            progress.stage(f"export {product.request.format}")
            if source is None and needs_source(product.request.format):
                record = checkpoint.metadata.model
                source = source_from_record(record, None if record.kind == "zoo" else recipe.model)
            values = product.request.values
            examples = None
            if product.request.format == "onnx-int8":
                examples = calibration(recipe.data, checkpoint.metadata.model)
            written = export(
                checkpoint,
                product.request.format,
                product.path,
                values=values,
                source=source,
                force=True,
                calibration=examples,
            )
            entry = {
                "format": written.format,
                "values": values,
                "bytes": written.size,
                "sha256": written.sha256,
            }
        done[product.path.name] = entry
        write_bytes(folder / EXPORTS, canonical_json({"checkpoint": digest, "artifacts": done}))
    return {"checkpoint": digest, "artifacts": done}


def _known_exports(path: Path, checkpoint: str) -> dict[str, Any]:
    """Return what was exported from this very checkpoint before; nothing when the note is missing or unreadable."""
    try:
        note = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return {}
    if (
        not isinstance(note, dict)
        or note.get("checkpoint") != checkpoint
        or not isinstance(note.get("artifacts"), dict)
    ):
        return {}
    artifacts: dict[str, Any] = note["artifacts"]
    return artifacts


def _intact(path: Path, entry: Any) -> bool:
    try:
        return isinstance(entry, dict) and open_artifact(path).sha256 == entry.get("sha256")
    except FileFormatError:
        return False


def _hashes(checkpoint: SparseCheckpoint) -> dict[str, str]:
    return {name: checkpoint.resolve(name).record.sha256 for name in checkpoint.tensors}
