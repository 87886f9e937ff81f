"""Tickets found with less (methods 3.6, 3.7): when a mask has settled, which examples are critical."""

import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepack.compressor.methods import find_method
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.plans import Change, Record, Rewind, Select, Train, make_plan
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.settings import PruneRecipe, TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.sparsifier import Sparsifier
from sparsepack.compressor.structure import parse_structure
from sparsepack.compressor.training.forgetting import NEVER, Forgetting
from sparsepack.compressor.training.mask_window import MaskWindow, mask_distance
from sparsepack.compressor.training.rates import shortened
from sparsepack.compressor.training.tape import Tape, examples_label
from sparsepack.compressor.transforms.critical_examples import is_hard
from sparsepack.errors import UnsupportedError, UsageError
from sparsepack.models.checked_data import make_dataset
from sparsepack.models.prunable import prunable_tensors

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.BatchNorm1d(24), nn.ReLU(), nn.Linear(24, 10))\n"
)
TEST = (np.zeros((2, 3), np.float32), np.arange(2))
bits = st.lists(st.booleans(), min_size=6, max_size=6).map(lambda row: np.array(row, np.bool_))


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small network with batch normalisation."""
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def recipe(model: str, method: str, *options: str, **settings: Any) -> PruneRecipe:
    wanted = {"data": "digits", "sparsity": 0.5, "epochs": 6, "batch_size": 128, "threads": 1, "init": "uniform"}
    return single_run(None, model, method=method, method_options=options, **{**wanted, **settings})


def logged(run: Path, event: str) -> list[dict[str, Any]]:
    lines = [json.loads(line) for line in (run / "log.jsonl").read_text().splitlines()]
    return [line for line in lines if line["event"] == event]


@given(bits, bits, bits)
def test_the_distance_of_masks_is_a_metric_within_0_and_1(a: Any, b: Any, c: Any) -> None:
    assert mask_distance(a, b) == mask_distance(b, a)
    assert 0 <= mask_distance(a, b) <= 1
    assert (mask_distance(a, b) == 0) == bool((a == b).all())
    assert mask_distance(a, c) <= mask_distance(a, b) + mask_distance(b, c) + 1e-12
    assert mask_distance(a, ~a) == 1


@pytest.mark.parametrize("length", [2, 5])
def test_a_mask_that_stays_is_settled_when_the_window_is_full(length: int) -> None:
    window = MaskWindow(length, 0.1)
    found = [window.push(np.array([True, False, True])) for _ in range(length + 1)]
    assert found == [False] * (length - 1) + [True] * 2


def test_the_newest_mask_is_compared_with_every_older_one() -> None:
    # Neighbours differ in one place of ten; the first and the third differ in two.
    rows = [np.arange(10) < count for count in (3, 4, 5, 5, 5)]
    window = MaskWindow(3, 0.1)
    assert [window.push(row) for row in rows] == [False, False, False, True, True]
    again = MaskWindow(3, 0.1)
    for row in rows[:2]:
        again.push(row)
    taken_up = MaskWindow(3, 0.1)
    taken_up.restore(again.tensors())
    assert [taken_up.push(row) for row in rows[2:]] == [False, True, True]


def test_with_a_tolerance_of_one_the_ticket_is_drawn_after_the_window(model: str, tmp_path: Path) -> None:
    run = prune(recipe(model, "early-bird", "tolerance=1.0"), tmp_path / "run")
    (training,) = logged(tmp_path / "run", "stage")
    assert training["drawn_after_epoch"] == 5
    mask = run.tensors["1.weight"].mask
    assert mask is not None
    units = mask.all(axis=1)
    assert units.sum() == mask.any(axis=1).sum() == 12
    # What belongs to a removed unit is zero, the rest went on training.
    for name in ("1.weight", "1.bias", "2.weight", "2.bias"):
        assert not run.dense_state()[name][~units].any()
    cost = run.metadata.training
    assert cost is not None
    dense = prune(recipe(model, "dense", sparsity=None), tmp_path / "dense").metadata.training
    # Of two dense layers five epochs in six, then half of the first; the other is the outputs'.
    assert dense is not None
    last = (64 * 24 / 2 + 24 * 10) / (64 * 24 + 24 * 10)
    assert cost.training_flops == pytest.approx(dense.training_flops * (5 + last) / 6, rel=1e-6)


def test_the_channels_are_those_of_largest_scale_when_the_ticket_is_drawn(model: str, tmp_path: Path) -> None:
    # Drawn at the end: the scales are those that the penalised training ends with.
    settings = {"epochs": 3}
    run = prune(recipe(model, "early-bird", "penalty=0.01", **settings), tmp_path / "run")
    assert logged(tmp_path / "run", "stage")[0]["drawn_after_epoch"] == 0
    slimmed = prune(
        recipe(model, "network-slimming", "penalty=0.01", "retrain=none", structure="channel", **settings),
        tmp_path / "slimmed",
    )
    for name, array in slimmed.dense_state().items():
        np.testing.assert_array_equal(run.dense_state()[name], array)


def test_early_bird_needs_scales(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="channels are ranked by the scales of batch normalisation"):
        prune(recipe("lenet-300-100", "early-bird"), tmp_path / "run")


def brute_force(history: list[list[bool]]) -> list[int]:
    """Forgetting events by example: learned once and then lost; never learned: -1."""
    counts = []
    for shown in history:
        events = sum(a and not b for a, b in pairwise(shown))
        counts.append(events if any(shown) else NEVER)
    return counts


def test_forgetting_is_counted_at_each_presentation() -> None:
    count, epochs, batch = 23, 6, 5
    data = make_dataset("d", np.zeros((count, 3), np.float32), np.arange(count) % 2, *TEST)
    module = nn.Linear(3, 2, bias=False)
    form = parse_structure("element")
    rule = MaskRule(make_space(prunable_tensors(module), form), form, "global")
    dynamics = Forgetting(module, {}, rule, 0.5, data=data, batch_size=batch, seed=4, window=2, tolerance=0.0)
    history = np.random.default_rng(1).random((epochs, count)) < 0.6
    history[:, 7] = False
    step = 0
    for epoch in range(epochs):
        # The order that a training's batches have; which example is which shows in its stored inputs.
        rows = np.repeat(np.arange(count, dtype=np.float32)[:, None], 3, 1)
        marked = make_dataset("m", rows, data.train_labels, *TEST)
        for inputs, labels in marked.batches("train", batch, seed=4, epoch=epoch):
            dynamics.before_forward(step)
            right = torch.from_numpy(history[epoch, inputs[:, 0].long().numpy()])
            answer = torch.where(right, labels, 1 - labels)
            dynamics.objective(torch.zeros(()), inputs, torch.nn.functional.one_hot(answer, 2).float(), labels)
            step += 1
        if epoch == 2:
            stored = {name: tensor.clone() for name, tensor in dynamics.tensors().items()}
            dynamics = Forgetting(module, {}, rule, 0.5, data=data, batch_size=batch, seed=4, window=2, tolerance=0.0)
            dynamics.restore(stored)
    counts = dynamics.recordings()["forgetting"]["counts"].numpy()
    assert counts.tolist() == brute_force(history.T.tolist())
    assert counts[7] == NEVER
    assert is_hard(counts, 0).tolist() == [events > 0 or events == NEVER for events in counts]


def test_a_training_ends_when_the_next_mask_has_settled_but_not_before_the_step_to_rewind_to() -> None:
    data = make_dataset("d", np.zeros((8, 3), np.float32), np.arange(8) % 2, *TEST)
    module = nn.Linear(3, 2, bias=False)
    form = parse_structure("element")
    rule = MaskRule(make_space(prunable_tensors(module), form), form, "global")
    for earliest, goes_on in ((0, [True, False]), (12, [True, True, False])):
        dynamics = Forgetting(
            module, {}, rule, 0.5, data=data, batch_size=2, seed=0, window=2, tolerance=0.0, earliest=earliest
        )
        found = []
        for epoch in range(len(goes_on)):
            dynamics.before_forward(4 * epoch + 3)
            found.append(dynamics.after_epoch(epoch + 1))
        assert found == goes_on


def test_the_rounds_of_prac_and_their_data(model: str, tmp_path: Path) -> None:
    wanted = recipe(model, "prac", "fewest=1", sparsity=0.36, learning_rate=0.05)
    plan = make_plan(wanted, find_method("prac"), 0.36)
    kinds = [Record, Train, Record, Select, Change, Rewind, Train, Select, Change, Rewind, Train]
    assert [type(stage) for stage in plan] == kinds
    trainings = [stage for stage in plan if isinstance(stage, Train)]
    assert [stage.examples for stage in trainings] == [None, examples_label(0), None]
    prune(wanted, tmp_path / "run")
    tape = Tape(tmp_path / "run" / "tape")
    first, second = (tape.read(examples_label(number))["examples"] for number in (0, 1))
    assert 0 < len(first) < 1437
    assert 0 < len(second) < 1437
    assert len(np.unique(first)) == len(first)
    # Epochs shrink with the share of the data: 6 * len / 1437, at least one.
    epochs = [event["stage"] for event in logged(tmp_path / "run", "epoch")]
    assert epochs.count("training 2/2") == max(1, int(6 * len(first) / 1437))
    assert epochs.count("retraining") == 6


def test_critical_data_can_train_the_ticket_too(model: str, tmp_path: Path) -> None:
    prune(recipe(model, "prac", "fewest=1", "final_data=critical", schedule="one-shot"), tmp_path / "run")
    found = Tape(tmp_path / "run" / "tape").read(examples_label(0))["examples"]
    epochs = [event["stage"] for event in logged(tmp_path / "run", "epoch")]
    assert epochs.count("retraining") == max(1, int(6 * len(found) / 1437))


def test_with_all_data_critical_and_no_early_end_it_is_the_lottery_ticket(model: str, tmp_path: Path) -> None:
    # A window longer than the training never ends it, and with too few critical examples a round trains on all.
    options = ("window=99", "fewest=2000", "rewind_step=3")
    ours = prune(recipe(model, "prac", *options, sparsity=0.36, epochs=2), tmp_path / "ours")
    ticket = prune(recipe(model, "lottery-ticket", "rewind_step=0", sparsity=0.36, epochs=2), tmp_path / "ticket")
    late = prune(recipe(model, "prac", "window=99", "fewest=2000", sparsity=0.36, epochs=2), tmp_path / "late")
    for name, array in ticket.dense_state().items():
        np.testing.assert_array_equal(late.dense_state()[name], array)
    assert any("fewer than 2000; the next one trains on all" in warning for warning in ours.metadata.warnings)


def test_prac_says_what_it_cannot_do(model: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="which examples are critical for method 'prac', and train has no epochs"):
        prune(recipe(model, "prac", epochs=0), tmp_path / "run")
    module = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2))
    inputs = torch.randn(16, 4)
    with pytest.raises(UsageError, match="takes a data set whose order is known"):
        Sparsifier(module, inputs, method="prac", sparsity=0.5, total_steps=4, data=(inputs, torch.arange(16) % 2))


def test_shortened_trainings_scale_all_that_counts_epochs() -> None:
    settings = TrainSettings(epochs=10, milestones=[4.0, 8.0], warmup_epochs=2.0, rate_schedule="step")
    half = shortened(settings, 0.55)
    assert half.epochs == 5
    assert half.warmup_epochs == pytest.approx(1.1)
    assert half.milestones == pytest.approx([2.2, 4.4])
    assert shortened(settings, 0.01).epochs == 1
    assert shortened(settings, 1.0) == settings
