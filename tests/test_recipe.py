"""Recipes: what is refused and how it is said, what is filled in, and that the echo gives the same run again."""

from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from sparsepack.compressor.recipe import load_recipe, recipe_text, resolve, single_run
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.yaml_file import parse_yaml, to_yaml
from sparsepack.errors import RecipeError, UnknownNameError, UnsupportedError, UsageError


def recipe(*runs: dict[str, Any], **shared: Any) -> dict[str, Any]:
    listed = [{"name": f"run-{i}", "method": "snip", "sparsity": 0.9, **run} for i, run in enumerate(runs or [{}])]
    return {"version": 1, "model": "lenet-300-100", "data": "digits", "runs": listed, **shared}


@pytest.mark.parametrize(
    ("plain", "message"),
    [
        (recipe({"sparsty": 0.9}), r"unknown key 'sparsty' at runs\[0\]\. Did you mean 'sparsity'\?"),
        (recipe(modle="x"), r"unknown key 'modle' in the recipe\. Did you mean 'model'\?"),
        (recipe(train={"epocs": 1}), r"unknown key 'epocs' at train\. Did you mean 'epochs'\?"),
        (recipe({"train": {"epocs": 1}}), r"unknown key 'epocs' at runs\[0\]\.train\. Did you mean 'epochs'\?"),
        (recipe({"export": [{"formt": "csr"}]}), r"unknown key 'formt' at runs\[0\]\.export\[0\]\. Did you mean"),
        (recipe(measure={"runtime": []}), r"unknown key 'runtime' at measure\. Did you mean 'runtimes'\?"),
        (recipe({}, {"sparsity": "high"}), r"runs\[1\]\.sparsity: expected a number or null, got text\."),
        (recipe({"keep_alive": 1}), r"runs\[0\]\.keep_alive: expected true or false, got a whole number\."),
        (recipe(seed=-1), r"seed is -1; it must be in \[0, 4294967296\)\."),
        (recipe(threads=0), r"threads is 0"),
        (recipe({"train": {"epochs": -3}}), r"runs\[0\]\.train\.epochs is -3; it must be at least 0\."),
        (recipe({"train": {"momentum": 1.0}}), r"runs\[0\]\.train\.momentum is 1\.0; it must be in \[0, 1\)\."),
        (recipe({"train": {"learning_rate": float("nan")}}), r"learning_rate is nan; it must be more than 0\."),
        (recipe({"name": "a/b"}), r"runs\[0\]\.name is 'a/b'; it names a folder"),
        (recipe({"name": "a"}, {"name": "a"}), r"runs\[1\]\.name is 'a', as is that of an earlier run"),
        (recipe(measure={"baseline": "dense"}), r"measure\.baseline names the run 'dense', which is not in runs"),
        (recipe(measure={"require": [{"expression": "x>1", "run": "no"}]}), r"measure\.require\[0\]\.run names"),
        ({"model": "x", "runs": []}, r"version is missing; this release reads recipes that say 'version: 1'"),
        ({"version": 2}, r"version is 2"),
        ({"version": 1, "model": "m", "runs": []}, r"runs is empty"),
        ({"version": 1, "model": "m", "runs": [3]}, r"runs\[0\] must be a mapping of keys to values, not a int"),
        ({"version": 1, "model": "m", "runs": [{"method": "snip"}]}, r"runs\[0\]: missing key 'name'\."),
        ({"version": 1, "runs": [{"name": "a", "method": "snip"}]}, r"the recipe: missing key 'model'\."),
    ],
)
def test_what_does_not_fit_the_schema_is_named_by_its_path(plain: dict[str, Any], message: str) -> None:
    with pytest.raises(RecipeError, match=message):
        load_recipe(plain).prune_recipes()


