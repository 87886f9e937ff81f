"""The pipeline from recipe to checkpoint: scores against independent computation, and what a RUN folder holds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.utils.prune as reference
from torch import nn

from sparsepack.compressor import pipeline
from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe, single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.errors import (
    DataError,
    ModelError,
    OutputExistsError,
    SparsepackError,
    UnknownNameError,
    UnsupportedError,
    UsageError,
)

CPU = torch.device("cpu")


def run_of(model: str = "lenet-300-100", **options: Any) -> PruneRecipe:
    wanted = {"method": "magnitude", "data": "digits", "sparsity": 0.9, "epochs": 1, "threads": 1, **options}
    return single_run(None, model, **wanted)


def masked(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def factory(folder: Path, body: str) -> str:
    (folder / "net.py").write_text(f"import torch\nfrom torch import nn\n\n\ndef build():\n    return {body}\n")
    return f"{folder / 'net.py'}:build"


def test_one_shot_magnitude_is_torch_s_global_pruning_of_the_trained_network(tmp_path: Path) -> None:
    dense = prune(run_of(method="dense", sparsity=None), tmp_path / "dense")
    pruned = prune(run_of(fine_tune_epochs=0), tmp_path / "pruned")
    layers = nn.ModuleDict()
    for name, array in dense.dense_state().items():
        if name.endswith("weight"):
            layer: Any = nn.Linear(array.shape[1], array.shape[0], bias=False)
            layer.weight.data = torch.from_numpy(array)
            layers[name.removesuffix(".weight")] = layer
    pairs = [(layer, "weight") for layer in layers.values()]
    reference.global_unstructured(pairs, pruning_method=reference.L1Unstructured, amount=0.9)
    for name, mask in masked(pruned).items():
        layer = layers[name.removesuffix(".weight")]
        np.testing.assert_array_equal(mask, layer.weight_mask.numpy().astype(bool))
        np.testing.assert_array_equal(pruned.tensors[name].dense(), layer.weight.detach().numpy())
    for name in ("fc1.bias", "fc2.bias", "fc3.bias"):
        np.testing.assert_array_equal(pruned.tensors[name].dense(), dense.tensors[name].dense())


def test_fine_tuning_trains_the_kept_weights_only(tmp_path: Path) -> None:
    before = prune(run_of(fine_tune_epochs=0), tmp_path / "before")
    after = prune(run_of(fine_tune_epochs=1), tmp_path / "after")
    for name, mask in masked(after).items():
        np.testing.assert_array_equal(mask, before.tensors[name].mask)
        assert not after.tensors[name].dense()[~mask].any()
        assert np.mean(after.tensors[name].dense()[mask] != before.tensors[name].dense()[mask]) > 0.99


def test_rounds_remove_the_same_share_each_time(tmp_path: Path) -> None:
    prune(run_of(schedule="iterative", rounds=3, sparsity=0.875, epochs=0), tmp_path / "run")
    events = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [event["kept"] for event in events if event["event"] == "mask"] == [25100, 12550, 6275]


def test_excluded_tensors_are_neither_pruned_nor_counted(tmp_path: Path) -> None:
    checkpoint = prune(run_of(exclude=("fc3*",), epochs=0), tmp_path / "run")
    assert set(masked(checkpoint)) == {"fc1.weight", "fc2.weight"}
    assert sum(int(mask.sum()) for mask in masked(checkpoint).values()) == 4920
    record = checkpoint.tensors["fc3.weight"].record
    assert (record.role, record.masked) == ("prunable", False)


def test_a_collapsed_layer_is_named_and_keep_alive_prevents_it(tmp_path: Path) -> None:
    model = factory(tmp_path, "nn.Sequential(nn.Flatten(), nn.Linear(64, 30), nn.ReLU(), nn.Linear(30, 10))")
    # Magnitudes of the first layer are drawn in (-1/8, 1/8), those of the second in (-0.183, 0.183).
    options = {"init": "uniform", "sparsity": 0.999, "epochs": 0}
    collapsed = prune(run_of(model, **options), tmp_path / "collapsed")
    alive = prune(run_of(model, keep_alive=True, **options), tmp_path / "alive")
    assert [int(mask.sum()) for mask in masked(collapsed).values()] == [0, 2]
    assert collapsed.metadata.warnings == [
        "layer '1.weight' keeps no weight, so nothing flows through it; a lower sparsity or keep_alive prevents that."
    ]
    assert [int(mask.sum()) for mask in masked(alive).values()] == [1, 1]
    assert alive.metadata.warnings == []


def test_densities_by_layer_imply_the_sparsity(tmp_path: Path) -> None:
    recipe = load_recipe(
        {
            "version": 1,
            "model": "lenet-300-100",
            "data": "digits",
            "threads": 1,
            "train": {"epochs": 1},
            "runs": [{"name": "a", "method": "snip", "allocation": {"fc1.weight": 0.1, "fc*": 0.5}}],
        }
    ).prune_recipes()[0]
    assert recipe.sparsity is None
    checkpoint = prune(recipe, tmp_path / "run")
    assert [int(mask.sum()) for mask in masked(checkpoint).values()] == [1920, 15000, 500]


def test_tied_tensors_are_stored_once(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n\n\nclass Tied(nn.Module):\n    def __init__(self):\n        super().__init__()\n"
        "        self.first, self.second, self.head = nn.Linear(64, 64), nn.Linear(64, 64), nn.Linear(64, 10)\n"
        "        self.second.weight = self.first.weight\n\n    def forward(self, x):\n"
        "        return self.head(self.second(self.first(x.flatten(1)).relu()).relu())\n"
    )
    recipe = run_of(f"{tmp_path / 'net.py'}:Tied", sparsity=0.5)
    checkpoint = prune(recipe, tmp_path / "run")
    assert checkpoint.tensors["second.weight"].record.alias_of == "first.weight"
    again = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    again.verify()
    state = again.dense_state()
    np.testing.assert_array_equal(state["first.weight"], state["second.weight"])


def test_the_checkpoint_says_where_it_came_from(tmp_path: Path) -> None:
    checkpoint = prune(run_of(seed=5), tmp_path / "run")
    metadata = checkpoint.metadata
    assert metadata.model.text == "lenet-300-100"
    assert metadata.chain is not None
    assert [step["op"] for step in metadata.chain].count("linear") == 3
    assert metadata.provenance.seed == 5
    assert (metadata.provenance.threads, metadata.provenance.device) == (1, "cpu")
    assert metadata.provenance.versions["torch"] == str(torch.__version__)
    assert metadata.recipe["fine_tune"]["epochs"] == 1
    assert metadata.recipe["options"]["rate"] == 0.2
    roles = {name: tensor.record.role for name, tensor in checkpoint.tensors.items()}
    assert roles == {
        f"fc{i}.{kind}": role for i in (1, 2, 3) for kind, role in (("weight", "prunable"), ("bias", "parameter"))
    }
    log = [json.loads(line) for line in (tmp_path / "run" / "log.jsonl").read_text().splitlines()]
    assert [(event["event"], event["stage"]) for event in log] == [
        ("epoch", "training"),
        ("stage", "training"),
        ("mask", "mask"),
        ("epoch", "fine-tuning"),
        ("stage", "fine-tuning"),
    ]
    assert 0.8 < log[1]["accuracy"] <= 1


def test_statistics_are_buffers_and_integers_survive(tmp_path: Path) -> None:
    checkpoint = prune(run_of("resnet-20", data="none", epochs=None, method="magnitude"), tmp_path / "run")
    counters = [t for n, t in checkpoint.tensors.items() if n.endswith("num_batches_tracked")]
    assert counters
    assert all((t.record.role, t.record.dtype, t.record.shape) == ("buffer", "int64", ()) for t in counters)
    assert checkpoint.metadata.training is None


def test_the_same_recipe_gives_the_same_bytes_from_any_folder(tmp_path: Path) -> None:
    recipe = run_of(method="rigl", seed=3)
    files = []
    for name in ("a", "b/c"):
        prune(recipe, tmp_path / name)
        files.append((tmp_path / name / "checkpoint.safetensors").read_bytes())
    assert files[0] == files[1]
    other = prune(run_of(method="rigl", seed=4), tmp_path / "other")
    assert (tmp_path / "other" / "checkpoint.safetensors").read_bytes() != files[0]
    assert other.metadata.provenance.seed == 4


def test_the_echoed_recipe_gives_the_same_checkpoint(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    factory(tmp_path, "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))")
    prune(run_of("net.py:build"), Path("runs/first"))
    prune(single_run(Path("runs/first/recipe.yaml"), None), Path("second"))
    first, second = (Path(run) / "checkpoint.safetensors" for run in ("runs/first", "second"))
    assert first.read_bytes() == second.read_bytes()


def test_a_finished_run_is_opened_and_not_repeated(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    recipe = run_of()
    first = prune(recipe, tmp_path / "run")

    def forbidden(*arguments: object) -> None:
        raise AssertionError("a finished run needs no model")

    monkeypatch.setattr(pipeline, "_prepare", forbidden)
    assert prune(recipe, tmp_path / "run").metadata == first.metadata
    with pytest.raises(OutputExistsError, match="holds the run of another recipe or model"):
        prune(run_of(sparsity=0.8), tmp_path / "run")


def test_opening_a_finished_run_loads_no_framework(tmp_path: Path) -> None:
    prune(run_of(), tmp_path / "run")
    code = (
        "import sys\nfrom pathlib import Path\n"
        "from sparsepack.compressor.pipeline import prune\nfrom sparsepack.compressor.recipe import single_run\n"
        f"prune(single_run(Path({str(tmp_path / 'run' / 'recipe.yaml')!r}), None), Path({str(tmp_path / 'run')!r}))\n"
        "assert not {'torch', 'onnx', 'onnxruntime'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_changed_model_file_is_another_run(tmp_path: Path) -> None:
    model = factory(tmp_path, "nn.Sequential(nn.Flatten(), nn.Linear(64, 10))")
    prune(run_of(model), tmp_path / "run")
    factory(tmp_path, "nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.Linear(20, 10))")
    with pytest.raises(OutputExistsError, match="another recipe or model"):
        prune(run_of(model), tmp_path / "run")
    assert len(prune(run_of(model), tmp_path / "run", force=True).tensors) == 4


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"model": "lenet-300"}, UnknownNameError, "unknown model 'lenet-300'. Did you mean 'lenet-300-100'"),
        ({"data": "digit"}, UnknownNameError, "unknown data 'digit'. Did you mean 'digits'"),
        ({"model": "nowhere.py:build"}, ModelError, "nowhere.py"),
        ({"exclude": ("fc9*",)}, UsageError, r"'fc9\*' matches no prunable tensor"),
        (
            {"structure": "7:13", "sparsity": 1 - 7 / 13},
            UnsupportedError,
            "no tensor can be pruned with structure 7:13",
        ),
        ({"init": "orthogonl"}, UnknownNameError, "unknown initialiser"),
    ],
)
def test_bad_input_is_one_clear_line_and_leaves_no_trace(
    tmp_path: Path, options: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        prune(run_of(**options), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_data_that_does_not_fit_the_model_is_refused(tmp_path: Path) -> None:
    np.savez(
        tmp_path / "d.npz",
        x_train=np.zeros((4, 7), np.float32),
        y_train=np.arange(4),
        x_test=np.zeros((2, 7), np.float32),
        y_test=np.arange(2),
    )
    (tmp_path / "net.py").write_text(
        "import torch\nfrom torch import nn\n\n\ndef build():\n    return nn.Linear(9, 4), (torch.zeros(2, 9),)\n"
    )
    with pytest.raises((DataError, ModelError)):
        prune(run_of(f"{tmp_path / 'net.py'}:build", data=f"npz:{tmp_path / 'd.npz'}"), tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_a_folder_that_cannot_be_written_is_one_clear_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(SparsepackError, match=r"cannot write .*: Not a directory\."):
        prune(run_of(), tmp_path / "file" / "run")


def test_progress_hears_of_every_stage_and_step(tmp_path: Path) -> None:
    class Heard:
        def __init__(self) -> None:
            self.stages: list[list[Any]] = []

        def stage(self, title: str, total: int | None = None) -> None:
            self.stages.append([title, total, 0])

        def advance(self, steps: int = 1) -> None:
            self.stages[-1][2] += steps

    heard = Heard()
    prune(
        run_of(method="lottery-ticket", sparsity=0.36, method_options=("rewind_step=3",)),
        tmp_path / "run",
        progress=heard,
    )
    assert heard.stages == [
        ["training", 23, 23],
        ["mask 1/2", None, 0],
        ["retraining 1/2", 20, 20],
        ["mask 2/2", None, 0],
        ["retraining 2/2", 20, 20],
    ]


def test_available_cores_are_those_that_the_process_may_use() -> None:
    cores = pipeline.available_cores()
    assert 1 <= cores <= (os.cpu_count() or 1)
