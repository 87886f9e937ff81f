"""Several tasks in one random network (SupSup; methods 6.8): masks that do not disturb each other, tasks inferred."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.func import functional_call

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.task_inference import entropy_gradient, for_task, infer_task, superposed, tasks_of
from sparsepack.compressor.training.tape import INITIAL, Tape
from sparsepack.compressor.training.views import permuted_pixels, split_classes
from sparsepack.errors import UnknownNameError, UsageError
from sparsepack.models.data import Dataset, load_data, make_dataset
from sparsepack.models.source import TorchSource, source_from_record
from sparsepack.models.tensors import to_torch

NAMES = ("0.weight", "2.weight")


def layers() -> Any:
    torch.manual_seed(2)
    return nn.Sequential(nn.Linear(5, 16), nn.ReLU(), nn.Linear(16, 4)).double()


def masks_of(count: int) -> list[dict[str, torch.Tensor]]:
    module = layers()
    return [{name: torch.rand(module.get_parameter(name).shape) < 0.5 for name in NAMES} for _ in range(count)]


def initial_of(module: nn.Module) -> dict[str, torch.Tensor]:
    return {name: module.get_parameter(name).detach() for name in NAMES}


def images() -> Dataset:
    random = np.random.default_rng(0)
    pixels = random.integers(0, 256, (40, 3, 4, 5)).astype(np.uint8)
    labels = np.arange(40) % 5
    return make_dataset("images", pixels, labels, pixels[:10], labels[:10])


def test_one_coefficient_alone_is_that_mask_alone() -> None:
    module = layers()
    masks, initial = masks_of(3), initial_of(module)
    inputs = torch.randn(7, 5, dtype=torch.float64)
    for number in range(3):
        coefficients = torch.eye(3, dtype=torch.float64)[number]
        together = functional_call(module, superposed(initial, masks, coefficients), (inputs,))
        alone = functional_call(module, {name: initial[name] * masks[number][name] for name in NAMES}, (inputs,))
        assert torch.equal(together, alone)


def test_the_derivative_of_entropy_by_finite_differences() -> None:
    module = layers()
    masks, initial = masks_of(3), initial_of(module)
    inputs = torch.randn(9, 5, dtype=torch.float64)

    def entropy(coefficients: torch.Tensor) -> float:
        logits = functional_call(module, superposed(initial, masks, coefficients), (inputs,))
        chances = torch.softmax(logits.detach(), 1).numpy()
        return float(-(chances * np.log(chances)).sum(axis=1).mean())

    at = torch.tensor([0.2, 0.5, 0.3], dtype=torch.float64)
    found = entropy_gradient(module, initial, masks, at, inputs)
    for number in range(3):
        step = 1e-6 * torch.eye(3, dtype=torch.float64)[number]
        slope = (entropy(at + step) - entropy(at - step)) / 2e-6
        assert float(found[number]) == pytest.approx(slope, rel=1e-5, abs=1e-9)


def test_what_cannot_be_inferred_is_said() -> None:
    module = layers()
    with pytest.raises(UnknownNameError, match="one-shot"):
        infer_task(module, initial_of(module), masks_of(2), torch.zeros(1, 5), "oneshot")
    with pytest.raises(UsageError, match="no masks"):
        infer_task(module, initial_of(module), [], torch.zeros(1, 5))
    assert infer_task(module, initial_of(module), masks_of(1), torch.zeros(1, 5)) == 0


def test_permuted_pixels_move_places_alike_in_both_splits_and_keep_channels_together() -> None:
    data = images()
    assert permuted_pixels(data, 1, 0, 3) is data
    view = permuted_pixels(data, 1, 2, 3)
    assert view.train_inputs.shape == data.train_inputs.shape
    before, after = data.train_inputs.reshape(40, 3, 20), view.train_inputs.reshape(40, 3, 20)
    # Places are told apart by what all images have there.
    columns = {before[:, :, place].tobytes(): place for place in range(20)}
    order = [columns[after[:, :, place].tobytes()] for place in range(20)]
    assert sorted(order) == list(range(20)) != order
    assert np.array_equal(view.test_inputs.reshape(10, 3, 20), data.test_inputs.reshape(10, 3, 20)[:, :, order])
    assert np.array_equal(view.train_labels, data.train_labels)
    assert not np.array_equal(view.train_inputs, permuted_pixels(data, 1, 1, 3).train_inputs)


def test_vectors_are_permuted_by_entry() -> None:
    data = make_dataset("vectors", np.eye(6, dtype=np.float32), np.arange(6), np.eye(6, dtype=np.float32), np.arange(6))
    view = permuted_pixels(data, 1, 1, 2)
    assert (view.train_inputs.sum(axis=0) == 1).all()
    assert np.array_equal(view.train_inputs, view.test_inputs)
    assert not np.array_equal(view.train_inputs, data.train_inputs)


def test_split_classes_are_a_partition() -> None:
    data = images()
    parts = [split_classes(data, 1, task, 2) for task in range(2)]
    assert [sorted(set(part.train_labels.tolist())) for part in parts] == [[0, 1, 2], [3, 4]]
    assert sum(len(part.train_labels) for part in parts) == 40
    assert all(len(part.test_inputs) == len(part.test_labels) > 0 for part in parts)
    with pytest.raises(UsageError, match="5 classes, which cannot be split into 6 tasks"):
        split_classes(data, 1, 0, 6)


def supsup(tmp_path: Path, tasks: int, **options: Any) -> tuple[Any, Tape]:
    model = options.pop("model", "lenet-300-100")
    method_options = (f"tasks={tasks}", *(f"{key}={value}" for key, value in options.pop("method", {}).items()))
    wanted = {"method": "supsup", "data": "digits", "sparsity": 0.5, "epochs": 4, "threads": 1, "seed": 3, **options}
    recipe = single_run(None, model, **wanted, method_options=method_options)
    return prune(recipe, tmp_path / f"run{tasks}"), Tape(tmp_path / f"run{tasks}" / "tape")


def test_a_later_task_leaves_an_earlier_one_as_it_is(tmp_path: Path) -> None:
    alone, _ = supsup(tmp_path, 1, epochs=2)
    first, tape = supsup(tmp_path, 3, epochs=2)
    # The first task computes, bit for bit as if it had been the only one.
    for (name, left), right in zip(alone.dense_state().items(), first.dense_state().values(), strict=True):
        assert np.array_equal(left, right), name
    masks = [tape.read(f"task-{task}") for task in range(3)]
    assert all(np.array_equal(masks[0][name].astype(bool), first.tensors[name].mask) for name in masks[0])
    assert all((masks[0][name] != masks[1][name]).any() for name in masks[0])


def test_running_statistics_are_those_of_the_first_task(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 32), nn.BatchNorm1d(32), nn.ReLU(), nn.Linear(32, 10))\n"
    )
    options: dict[str, Any] = {"model": f"{tmp_path / 'net.py'}:build", "init": "signed-constant", "epochs": 1}
    alone, _ = supsup(tmp_path, 1, **options)
    first, _ = supsup(tmp_path, 2, **options)
    for (name, left), right in zip(alone.dense_state().items(), first.dense_state().values(), strict=True):
        assert np.array_equal(left, right), name


class KilledError(Exception):
    pass


class Kill:
    """Progress that stops the run after a number of steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def stage(self, title: str, total: int | None = None) -> None:
        pass

    def advance(self, steps: int = 1) -> None:
        self.left -= 1
        if self.left == 0:
            raise KilledError