@pytest.mark.parametrize(
    ("run", "error", "message"),
    [
        ({"method": "snp"}, UnknownNameError, r"runs\[0\] \(run-0\): unknown method 'snp'\. Did you mean 'snip'\?"),
        ({"structure": "blok"}, UsageError, r"runs\[0\] \(run-0\): unknown structure 'blok'"),
        ({"allocation": "globl"}, UnknownNameError, r"unknown allocation 'globl'\. Did you mean 'global'\?"),
        ({"schedule": "iteratve"}, UnknownNameError, r"unknown schedule 'iteratve'\. Did you mean 'iterative'\?"),
        ({"init": "unifrm"}, UnknownNameError, r"unknown initialiser 'unifrm'\. Did you mean 'uniform'\?"),
        ({"generator": "philox"}, UnknownNameError, r"unknown generator 'philox'"),
        ({"train": {"optimiser": "sdg"}}, UnknownNameError, r"unknown optimiser 'sdg'\. Did you mean 'sgd'\?"),
        ({"train": {"rate_schedule": "cosin"}}, UnknownNameError, r"unknown rate schedule 'cosin'"),
        ({"train": {"precision": "fp16"}}, UnknownNameError, r"unknown precision 'fp16'"),
        ({"sparsity": 1.0}, UsageError, r"the sparsity is 1\.0; .* must lie in \[0, 1\)"),
        ({"sparsity": -0.1}, UsageError, r"the sparsity is -0\.1"),
        ({"structure": "2:4"}, UsageError, r"its sparsity is 0\.5, not 0\.9; .*0\.25 \(3:4\), 0\.5 \(2:4\)"),
        ({"options": {"batchs": 1}}, UnknownNameError, r"'batchs'\. Did you mean 'batches'\?"),
        ({"rounds": 3}, UsageError, r"rounds belong to the schedule 'iterative'"),
        ({"fine_tune": {"epochs": 1}}, UsageError, r"fine_tune is the training after the mask .*\(such as magnitude"),
        ({"method": "magnitude", "fine_tune": {"augment": "crop-flip"}}, UsageError, r"augment is one for the whole"),
        ({"schedule": "gradual"}, UnsupportedError, r"method 'snip' does not go with schedule 'gradual'"),
        (
            {"method": "magnitude", "schedule": "gradual", "train": {"epochs": 0}},
            UsageError,
            r"schedule 'gradual' prunes while it trains",
        ),
        ({"method": "magnitude", "schedule": "iterative", "rounds": 0}, UsageError, r"rounds is 0"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(run: dict[str, Any], error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        load_recipe(recipe(run)).prune_recipes()


def test_an_unknown_device_is_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown device 'gpu'\. Did you mean 'cpu'"):
        load_recipe(recipe(device="gpu"))


def test_training_settings_come_from_paper_then_recipe_then_run() -> None:
    method = {"method": "edge-popup", "sparsity": 0.5}
    runs = [{**method}, {**method, "train": {"weight_decay": 0.25}}, {}]
    paper, run, snip = load_recipe(recipe(*runs, train={"epochs": 3})).prune_recipes()
    assert (paper.train.weight_decay, paper.train.epochs) == (1e-4, 3)
    assert (run.train.weight_decay, run.train.epochs) == (0.25, 3)
    assert snip.train == msgspec.structs.replace(TrainSettings(), epochs=3)


def test_fine_tuning_is_half_as_long_at_a_tenth_of_the_rate_unless_said_otherwise() -> None:
    magnitude = {"method": "magnitude", "train": {"epochs": 5, "learning_rate": 0.1}}
    implied, written = load_recipe(recipe(magnitude, {**magnitude, "fine_tune": {"epochs": 1}})).prune_recipes()
    assert implied.fine_tune == msgspec.structs.replace(implied.train, epochs=3, learning_rate=0.01)
    assert written.fine_tune is not None
    assert (written.fine_tune.epochs, written.fine_tune.learning_rate) == (1, 0.01)


def test_where_nothing_can_be_trained_the_epochs_are_zero() -> None:
    without_data = single_run(None, "resnet-50", method="magnitude", sparsity=0.9)
    onnx = single_run(None, "net.onnx", method="magnitude", sparsity=0.9, data="digits")
    for full in (without_data, onnx):
        assert full.fine_tune is not None
        assert (full.train.epochs, full.fine_tune.epochs) == (0, 0)
    with pytest.raises(UsageError, match="training needs data"):
        single_run(None, "resnet-50", method="magnitude", sparsity=0.9, epochs=2)
    with pytest.raises(UsageError, match="an ONNX file cannot be trained"):
        single_run(None, "net.onnx", method="magnitude", sparsity=0.9, epochs=2)


def test_weights_that_the_user_brings_are_not_trained_before_they_are_pruned() -> None:
    full = single_run(
        None, "net.py:build", method="magnitude", sparsity=0.9, data="digits", weights=Path("w.safetensors")
    )
    assert full.fine_tune is not None
    assert (full.train.epochs, full.fine_tune.epochs, full.init) == (0, 10, None)


def test_methods_that_need_more_than_weights_refuse_onnx_and_missing_data() -> None:
    with pytest.raises(UnsupportedError, match=r"gives weights only\. Methods that work on it: .*magnitude"):
        single_run(None, "net.onnx", method="snip", sparsity=0.9, data="digits")
    with pytest.raises(UsageError, match="method 'rigl' needs data"):
        single_run(None, "lenet-300-100", method="rigl", sparsity=0.9)


def test_only_zoo_models_are_drawn_from_the_seed_unasked() -> None:
    inits = {
        model: single_run(None, model, method="freezenet", sparsity=0.9, data="digits").init
        for model in ("lenet-300-100", "net.py:build", "package.net:build")
    }
    assert inits == {"lenet-300-100": "uniform", "net.py:build": None, "package.net:build": None}
    asked = single_run(None, "net.py:build", method="freezenet", sparsity=0.9, data="digits", init="constant")
    assert asked.init == "constant"


def test_resolving_makes_everything_explicit_and_is_idempotent() -> None:
    loaded = load_recipe(recipe({}, {"method": "dense", "sparsity": None}, {"method": "magnitude"}))
    resolved = resolve(loaded)
    assert resolve(resolved) == resolved
    assert resolved.prune_recipes() == loaded.prune_recipes()
    assert all(run.structure and run.allocation and run.schedule and run.train for run in resolved.runs)


def test_a_recipe_file_s_paths_are_relative_to_its_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = tmp_path / "examples"
    folder.mkdir()
    file = folder / "r.yaml"
    file.write_text(
        "version: 1\nmodel: net.py:build\nweights: w.safetensors\ndata: npz:../d.npz\n"
        "runs: [{name: a, method: snip, sparsity: 0.9}]\n"
    )
    monkeypatch.chdir(tmp_path)
    loaded = load_recipe(Path("examples/r.yaml"))
    assert (loaded.model, loaded.weights, loaded.data) == (
        "examples/net.py:build",
        "examples/w.safetensors",
        "npz:d.npz",
    )


def test_the_echo_is_a_recipe_of_the_same_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    full = single_run(None, "nets/net.py:build", data="folder:pictures", method="lottery-ticket", sparsity=0.75, seed=7)
    run = Path("out/a")
    run.mkdir(parents=True)
    (run / "recipe.yaml").write_text(recipe_text(full, run))
    assert single_run(run / "recipe.yaml", None) == full
    absolute = load_recipe(tmp_path / run / "recipe.yaml").model
    assert Path(absolute.rpartition(":")[0]) == tmp_path / "nets/net.py"


def test_command_line_options_win_over_the_recipe(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(
        "version: 1\nmodel: resnet-20\ndata: digits\nseed: 5\ntrain: {epochs: 9, batch_size: 8}\n"
        "runs: [{name: a, method: rigl, sparsity: 0.9, options: {update_interval: 7}}]\n"
    )
    full = single_run(
        file,
        None,
        epochs=0,
        seed=0,
        sparsity=0.5,
        method_options=("drop_fraction=0.1",),
        exclude=("fc*",),
        keep_alive=False,
    )
    assert (full.model, full.sparsity, full.train.epochs, full.train.batch_size) == ("resnet-20", 0.5, 0, 8)
    assert full.seed == 0
    assert (full.options["update_interval"], full.options["drop_fraction"]) == (7, 0.1)
    assert full.exclude == ["fc*"]


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "snip"}, "no model is given"),
        ({"model": "lenet-300-100"}, "no method is given"),
        ({"model": "lenet-300-100", "method": "snip", "method_options": ("batches",)}, "written KEY=VALUE"),
    ],
)
def test_an_incomplete_command_line_is_a_usage_error(options: dict[str, Any], message: str) -> None:
    with pytest.raises(UsageError, match=message):
        single_run(None, options.pop("model", None), **options)


def test_a_recipe_with_several_runs_is_not_one_run(tmp_path: Path) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(to_yaml(recipe({}, {})))
    with pytest.raises(UsageError, match="has 2 runs; use 'compress run'"):
        single_run(file, None)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: 1\na: 2\n", "line 2, column 1: key 'a' is given twice"),
        ("a: [1\n", "r.yaml, line 2, column 1: did not find"),
        ("1: x\n", "a key is not a name"),
        ("a: !!python/object/apply:os.getcwd []\n", "could not determine a constructor"),
    ],
)
def test_broken_yaml_is_placed(tmp_path: Path, text: str, message: str) -> None:
    file = tmp_path / "r.yaml"
    file.write_text(text)
    with pytest.raises(RecipeError, match=message):
        load_recipe(file)


