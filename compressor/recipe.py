"""Recipes: what a user asks for, checked to the last key, and completed with the method's defaults.

In: a YAML file, a dict, or the options of a command line. Out: a :class:`Recipe`, or :class:`PruneRecipe` values in
which every setting is explicit. Relative paths in a recipe file (a model file, weights, data) are relative to the
folder that the file lies in, wherever the command is given; those on a command line to where it is given.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec

from ..errors import RecipeError, UsageError
from .grid import expand
from .recipe_checks import build, check_device, check_range
from .recipe_defaults import Shared, complete
from .recipe_paths import Move, move_data, move_model, seen_from, seen_from_here
from .settings import ExportRequest, MeasureSettings, PruneRecipe, RequireRule, RunSettings, TrainSettings
from .yaml_file import parse_yaml, read_yaml, to_yaml

__all__ = [
    "ExportRequest",
    "MeasureSettings",
    "PruneRecipe",
    "Recipe",
    "RequireRule",
    "RunSettings",
    "TrainSettings",
    "load_recipe",
    "recipe_text",
    "resolve",
    "single_run",
]

VERSION = 1
_SEEDS = (0, 2**32, True, False)


class Recipe(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A whole recipe: what all runs share, the runs, and how their artifacts are measured.

    Attributes:
        version: of the schema; 1.
        model: as in :class:`PruneRecipe`.
        data: as in :class:`PruneRecipe`.
        weights: as in :class:`PruneRecipe`.
        seed: as in :class:`PruneRecipe`.
        threads: as in :class:`PruneRecipe`.
        device: as in :class:`PruneRecipe`.
        train: keys of :class:`TrainSettings` for every run.
        runs: at least one; a ``grid`` in the file stands for some of them (see :mod:`.grid`).
        measure: how artifacts are measured.
    """

    version: int
    model: str
    runs: list[RunSettings]
    data: str = "none"
    weights: str | None = None
    seed: int = 0
    threads: int | None = None
    device: str = "cpu"
    train: dict[str, Any] = {}
    measure: MeasureSettings = MeasureSettings()

    def prune_recipes(self) -> list[PruneRecipe]:
        """Return every run, complete, in the order of ``runs``.

        Raises:
            UsageError: a name or value that cannot be; says at which run.
            UnsupportedError: a combination that is not allowed, with the reason.
        """
        shared = self._shared()
        return [complete(shared, run, f"runs[{number}]") for number, run in enumerate(self.runs)]

    def _shared(self) -> Shared:
        return Shared(self.model, self.weights, self.data, self.seed, self.threads, self.device, self.train)


def load_recipe(source: Path | Mapping[str, Any]) -> Recipe:
    """Read and check a recipe; defaults stay open until :func:`resolve`.

    Args:
        source: a YAML file, or plain data (whose paths are relative to where the process runs).

    Raises:
        RecipeError: not readable, or not what the schema asks; names the path and, for a wrong key, the near miss.
    """
    if isinstance(source, Mapping):
        return _check(source)
    recipe = _check(read_yaml(source))
    return _moved(recipe, seen_from_here(source.parent))


def resolve(recipe: Recipe) -> Recipe:
    """Return the recipe with every setting of every run explicit; resolving it again changes nothing.

    Raises:
        UsageError: as :meth:`Recipe.prune_recipes`.
        UnsupportedError: as :meth:`Recipe.prune_recipes`.
    """
    runs = [
        msgspec.structs.replace(run, **_explicit(full))
        for run, full in zip(recipe.runs, recipe.prune_recipes(), strict=True)
    ]
    return msgspec.structs.replace(recipe, runs=runs)


def recipe_text(recipe: PruneRecipe, folder: Path) -> str:
    """Return one run as a recipe file that gives the same run again.

    Args:
        recipe: the run.
        folder: where the file is to lie; relative paths are written as seen from there.
    """
    run = RunSettings(name=recipe.method, method=recipe.method, **_explicit(recipe))
    whole = Recipe(
        version=VERSION,
        model=recipe.model,
        runs=[run],
        data=recipe.data,
        weights=recipe.weights,
        seed=recipe.seed,
        threads=recipe.threads,
        device=recipe.device,
    )
    plain = msgspec.to_builtins(_moved(whole, seen_from(folder)))
    del plain["measure"], plain["train"], plain["runs"][0]["export"]
    # The run last: what is shared reads first.
    plain["runs"] = plain.pop("runs")
    return to_yaml(plain)


def single_run(recipe: Path | None, model: str | None, **options: Any) -> PruneRecipe:
    """Build one run from a command line, over a recipe file with one run if there is one.

    Args:
        recipe: the file, or None.
        model: as in :class:`PruneRecipe`; needed without a file.
        options: any of data, weights, seed, threads, device, method, sparsity, structure, allocation, schedule, rounds,
            init, generator, saliency, aggregation, round_to, exclude, keep_alive; epochs, optimiser, learning_rate,
            batch_size of the training; fine_tune_epochs; method_options as ``KEY=VALUE`` texts. None, empty and false
            ones say nothing.

    Raises:
        UsageError: no model or method, a file with several runs, or a value that cannot be.
        UnsupportedError: a combination that is not allowed, with the reason.
    """
    # By identity: epochs=0 and seed=0 say something.
    given = {key: value for key, value in options.items() if not (value is None or value is False or value == ())}
    for key, value in {"model": model or "", **given}.items():
        for text in value if isinstance(value, tuple) else (value,):
            _check_text(key, str(text))
    plain: dict[str, Any]
    if recipe is None:
        plain = {"version": VERSION, "runs": [{"name": "run"}]}
    else:
        loaded = load_recipe(recipe)
        if len(loaded.runs) != 1:
            raise UsageError(f"{recipe} has {len(loaded.runs)} runs; use 'compress run' for it, or keep one of them.")
        plain = msgspec.to_builtins(loaded)
    if model is not None:
        plain["model"] = model
    if "model" not in plain:
        raise UsageError("no model is given; name a zoo model, file.py:factory, package.module:factory or model.onnx.")
    if "method" not in plain["runs"][0] and "method" not in given:
        raise UsageError("no method is given; 'compress methods' lists them.")
    _overlay(plain, given)
    checked = _check(plain)
    return complete(checked._shared(), checked.runs[0], "")


