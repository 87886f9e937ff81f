"""Grids: the combinations that an entry stands for, their names, and what is refused."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.grid import expand, groups
from sparsepack.compressor.recipe import load_recipe
from sparsepack.errors import RecipeError, UsageError


def test_a_grid_is_every_combination_named_by_what_varies() -> None:
    entry = {"method": ["magnitude", "snip"], "sparsity": [0.9, 0.95], "seed": [0, 1], "keep_alive": True}
    runs = expand([entry])
    assert [run["name"] for run in runs] == [
        "-".join(map(str, values)) for values in itertools.product(["magnitude", "snip"], [0.9, 0.95], [0, 1])
    ]
    assert runs[5] == {"method": "snip", "sparsity": 0.9, "seed": 1, "keep_alive": True, "name": "snip-0.9-1"}


@given(st.lists(st.integers(0, 9), min_size=1, max_size=4, unique=True), st.booleans())
def test_lists_by_nature_are_not_varied(seeds: list[int], named: bool) -> None:
    entry: dict[str, Any] = {"method": "snip", "exclude": ["a", "b"], "export": [{"format": "csr"}], "seed": seeds}
    runs = expand([{**entry, "name": "x"} if named else entry])
    assert [run["seed"] for run in runs] == seeds
    assert all(run["exclude"] == ["a", "b"] and run["export"] == [{"format": "csr"}] for run in runs)
    assert [run["name"] for run in runs] == [f"x-{seed}" if named else str(seed) for seed in seeds]


def test_structures_name_folders() -> None:
    assert [run["name"] for run in expand([{"method": "magnitude", "structure": ["element", "2:4"]}])] == [
        "element",
        "2-4",
    ]


def test_an_entry_without_lists_is_one_run() -> None:
    assert expand([{"method": "snip", "sparsity": 0.9}]) == [{"method": "snip", "sparsity": 0.9, "name": "snip"}]


@pytest.mark.parametrize(
    ("grid", "message"),
    [
        ({"method": "snip"}, "grid must be a list of mappings"),
        (["snip"], "grid must be a list of mappings"),
        ([{"method": "snip", "sparsty": [0.9]}], r"unknown key 'sparsty' at grid\[0\]. Did you mean 'sparsity'"),
        ([{"method": "snip"}, {"method": []}], r"grid\[1\].method is an empty list"),
        ([{"method": "snip", "seed": list(range(20_000))}], "stands for 20000 runs"),
    ],
)
def test_what_is_no_grid_is_refused(grid: Any, message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe({"version": 1, "model": "lenet-300-100", "grid": grid})


def test_runs_and_grid_stand_together_and_each_run_has_its_seed() -> None:
    recipe = load_recipe(
        {
            "version": 1,
            "model": "lenet-300-100",
            "data": "digits",
            "seed": 7,
            "runs": [{"name": "dense", "method": "dense"}],
            "grid": [{"method": "snip", "sparsity": [0.5, 0.9], "seed": [3, 4]}],
        }
    )
    assert [run.name for run in recipe.runs] == ["dense", "0.5-3", "0.5-4", "0.9-3", "0.9-4"]
    assert [complete.seed for complete in recipe.prune_recipes()] == [7, 3, 4, 3, 4]


def test_two_entries_that_name_the_same_run_are_refused() -> None:
    entry = {"method": "snip", "sparsity": [0.5, 0.9]}
    with pytest.raises(RecipeError, match="as is that of an earlier run"):
        load_recipe({"version": 1, "model": "lenet-300-100", "data": "digits", "grid": [entry, entry]})


@pytest.mark.parametrize("seed", [-1, 2**32])
def test_a_seed_out_of_range_is_named_by_its_run(seed: int) -> None:
    with pytest.raises(RecipeError, match=r"runs\[0\].seed"):
        load_recipe({"version": 1, "model": "lenet-300-100", "grid": [{"method": "dense", "seed": [seed]}]})


def test_runs_that_differ_by_their_seed_alone_belong_together() -> None:
    recipe = load_recipe(
        {
            "version": 1,
            "model": "lenet-300-100",
            "data": "digits",
            "grid": [{"method": ["snip", "rigl"], "sparsity": 0.9, "seed": [3, 4]}],
        }
    )
    assert groups(recipe.runs) == {"snip-3": "snip-3", "snip-4": "snip-3", "rigl-3": "rigl-3", "rigl-4": "rigl-3"}


def test_densities_by_layer_name_folders_by_their_place() -> None:
    entry = {"name": "g", "method": "magnitude", "allocation": ["uniform", {"*": 0.1}, {"fc1.*": 0.1, "*": 1.0}]}
    assert [run["name"] for run in expand([entry])] == ["g-uniform", "g-densities-1", "g-densities-2"]
    assert [run["allocation"] for run in expand([entry])] == entry["allocation"]


def test_a_run_of_a_grid_is_named_in_what_is_wrong_with_it() -> None:
    entry = {"name": "g", "method": ["magnitude", "snip"], "sparsity": 0.9, "seed": [0, 1], "fine_tune": {"epochs": 1}}
    plain = {"version": 1, "model": "lenet-300-100", "data": "digits", "grid": [entry]}
    with pytest.raises(UsageError, match=r"runs\[2\] \(g-snip-0\): fine_tune"):
        load_recipe(plain).prune_recipes()
