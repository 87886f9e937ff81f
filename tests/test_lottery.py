"""Lottery tickets (methods 3.1, 3.2, 9.4): levels, nested masks, and rewinding to the bit."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.masked_network import MaskedNetwork
from sparsepack.compressor.methods import find_method
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.plans import Record, Rewind, Select, Train, make_plan
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.tape import Tape
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.compressor.training.weights import state_arrays
from sparsepack.errors import FileFormatError, HashMismatchError, UsageError
from sparsepack.models.data import load_data
from sparsepack.models.source import TorchSource, load_source

WITH_NORMS = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))\n"
)


def ticket(model: str = "lenet-300-100", **options: Any) -> PruneRecipe:
    wanted = {"method": "lottery-ticket", "data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1, **options}
    return single_run(None, model, **wanted)


def events(run: Path, kind: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == kind]


def masks_of(checkpoint: SparseCheckpoint) -> dict[str, np.ndarray]:
    return {name: tensor.mask for name, tensor in checkpoint.tensors.items() if tensor.mask is not None}


def test_the_levels_are_the_paper_s(tmp_path: Path) -> None:
    prune(ticket(sparsity=1 - 0.8**20, epochs=0), tmp_path / "run")
    kept = [100 * event["kept"] / event["total"] for event in events(tmp_path / "run", "mask")]
    paper = [80, 64, 51.2, 41, 32.8, 26.2, 21, 16.8, 13.4, 10.7, 8.6, 6.9, 5.5, 4.4, 3.5, 2.8, 2.3, 1.8, 1.4, 1.2]
    assert kept == pytest.approx(paper, abs=0.06)


@pytest.mark.parametrize(("sparsity", "trainings"), [(0.9, 12), (0.95, 15), (0.99, 22)])
def test_the_number_of_trainings(sparsity: float, trainings: int) -> None:
    plan = make_plan(ticket(sparsity=sparsity), find_method("lottery-ticket"), sparsity)
    assert sum(isinstance(stage, Train) for stage in plan) == trainings


def test_one_round_is_two_trainings_and_a_rewind() -> None:
    recipe = ticket(schedule="one-shot", method_options=("rewind_step=3",))
    plan = make_plan(recipe, find_method("lottery-ticket"), 0.5)
    assert [type(stage) for stage in plan] == [Train, Select, Rewind, Train]
    first, _, rewind, last = plan
    assert isinstance(first, Train)
    assert isinstance(last, Train)
    assert isinstance(rewind, Rewind)
    assert (first.record_step, first.first_step, rewind.label, last.first_step) == (3, 0, "step-3", 3)
    assert isinstance(make_plan(ticket(), find_method("lottery-ticket"), 0.5)[0], Record)


@pytest.mark.parametrize("step", [0, 5])
def test_masks_are_nested_and_a_rewind_restores_every_survivor_norm_and_statistic(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, step: int
) -> None:
    (tmp_path / "net.py").write_text(WITH_NORMS)
    seen: list[dict[str, np.ndarray]] = []
    rewind = MaskedNetwork._rewind

    def checked(network: MaskedNetwork, stage: Rewind) -> None:
        trained = {name: array.copy() for name, array in state_arrays(network.module).items()}
        rewind(network, stage)
        early = Tape(tmp_path / "run" / "tape").read("initial" if step == 0 else "step-5")
        for name, array in state_arrays(network.module).items():
            mask = network.masks.get(name, np.ones(array.shape, np.bool_))
            assert array[mask].tobytes() == early[name][mask].tobytes()
            assert not array[~mask].any()
            assert not np.array_equal(array, trained[name])
        seen.append({name: mask.copy() for name, mask in network.masks.items()})

    monkeypatch.setattr(MaskedNetwork, "_rewind", checked)
    model = f"{tmp_path / 'net.py'}:build"
    prune(ticket(model, init="uniform", sparsity=0.6, method_options=(f"rewind_step={step}",)), tmp_path / "run")
    assert len(seen) == 5
    for earlier, later in pairwise(seen):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)


def test_the_recorded_step_is_the_state_of_the_training_at_that_step(tmp_path: Path) -> None:
    recipe = ticket(schedule="one-shot", method_options=("rewind_step=7",))
    prune(recipe, tmp_path / "run")
    dense = prune(ticket(method="dense", sparsity=None, epochs=0), tmp_path / "dense")
    data = load_data("digits")
    assert data is not None
    source = load_source("lenet-300-100", options=data.model_options, inputs=[data.input_spec])
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in dense.dense_state().items()})
    found: dict[str, np.ndarray] = {}

    class Look:
        def after_step(self, trainer: Trainer) -> None:
            if trainer.step == 7:
                found.update({name: array.copy() for name, array in state_arrays(trainer.module).items()})

        def after_epoch(self, trainer: Trainer, figures: object) -> None:
            pass

    torch.set_num_threads(1)
    Trainer(module, data, recipe.train, Dynamics(module), seed=0, device=torch.device("cpu")).run(Look())
    tape = Tape(tmp_path / "run" / "tape").read("step-7")
    assert found.keys() == tape.keys()
    for name, array in tape.items():
        np.testing.assert_array_equal(array, found[name])


def test_without_training_it_is_magnitude_at_initialisation(tmp_path: Path) -> None:
    lottery = prune(ticket(sparsity=0.9, epochs=0), tmp_path / "lottery")
    magnitude = prune(ticket(method="magnitude", sparsity=0.9, epochs=0), tmp_path / "magnitude")
    for name, mask in masks_of(lottery).items():
        np.testing.assert_array_equal(mask, magnitude.tensors[name].mask)
        np.testing.assert_array_equal(lottery.tensors[name].values, magnitude.tensors[name].values)
        early = Tape(tmp_path / "lottery" / "tape").read("initial")
        np.testing.assert_array_equal(lottery.tensors[name].values, early[name][mask])


@pytest.mark.parametrize("step", [0, 11])
def test_with_nothing_pruned_retraining_repeats_the_training(tmp_path: Path, step: int) -> None:
    # Momentum starts anew after a rewind, so only without it does a late rewind repeat the training to the bit.
    (tmp_path / "r.yaml").write_text(
        "version: 1\nmodel: lenet-300-100\ndata: digits\ntrain: {epochs: 2, momentum: 0.0}\nthreads: 1\n"
        "runs: [{name: a, method: dense}]\n"
    )
    dense = prune(single_run(tmp_path / "r.yaml", None), tmp_path / "dense")
    options = {"method": "lottery-ticket", "sparsity": 1e-9, "method_options": (f"rewind_step={step}",)}
    again = prune(single_run(tmp_path / "r.yaml", None, schedule="one-shot", **options), tmp_path / "lottery")
    for name, array in dense.dense_state().items():
        np.testing.assert_array_equal(again.tensors[name].dense(), array)


def test_rewinding_to_the_end_is_pruning_after_training(tmp_path: Path) -> None:
    # 1,437 digits in batches of 64 are 23 steps.
    late = prune(ticket(schedule="one-shot", method_options=("rewind_step=23",)), tmp_path / "late")
    after = prune(ticket(method="magnitude", fine_tune_epochs=0), tmp_path / "after")
    for name, array in after.dense_state().items():
        np.testing.assert_array_equal(late.tensors[name].dense(), array)


def test_a_step_after_the_training_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="rewind_step is 24, and the training has only 23 steps"):
        prune(ticket(method_options=("rewind_step=24",)), tmp_path / "run")
    with pytest.raises(UsageError, match="rewind_step is 2, and there is no training to take that step"):
        prune(ticket(method_options=("rewind_step=2",), epochs=0), tmp_path / "run")


def test_layer_wise_tickets_remove_the_same_share_of_every_layer(tmp_path: Path) -> None:
    checkpoint = prune(ticket(sparsity=0.488, allocation="uniform"), tmp_path / "run")
    for mask in masks_of(checkpoint).values():
        assert abs(int(mask.sum()) - 0.512 * mask.size) <= 1


def test_whole_trainings_are_the_cost_of_the_search(tmp_path: Path) -> None:
    checkpoint = prune(ticket(sparsity=0.36), tmp_path / "run")
    dense = 2 * (64 * 300 + 300 * 100 + 100 * 10)
    cost = checkpoint.metadata.training
    assert cost is not None
    first, second = (event["kept"] for event in events(tmp_path / "run", "mask"))
    assert (first, second) == (40160, 32128)
    # Of the two trainings before the last, the first is dense; a step is three times the forward pass.
    assert cost.mask_search_flops > 1437 * 3 * dense
    assert cost.training_flops < 1437 * 3 * dense
    assert cost.trained_parameters == second + 410


def test_a_tape_that_was_changed_is_noticed(tmp_path: Path) -> None:
    tape = Tape(tmp_path)
    tape.record("initial", {"w": np.arange(6, dtype=np.float32)})
    np.testing.assert_array_equal(tape.read("initial")["w"], np.arange(6))
    content = bytearray(tape.path("initial").read_bytes())
    content[-3] ^= 1
    tape.path("initial").write_bytes(content)
    with pytest.raises(HashMismatchError, match="is corrupt: its tensors are not those that were written"):
        tape.read("initial")
    tape.path("initial").write_bytes(content[:-1])
    with pytest.raises(FileFormatError, match="truncated"):
        tape.read("initial")