def _check_text(key: str, text: str) -> None:
    """Refuse bytes that are no text, which a command line may hold: recipes and checkpoints record every setting."""
    try:
        text.encode()
    except UnicodeEncodeError as error:
        raise UsageError(
            f"{key} is {text!a}, which is no UTF-8 text; a run records it, so give one that is."
        ) from error


def _overlay(plain: dict[str, Any], given: dict[str, Any]) -> None:
    """Put the options of a command line where a recipe has them; changes ``plain``."""
    run = plain["runs"][0]
    for key in ("data", "weights", "seed", "threads", "device"):
        if key in given:
            value = given.pop(key)
            plain[key] = str(value) if isinstance(value, Path) else value
    for key in ("epochs", "optimiser", "learning_rate", "batch_size"):
        if key in given:
            run.setdefault("train", {})[key] = given.pop(key)
    if "fine_tune_epochs" in given:
        run["fine_tune"] = {**(run.get("fine_tune") or {}), "epochs": given.pop("fine_tune_epochs")}
    for option in given.pop("method_options", ()):
        name, equals, text = option.partition("=")
        if not equals:
            raise UsageError(f"an option of the method is written KEY=VALUE; '{option}' has no '='.")
        run.setdefault("options", {})[name] = parse_yaml(text, f"the option {name}")
    run.update({key: list(value) if isinstance(value, tuple) else value for key, value in given.items()})


def _check(plain: Any) -> Recipe:
    if isinstance(plain, Mapping) and plain.get("version") != VERSION:
        found = plain.get("version", "missing")
        raise RecipeError(f"version is {found}; this release reads recipes that say 'version: {VERSION}'.")
    if isinstance(plain, Mapping) and "grid" in plain:
        given = plain.get("runs", [])
        whole = {key: value for key, value in plain.items() if key != "grid"}
        plain = {**whole, "runs": [*given, *expand(plain["grid"])] if isinstance(given, list) else given}
    if isinstance(plain, Mapping) and isinstance(plain.get("runs"), list):
        # One by one, so that a wrong key is named with its run.
        for number, run in enumerate(plain["runs"]):
            exports = run.get("export") if isinstance(run, Mapping) else None
            for place, export in enumerate(exports if isinstance(exports, list) else []):
                build(ExportRequest, export, f"runs[{number}].export[{place}]")
            build(RunSettings, run, f"runs[{number}]")
    if isinstance(plain, Mapping) and isinstance(plain.get("measure"), Mapping):
        build(MeasureSettings, plain["measure"], "measure")
    recipe = build(Recipe, plain, "")
    build(TrainSettings, recipe.train, "train")
    check_device(recipe.device)
    check_range(recipe.seed, _SEEDS, "seed")
    for number, run in enumerate(recipe.runs):
        if run.seed is not None:
            check_range(run.seed, _SEEDS, f"runs[{number}].seed")
    if recipe.threads is not None:
        check_range(recipe.threads, (1, 4096, True, True), "threads")
    check_range(recipe.measure.time_budget, (0, 3600, False, True), "measure.time_budget")
    _check_names(recipe)
    return recipe


def _check_names(recipe: Recipe) -> None:
    if not recipe.runs:
        raise RecipeError("runs is empty; a recipe has at least one run.")
    names = [run.name for run in recipe.runs]
    for number, name in enumerate(names):
        if not name or name in (".", "..") or any(character in name for character in "/\\\0"):
            raise RecipeError(f"runs[{number}].name is '{name}'; it names a folder and holds no path separator.")
        if name in names[:number]:
            raise RecipeError(f"runs[{number}].name is '{name}', as is that of an earlier run; names must differ.")
    named = {"measure.baseline": recipe.measure.baseline}
    for number, rule in enumerate(recipe.measure.require):
        if isinstance(rule, RequireRule):
            named[f"measure.require[{number}].run"] = rule.run
    for field, wanted in named.items():
        if wanted is not None and wanted not in names:
            raise RecipeError(f"{field} names the run '{wanted}', which is not in runs: {', '.join(names)}.")


def _moved(recipe: Recipe, move: Move) -> Recipe:
    return msgspec.structs.replace(
        recipe,
        model=move_model(recipe.model, move),
        data=move_data(recipe.data, move),
        weights=None if recipe.weights is None else move(recipe.weights),
    )


def _explicit(full: PruneRecipe) -> dict[str, Any]:
    return {
        "sparsity": full.sparsity,
        "structure": full.structure,
        "allocation": full.allocation,
        "schedule": full.schedule,
        "rounds": full.rounds,
        "init": full.init,
        "generator": full.generator,
        "saliency": full.saliency,
        "aggregation": full.aggregation,
        "round_to": full.round_to,
        "keep_alive": full.keep_alive,
        "exclude": full.exclude,
        "train": msgspec.to_builtins(full.train),
        "fine_tune": None if full.fine_tune is None else msgspec.to_builtins(full.fine_tune),
        "options": full.options,
    }
