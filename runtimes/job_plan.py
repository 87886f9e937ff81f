"""What a recipe asks for, before any work: its artifacts, the one that is the baseline, the requirements on each."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from ..compressor.recipe import ExportRequest, Recipe, RequireRule
from ..errors import RecipeError, unknown_name
from ..exporters import EXPORTERS, check_values
from .measure import gates

BASELINE_FORMAT = "onnx"


@dataclass(frozen=True)
class Product:
    """One artifact that the recipe asks for: of which run, in which format, and where."""

    run: str
    request: ExportRequest
    path: Path

    @property
    def name(self) -> str:
        """What tables and requirements call it."""
        return f"{self.run}/{self.path.stem}"


def plan_products(recipe: Recipe, out: Path) -> list[Product]:
    """Return the artifacts that the recipe asks for, in its order.

    Raises:
        RecipeError: a run asks for the same artifact twice, or the baseline has no ONNX artifact.
        UnknownNameError: no such format.
    """
    products: list[Product] = []
    for settings in recipe.runs:
        for request in settings.export:
            if request.format not in EXPORTERS:
                raise unknown_name("format", request.format, EXPORTERS)
            check_values(request.format, request.values)
            if request.format == "onnx-int8" and recipe.data == "none":
                raise RecipeError(
                    f"the run '{settings.name}' exports onnx-int8, which is calibrated on examples; name data."
                )
            values = "" if request.values == "fp32" else f"-{request.values.replace(':', '')}"
            path = out / settings.name / f"{request.format}{values}{EXPORTERS[request.format].suffix}"
            if any(product.path == path for product in products):
                raise RecipeError(f"the run '{settings.name}' exports {request.format} with {request.values} twice.")
            products.append(Product(settings.name, request, path))
    if recipe.measure.baseline is not None and baseline_of(recipe, products) is None:
        raise RecipeError(
            f"the baseline run '{recipe.measure.baseline}' exports no {BASELINE_FORMAT} artifact to compare with; "
            f"add {{format: {BASELINE_FORMAT}}} to its exports."
        )
    return products


def baseline_of(recipe: Recipe, products: list[Product]) -> Product | None:
    """Return the artifact that the others are compared with: the baseline run's ONNX file with unchanged values."""
    wanted = (recipe.measure.baseline, ExportRequest(BASELINE_FORMAT))
    return next((product for product in products if (product.run, product.request) == wanted), None)


def plan_requirements(recipe: Recipe, products: list[Product]) -> list[tuple[gates.Requirement, list[Product]]]:
    """Return each requirement with the artifacts that it holds for.

    One that names no run holds for every run but the baseline, which is the yardstick.

    Raises:
        UsageError: a requirement that cannot be read.
        RecipeError: one that holds for no artifact.
    """
    planned = []
    for number, rule in enumerate(recipe.measure.require):
        scope = rule if isinstance(rule, RequireRule) else RequireRule(rule)
        chosen = [
            product
            for product in products
            if (product.run == scope.run if scope.run is not None else product.run != recipe.measure.baseline)
            and scope.format in (None, product.request.format)
        ]
        if not chosen:
            raise RecipeError(f"measure.require[{number}] ('{scope.expression}') holds for no artifact of this recipe.")
        planned.append((gates.parse(scope.expression), chosen))
    return planned