def test_an_unreadable_recipe_is_one_clear_line(tmp_path: Path) -> None:
    with pytest.raises(RecipeError, match=r"cannot read the recipe .*none\.yaml: No such file"):
        load_recipe(tmp_path / "none.yaml")
    binary = tmp_path / "b.yaml"
    binary.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(RecipeError, match="it is not UTF-8 text"):
        load_recipe(binary)


def test_scalars_mean_what_they_look_like() -> None:
    text = "structure: 2:4\nrate: 1e-3\nname: no\ndate: 2024-01-01\nbase: &b {x: 1}\nmore: {<<: *b, x: 2}\n"
    assert parse_yaml(text, "t") == {
        "structure": "2:4",
        "rate": 0.001,
        "name": "no",
        "date": "2024-01-01",
        "base": {"x": 1},
        "more": {"x": 2},
    }


_scalars = st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text("ab:2 4-~.e", max_size=6)


@pytest.mark.parametrize(
    "text", ["2e2", "", "null", "1", "0x1f", ".5", "true", "<<", "2:4", "no", "-.inf", "1_0", "a: b"]
)
def test_text_that_looks_like_something_else_stays_text(text: str) -> None:
    assert parse_yaml(to_yaml({"key": text}), "here") == {"key": text}


@given(st.dictionaries(st.text("abc", min_size=1), st.recursive(_scalars, lambda v: st.lists(v, max_size=3))))
def test_written_yaml_reads_back_unchanged(value: dict[str, Any]) -> None:
    assert parse_yaml(to_yaml(value), "t") == value
