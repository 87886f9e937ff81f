"""Whose a job's folder is: the same recipe goes on in it, one with other runs keeps those that it shares."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from msgspec.structs import replace

from ..compressor.recipe import Recipe, load_recipe, recipe_text
from ..compressor.run_folder import RECIPE, RunFolder
from ..compressor.yaml_file import parse_yaml, to_yaml
from ..errors import OutputExistsError, SparsepackError
from ..files import write_bytes
from .job_prediction import PREDICTION
from .measure.record import RECORD

MANIFEST = "manifest.json"


def resolved_text(recipe: Recipe, out: Path) -> str:
    """Return the whole recipe with every default filled in, its paths as seen from ``out``."""
    runs: list[dict[str, Any]] = []
    shared: dict[str, Any] = {}
    for settings, complete in zip(recipe.runs, recipe.prune_recipes(), strict=True):
        shared = parse_yaml(recipe_text(complete, out), settings.name)
        (only,) = shared.pop("runs")
        own = {} if settings.seed is None else {"seed": settings.seed}
        runs.append({**only, **own, "name": settings.name, "export": msgspec.to_builtins(settings.export)})
    return to_yaml({**shared, "seed": recipe.seed, "runs": runs, "measure": msgspec.to_builtins(recipe.measure)})


def claim(recipe: Recipe, out: Path, force: bool) -> None:
    """Make the folder this job's, or refuse it; remove what a killed process left half-written.

    A recipe with some other runs, or other exports of a run, goes on with what it shares; one that measures otherwise
    does away with the record.

    Args:
        recipe: the job.
        out: its folder, locked.
        force: begin anew over whatever it holds.

    Raises:
        OutputExistsError: it holds another job, runs of these names with other settings, or files of another kind.
    """
    text = resolved_text(recipe, out).encode()
    known = out / RECIPE
    if not force:
        # Hidden files are the lock and what a kill left of an atomic write; a prediction may come before its job.
        foreign = (path for path in out.iterdir() if not path.name.startswith(".") and path.name != PREDICTION)
        if not known.exists() and any(foreign):
            raise OutputExistsError(f"{out} is not empty and holds no job; give --force to use it, or another folder.")
        if known.exists() and known.read_bytes() != text:
            if _go_on(recipe, out):
                (out / RECORD).unlink(missing_ok=True)
            write_bytes(known, text)
    for leftover in out.rglob(".*.partial"):
        leftover.unlink(missing_ok=True)
    if force:
        for settings in recipe.runs:
            folder = RunFolder(out / settings.name)
            for file in (folder.checkpoint, folder.snapshot, folder.manifest):
                file.unlink(missing_ok=True)
        for name in (MANIFEST, RECORD):
            (out / name).unlink(missing_ok=True)
    # Last, so that a kill before this leaves the earlier job's recipe, and the same command begins anew.
    if force or not known.exists():
        write_bytes(known, text)


def _go_on(recipe: Recipe, out: Path) -> bool:
    """Return whether the recipe measures otherwise than that in the folder.

    Exports are written again from the checkpoint, and requirements are judged anew from the record.

    Raises:
        OutputExistsError: it has no run in common with it, or would overwrite one.
    """
    try:
        known = load_recipe(out / RECIPE)
    except SparsepackError:
        before: dict[str, str] = {}
        otherwise = True
    else:
        before = _runs(known, out)
        otherwise = replace(known.measure, require=[]) != replace(recipe.measure, require=[])
    now = _runs(recipe, out)
    same = {name for name in now if before.get(name) == now[name]}
    changed = [name for name in now if name in before and name not in same and _holds_work(out / name)]
    if not same and (changed or not before.keys() & now.keys()):
        raise OutputExistsError(
            f"{out} holds the job of another recipe; give --force to replace it, or choose another folder."
        )
    if changed:
        raise OutputExistsError(
            f"{out} holds runs with other settings under these names: {', '.join(changed)}; give them other names, or "
            "remove their folders, or give --force to begin the whole job anew."
        )
    return otherwise


def _holds_work(run: Path) -> bool:
    try:
        return RunFolder(run).read_manifest() is not None
    except OutputExistsError:
        return True


def _runs(recipe: Recipe, out: Path) -> dict[str, str]:
    """Return what decides each run's checkpoint, by its name."""
    names = (settings.name for settings in recipe.runs)
    return {name: recipe_text(complete, out) for name, complete in zip(names, recipe.prune_recipes(), strict=True)}
