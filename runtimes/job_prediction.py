"""The dry run of a whole recipe: every run rehearsed, the predictions kept for the report of the job that follows."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from ..compressor.recipe import Recipe
from ..files import canonical_json, write_bytes
from .job_plan import plan_products, plan_requirements
from .measure.record import to_plain
from .rehearsal import SCHEMA, Prediction, rehearse

PREDICTION = "prediction.json"


def predict(recipe: Recipe, out: Path) -> dict[str, Prediction]:
    """Predict every run of a recipe and write ``OUT/prediction.json``.

    Args:
        recipe: as ``load_recipe`` gives it.
        out: the job's folder; nothing else is written into it.

    Returns:
        by the run's name.

    Raises:
        SparsepackError: the recipe asks for something that cannot be, or for what cannot be predicted.
    """
    products = plan_products(recipe, out)
    plan_requirements(recipe, products)
    found: dict[str, Prediction] = {}
    artifacts: dict[str, Any] = {}
    for settings, complete in zip(recipe.runs, recipe.prune_recipes(), strict=True):
        wanted = [product for product in products if product.run == settings.name]
        formats = [(product.request.format, product.request.values) for product in wanted]
        found[settings.name] = rehearse(complete, formats, threads=recipe.threads)
        for product, predicted in zip(wanted, found[settings.name].artifacts, strict=True):
            artifacts[product.name] = to_plain(predicted)
    out.mkdir(parents=True, exist_ok=True)
    content = {"schema": SCHEMA, "artifacts": artifacts, "runs": {name: to_plain(p) for name, p in found.items()}}
    write_bytes(out / PREDICTION, canonical_json(content))
    return found
