"""A whole recipe: prune every run, export every artifact, measure them all.

    OUT/recipe.yaml              the resolved recipe; giving it to 'compress run' gives the same job
    OUT/NAME/                    the RUN folder of each run, with its artifacts beside the checkpoint
    OUT/NAME/exports.json        which artifacts were written from which checkpoint, by SHA-256
    OUT/manifest.json            SHA-256 of every checkpoint, artifact and decoded tensor; the same for the same recipe
    OUT/measurement.json         the measurement record

Killed at any moment, the same call goes on: what is finished, by its hash, is not done again, and the final bytes are
those of an uninterrupted job (``measurement.json`` aside, which holds times).
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import msgspec

from ..compressor.progress import Progress, Silent
from ..compressor.recipe import Recipe, recipe_text
from ..compressor.run_folder import CHECKPOINT, RECIPE, RunFolder
from ..compressor.yaml_file import parse_yaml, to_yaml
from ..errors import FileFormatError, OutputExistsError, RecipeError
from ..files import sha256_file, write_bytes
from . import find_runtime
from .job_plan import Product, baseline_of, plan_products, plan_requirements
from .job_prediction import PREDICTION
from .job_runs import SHARED, carry_out
from .measure import gates, measure
from .measure.reading import read_record
from .measure.record import RECORD, to_plain
from .rehearsal import by_artifact, held_against
from .report.json import to_json

MANIFEST = "manifest.json"
MANIFEST_SCHEMA = "sparsepack.manifest/1"


def run(
    recipe: Recipe, out: Path, *, force: bool = False, progress: Progress | None = None, jobs: int = 1
) -> dict[str, Any]:
    """Carry out a recipe, or what is left of it.

    Args:
        recipe: as ``load_recipe`` gives it.
        out: the folder for everything.
        force: begin anew over whatever the folder holds.
        progress: told of stages and steps.
        jobs: how many runs are under way at once, each in a process of its own; the bytes do not depend on it. The
            measuring at the end is always alone.

    Returns:
        the measurement record; :func:`.measure.gates.verdict` says whether the recipe's requirements are met.

    Raises:
        RecipeError: the recipe asks for something that cannot be.
        OutputExistsError: the folder holds another job; one that differs in what is measured or required is not.
        SparsepackError: whatever pruning, exporting or measuring raises; finished work is kept.
    """
    watcher = progress or Silent()
    products = plan_products(recipe, out)
    requirements = plan_requirements(recipe, products)
    for name in recipe.measure.runtimes or []:
        find_runtime(name)
    with RunFolder(out).lock():
        _claim(recipe, out, force)
        entries = carry_out(recipe, out, products, watcher, jobs)
        shutil.rmtree(out / SHARED, ignore_errors=True)
        manifest = {"schema": MANIFEST_SCHEMA, "recipe": sha256_file(out / RECIPE), "runs": entries}
        write_bytes(out / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
        record = _earlier_record(out, entries) or _measure(recipe, out, products, watcher)
        by_name = {entry["artifact"]: entry for entry in record["artifacts"]}
        judged = [gates.judge(wanted, by_name[product.name]) for wanted, chosen in requirements for product in chosen]
        record["requirements"] = to_plain(judged)
        write_bytes(out / RECORD, to_json(record).encode())
        return record


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


def _claim(recipe: Recipe, out: Path, force: bool) -> None:
    """Make the folder this job's, or refuse it; remove what a killed process left half-written.

    Raises:
        OutputExistsError: it holds another job, or files of another kind.
    """
    text = resolved_text(recipe, out).encode()
    known = out / RECIPE
    if not force:
        # Hidden files are the lock and what a kill left of an atomic write; a prediction may come before its job.
        foreign = (path for path in out.iterdir() if not path.name.startswith(".") and path.name != PREDICTION)
        if not known.exists() and any(foreign):
            raise OutputExistsError(f"{out} is not empty and holds no job; give --force to use it, or another folder.")
        if known.exists() and known.read_bytes() != text:
            changed = _changed(known, text)
            if not changed <= {"measure", "require"}:
                raise OutputExistsError(
                    f"{out} holds the job of another recipe; give --force to replace it, or choose another folder."
                )
            if "measure" in changed:
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


def _changed(known: Path, text: bytes) -> set[str]:
    """Return what sets a job's recipe apart from the one in its folder: ``runs``, ``measure``, ``require``.

    Requirements are judged anew from the record, and measuring needs no training.
    """
    try:
        before = parse_yaml(known.read_text(encoding="utf-8"), str(known))
        now = parse_yaml(text.decode(), "the recipe")
        measures = [dict(recipe.pop("measure")) for recipe in (before, now)]
    except (RecipeError, UnicodeDecodeError, KeyError, TypeError, ValueError):
        return {"runs"}
    required = [measure.pop("require", None) for measure in measures]
    parts = {"runs": (before, now), "measure": measures, "require": required}
    return {name for name, (old, new) in parts.items() if old != new}


def _earlier_record(out: Path, entries: dict[str, Any]) -> dict[str, Any] | None:
    """Return the record of an earlier call when it measured exactly these artifacts."""
    try:
        record = read_record(out / RECORD)
    except FileFormatError:
        return None
    found = {entry["artifact"]: entry["sha256"] for entry in record["artifacts"]}
    expected = {
        f"{run}/{Path(file).stem}": artifact["sha256"]
        for run, entry in entries.items()
        for file, artifact in entry["artifacts"].items()
    }
    return record if found == expected else None


def _measure(recipe: Recipe, out: Path, products: list[Product], progress: Progress) -> dict[str, Any]:
    baseline = baseline_of(recipe, products)
    record = measure(
        [product.path for product in products],
        baseline=baseline.path if baseline else None,
        runtimes=recipe.measure.runtimes,
        data=recipe.data,
        model=recipe.model,
        threads=recipe.threads,
        time_budget=recipe.measure.time_budget,
        against={product.path: out / product.run / CHECKPOINT for product in products},
        names={product.path: product.name for product in products},
        progress=progress,
    )
    predictions = by_artifact(out / PREDICTION)
    for entry in record["artifacts"] if predictions else []:
        entry["notes"] += held_against(predictions, entry)
    return record
