"""Grids: an entry of a recipe that stands for many runs, every combination of the values that it lists.

    grid:
      - {method: [magnitude, snip], sparsity: [0.9, 0.95], seed: [0, 1, 2], export: [{format: packed}]}

is twelve runs, ``magnitude-0.9-0`` to ``snip-0.95-2``. Pure: plain data in, plain data out.
"""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from typing import Any

from ..errors import RecipeError, near_miss
from .settings import RunSettings

# What may be listed, in the order in which it names a run. Lists are what ``exclude`` and ``export`` are by nature.
VARIED = (
    "method",
    "structure",
    "sparsity",
    "allocation",
    "schedule",
    "rounds",
    "init",
    "generator",
    "saliency",
    "aggregation",
    "round_to",
    "seed",
)
# More runs than these are a slip of the hand.
MOST = 10_000


def expand(entries: Any) -> list[dict[str, Any]]:
    """Return the runs that a recipe's ``grid`` stands for.

    Args:
        entries: what stands under ``grid``: a list of mappings with the keys of a run; ``name`` is the beginning of
            the runs' names.

    Raises:
        RecipeError: no list of mappings, an unknown key, an empty list of values, or too many runs.
    """
    if not isinstance(entries, list) or not all(isinstance(entry, Mapping) for entry in entries):
        raise RecipeError("grid must be a list of mappings, each with the keys of a run.")
    return [run for place, entry in enumerate(entries) for run in _expanded(entry, f"grid[{place}]")]


def _expanded(entry: Mapping[str, Any], where: str) -> list[dict[str, Any]]:
    known = RunSettings.__struct_fields__
    for key in entry:
        if key not in known:
            raise RecipeError(
                f"unknown key '{key}' at {where}.{near_miss(str(key), known)} Known there: {', '.join(known)}."
            )
    lists = {key: entry[key] for key in VARIED if isinstance(entry.get(key), list)}
    count = 1
    for key, values in lists.items():
        if not values:
            raise RecipeError(f"{where}.{key} is an empty list; it lists the values to try.")
        count *= len(values)
    if count > MOST:
        raise RecipeError(f"{where} stands for {count} runs; at most {MOST} are allowed.")
    runs = []
    for numbered in itertools.product(*map(enumerate, lists.values())):
        chosen = {key: value for key, (_, value) in zip(lists, numbered, strict=True)}
        parts = [str(entry["name"])] if entry.get("name") else []
        parts += [_named(value, place) for place, value in numbered]
        runs.append({**entry, **chosen, "name": "-".join(parts) or str(entry.get("method", "run"))})
    return runs


def _named(value: Any, place: int) -> str:
    """Return what a value adds to the names of its runs, which name folders; densities by layer go by their place."""
    if isinstance(value, Mapping):
        return f"densities-{place}"
    return str(value).replace("/", "_").replace(":", "-")


def groups(runs: list[RunSettings]) -> dict[str, str]:
    """Return, by the name of each run, that of the first one which differs from it by nothing but the seed."""
    firsts: dict[str, str] = {}
    found = {}
    for run in runs:
        rest = repr([(key, getattr(run, key)) for key in RunSettings.__struct_fields__ if key not in ("name", "seed")])
        found[run.name] = firsts.setdefault(rest, run.name)
    return found