def test_a_run_that_was_killed_in_every_task_ends_in_the_same_bytes(tmp_path: Path) -> None:
    asked: dict[str, Any] = {"method": "supsup", "data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1}
    recipe = single_run(None, "lenet-300-100", method_options=("tasks=2",), **asked)
    prune(recipe, tmp_path / "whole")
    kills = 0
    for _ in range(20):
        try:
            prune(recipe, tmp_path / "killed", progress=Kill(9), snapshot_seconds=0.0)
            break
        except KilledError:
            kills += 1
    assert kills > 2
    whole, killed = (tmp_path / name / "checkpoint.safetensors" for name in ("whole", "killed"))
    assert whole.read_bytes() == killed.read_bytes()


def test_the_task_of_a_batch_is_found_without_its_labels(tmp_path: Path) -> None:
    checkpoint, _ = supsup(tmp_path, 4)
    module = network_of(checkpoint)
    initial, masks = tasks_of(checkpoint)
    data = load_data("digits")
    assert data is not None
    for task in range(4):
        inputs, labels = permuted_pixels(data, 3, task, 4).test()
        for way in ("one-shot", "binary"):
            found = [infer_task(module, initial, masks, inputs[begin : begin + 40], way) for begin in range(0, 360, 40)]
            assert found.count(task) >= 8, (task, way, found)
        outputs = network_of(for_task(checkpoint, task))(inputs)
        assert float((outputs.argmax(1) == labels).float().mean()) > 0.9


def network_of(checkpoint: SparseCheckpoint) -> nn.Module:
    source = source_from_record(checkpoint.metadata.model)
    assert isinstance(source, TorchSource)
    module = source.build().eval()
    module.load_state_dict({name: to_torch(array) for name, array in checkpoint.dense_state().items()})
    return module


@pytest.mark.parametrize("init", ["signed-constant", "kaiming-normal"])
def test_the_network_of_another_task_is_the_same_file_with_another_number(tmp_path: Path, init: str) -> None:
    checkpoint, tape = supsup(tmp_path, 3, epochs=1, init=init)
    recorded = tape.read(INITIAL)
    initial, masks = tasks_of(checkpoint)
    assert len(masks) == 3
    for task in range(3):
        for_task(checkpoint, task).save(tmp_path / f"{task}.safetensors")
        loaded = SparseCheckpoint.load(tmp_path / f"{task}.safetensors")
        loaded.verify()
        for name, mask in tape.read(f"task-{task}").items():
            assert np.array_equal(loaded.tensors[name].dense(), np.where(mask, recorded[name], np.float32(0)))
            assert np.array_equal(masks[task][name].numpy(), mask.astype(bool))
            assert np.array_equal(initial[name].numpy(), recorded[name])
    with pytest.raises(UsageError, match="no task 3: the checkpoint holds 3, the first of which is 0"):
        for_task(checkpoint, 3)


def test_a_checkpoint_of_one_task_says_that_it_is(tmp_path: Path) -> None:
    recipe = single_run(None, "lenet-300-100", method="edge-popup", data="digits", sparsity=0.5, epochs=0, threads=1)
    checkpoint = prune(recipe, tmp_path / "run")
    for ask in (tasks_of, lambda one: for_task(one, 0)):
        with pytest.raises(UsageError, match="one network, not a mask for each of several tasks"):
            ask(checkpoint)
