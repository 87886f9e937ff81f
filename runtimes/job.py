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

from ..compressor.progress import Progress, Silent
from ..compressor.recipe import Recipe
from ..compressor.run_folder import CHECKPOINT, RECIPE, RunFolder
from ..errors import FileFormatError
from ..files import sha256_file, write_bytes
from . import find_runtime
from .job_folder import MANIFEST, claim
from .job_plan import Product, baseline_of, plan_products, plan_requirements
from .job_prediction import PREDICTION
from .job_runs import SHARED, carry_out
from .measure import gates, measure
from .measure.reading import read_record
from .measure.record import NO_COMPARISON, RECORD, FailedRun, RequirementResult, to_plain
from .rehearsal import by_artifact, held_against
from .report.json import to_json

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
        OutputExistsError: the folder holds another job; see :func:`.job_folder.claim`.
        SparsepackError: whatever pruning, exporting or measuring raises; finished work is kept. The error of a single
            run stands in the record when another is there to be measured.
    """
    watcher = progress or Silent()
    products = plan_products(recipe, out)
    requirements = plan_requirements(recipe, products)
    for name in recipe.measure.runtimes or []:
        find_runtime(name)
    with RunFolder(out).lock():
        claim(recipe, out, force)
        entries, failed = carry_out(recipe, out, products, watcher, jobs)
        if not failed:
            shutil.rmtree(out / SHARED, ignore_errors=True)
        manifest = {"schema": MANIFEST_SCHEMA, "recipe": sha256_file(out / RECIPE), "runs": entries}
        write_bytes(out / MANIFEST, json.dumps(manifest, indent=2, sort_keys=True).encode() + b"\n")
        finished = [product for product in products if product.run in entries]
        record = _earlier_record(out, entries) or _measure(recipe, out, finished, watcher)
        by_name = {entry["artifact"]: entry for entry in record["artifacts"]}
        judged = [
            gates.judge(wanted, by_name[product.name])
            if product.name in by_name
            else RequirementResult(wanted.expression, product.name, None, None, f"the run '{product.run}' failed")
            for wanted, chosen in requirements
            for product in chosen
        ]
        record["requirements"] = to_plain(judged)
        record["failed"] = to_plain([FailedRun(name, str(error)) for name, error in failed.items()])
        write_bytes(out / RECORD, to_json(record).encode())
        return record


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
    if recipe.measure.baseline is not None and baseline is None:
        for entry in record["artifacts"]:
            entry["notes"].append(f"{NO_COMPARISON}the baseline's run '{recipe.measure.baseline}' failed.")
    predictions = by_artifact(out / PREDICTION)
    for entry in record["artifacts"] if predictions else []:
        entry["notes"] += held_against(predictions, entry)
    return record
