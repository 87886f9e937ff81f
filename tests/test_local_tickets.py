"""Local tickets: published trajectories, torch's own pruning round by round, and what becomes of the weights.

The counts are those of On Iterative Neural Network Pruning, Reinitialization, and the Similarity of Masks, 2020: 20 %
of what each layer has left, 20 times, on the 59,838 weights of its LeNet.
"""

from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.utils import prune as torch_prune

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.mask import BoolArray, kept
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.scores.magnitude import magnitude
from sparsepack.compressor.scores.random import random
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import parse_structure
from sparsepack.compressor.training.tape import Tape, round_label
from sparsepack.errors import SparsepackError, UnsupportedError, UsageError
from sparsepack.files import Array
from sparsepack.models.data import load_data
from sparsepack.models.prunable import PrunableTensor
from sparsepack.models.source import TorchSource, load_source

SHAPES = {
    "conv1.weight": (6, 1, 3, 3),
    "conv2.weight": (16, 6, 3, 3),
    "fc1.weight": (120, 400),
    "fc2.weight": (84, 120),
    "fc3.weight": (10, 84),
}
TENSORS = [
    PrunableTensor(name, shape, "conv" if len(shape) > 2 else "linear", 0, 0, 0) for name, shape in SHAPES.items()
]
# Kept weights after rounds 1, 2, ...; those of the hybrid and of fully connected layers count the dense convolutions.
UNSTRUCTURED = [47870, 38296, 30636, 24510, 19608, 15685, 12548, 10039, 8031, 6425]
INPUTS = [47908, 38358, 30724, 24562, 19692, 15850, 12786, 10286, 8360, 6768]
HYBRID = [47910, 38339, 30653, 24476, 19649, 15787, 12698, 10227, 8250, 6668]
CONNECTED = [48054, 38627, 31085, 25052, 20225, 16363, 13274, 10803, 8826, 7244]
# Rounds 12, 14, ... 20.
LATER = {
    "element": [4112, 2630, 1683, 1077, 691],
    "input-channel": [4398, 3046, 2018, 1370, 1130],
    "hybrid": [4391, 2932, 1999, 1402, 1021],
    "fully-connected": [4967, 3508, 2575, 1978, 1597],
}
LIVE_INPUTS = {
    "conv1.weight": [1] * 21,
    "conv2.weight": [6, 5, 4, 3] + [2] * 17,
    "fc1.weight": [400, 320, 256, 205, 164, 131, 105, 84, 67, 54, 43, 34, 27, 22, 18, 14, 11, 9, 7, 6, 5],
    "fc2.weight": [120, 96, 77, 62, 50, 40, 32, 26, 21, 17, 14, 11, 9, 7, 6, 5, 4, 3, 2, 2, 2],
    "fc3.weight": [84, 67, 54, 43, 34, 27, 22, 18, 14, 11, 9, 7, 6, 5, 4, 3, 2, 2, 2, 2, 2],
}


def weights_of(seed: int) -> dict[str, Array]:
    random_numbers = np.random.default_rng(seed)
    return {name: random_numbers.standard_normal(shape).astype(np.float32) for name, shape in SHAPES.items()}


def rounds_of(
    structure: str, weights: Mapping[str, Array], count: int = 20, norm: str = "l1", drawn: bool = False
) -> list[dict[str, BoolArray]]:
    """Return the masks of every round, with the same dense weights in each."""
    form = parse_structure(structure)
    rule = MaskRule(make_space(TENSORS, form), form, "uniform")
    axes = {t.name: 1 for t in rule.space.tensors if structure == "input-channel" or t.kind == "conv"}
    found: list[dict[str, BoolArray]] = []
    for number in range(count):
        within = found[-1] if found else None
        masked = {n: weights[n] * within[n] if within else weights[n] for n in rule.space.names}
        scores = random({n: SHAPES[n] for n in masked}, 3, number) if drawn else magnitude(masked, norm, axes)
        found.append(rule.select(scores, 0.5, within, None, 0.2))
    return found


@pytest.mark.parametrize(
    ("structure", "early"),
    [("element", UNSTRUCTURED), ("input-channel", INPUTS), ("hybrid", HYBRID), ("fully-connected", CONNECTED)],
)
@pytest.mark.parametrize("drawn", [False, True])
def test_the_published_counts(structure: str, early: list[int], drawn: bool) -> None:
    dense = 54 + 864 if structure == "fully-connected" else 0
    counts = [kept(masks) + dense for masks in rounds_of(structure, weights_of(0), drawn=drawn)]
    assert counts[:10] == early
    assert counts[11::2] == LATER[structure]


def test_live_inputs_and_nested_masks() -> None:
    found = rounds_of("input-channel", weights_of(1))
    for name, live in LIVE_INPUTS.items():
        rows = [np.moveaxis(masks[name], 1, 0).reshape(SHAPES[name][1], -1) for masks in found]
        assert all((row.all(axis=1) == row.any(axis=1)).all() for row in rows)
        assert [int(row.any(axis=1).sum()) for row in rows] == live[1:]
    for earlier, later in pairwise(found):
        assert all((later[name] <= earlier[name]).all() for name in later)


def test_the_last_round_of_single_weights() -> None:
    last = rounds_of("element", weights_of(2))[-1]
    assert [int(mask.sum()) for mask in last.values()] == [2, 10, 553, 116, 10]


@pytest.mark.parametrize(
    ("norm", "order"), [("l1", 1), ("l2", 2), ("l-inf", float("inf")), ("l-minus-inf", -float("inf"))]
)
def test_torch_prunes_the_same_inputs(norm: str, order: float) -> None:
    weights = weights_of(4)
    found = rounds_of("input-channel", weights, count=8, norm=norm)
    for name in SHAPES:
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.from_numpy(weights[name]))
        for masks in found:
            # Untyped in torch.
            torch_prune.ln_structured(layer, "weight", amount=0.2, n=order, dim=1)  # type: ignore[no-untyped-call]
            np.testing.assert_array_equal(masks[name], np.asarray(layer.weight_mask, dtype=bool))


def test_torch_prunes_the_same_weights() -> None:
    weights = weights_of(5)
    found = rounds_of("element", weights, count=6)
    for name in SHAPES:
        layer = torch.nn.Module()
        layer.weight = torch.nn.Parameter(torch.from_numpy(weights[name]))
        for masks in found:
            # Untyped in torch.
            torch_prune.l1_unstructured(layer, "weight", amount=0.2)  # type: ignore[no-untyped-call]
            np.testing.assert_array_equal(masks[name], np.asarray(layer.weight_mask, dtype=bool))


def test_a_hybrid_is_inputs_in_convolutions_and_weights_elsewhere() -> None:
    weights = weights_of(6)
    hybrid, inputs, elements = (rounds_of(s, weights, count=5) for s in ("hybrid", "input-channel", "element"))
    for number in range(5):
        for name in SHAPES:
            other = inputs if name.startswith("conv") else elements
            np.testing.assert_array_equal(hybrid[number][name], other[number][name])


def recipe(place: Path, **run: Any) -> Any:
    train = {"epochs": 1, "batch_size": 16, "learning_rate": 0.05, "momentum": 0.0, "weight_decay": 0.0}
    plain = {
        "version": 1,
        "model": "lenet-s4",
        "data": f"npz:{place / 'data.npz'}",
        "threads": 1,
        "train": {**train, "rate_schedule": "constant"},
        "runs": [{"name": "run", "method": "local-ticket", "sparsity": 0.36, **run}],
    }
    return load_recipe(plain).prune_recipes()[0]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("local")
    numbers = np.random.default_rng(0)
    labels = np.arange(32) % 4
    images = (numbers.standard_normal((32, 1, 10, 10)) + labels[:, None, None, None]).astype(np.float32)
    np.savez(folder / "data.npz", x_train=images, y_train=labels, x_test=images[:8], y_test=labels[:8])
    return folder


def run(place: Path, folder: Path, **choices: Any) -> tuple[SparseCheckpoint, Tape]:
    options = {"keep_rounds": True, **choices.pop("options", {})}
    return prune(recipe(place, options=options, **choices), folder), Tape(folder / "tape")


def test_rounds_are_on_the_tape(place: Path, tmp_path: Path) -> None:
    made, tape = run(place, tmp_path / "run", structure="input-channel")
    # 1 - 0.36 is two rounds of a fifth.
    assert sorted(p.stem for p in (tmp_path / "run/tape").iterdir()) == ["initial", "round-0", "round-1", "round-2"]
    assert not any(name.startswith("mask:") for name in tape.read(round_label(0)))
    last = tape.read(round_label(2))
    for name, tensor in made.tensors.items():
        np.testing.assert_array_equal(tensor.dense(), last[name])
        if tensor.mask is not None:
            np.testing.assert_array_equal(tensor.mask, last[f"mask:{name}"].astype(bool))
            assert tensor.record.structure == "input-channel"


def test_no_training_between_shows_what_a_round_begins_with(place: Path, tmp_path: Path) -> None:
    """With a learning rate of next to nothing, the state at a round's end is what it began with."""
    train = {"learning_rate": 1e-30}
    for action in ("rewind", "sign-sigma", "sign"):
        made, tape = run(place, tmp_path / action, train=train, options={"kept": action})
        initial = tape.read("initial")
        for name, tensor in made.tensors.items():
            early = initial[name].astype(np.float64)
            expected = {"rewind": early, "sign": np.sign(early), "sign-sigma": early.std(ddof=1) * np.sign(early)}
            mask = np.ones(early.shape, bool) if tensor.mask is None else tensor.mask
            np.testing.assert_allclose(tensor.dense(), expected[action] * mask, rtol=1e-6)


@pytest.mark.parametrize("action", ["rewind", "finetune"])
def test_a_round_against_a_loop_by_hand(place: Path, tmp_path: Path, action: str) -> None:
    _, tape = run(place, tmp_path / "run", rounds=1, sparsity=0.2, options={"kept": action})
    begin, end = tape.read(round_label(0) if action == "finetune" else "initial"), tape.read(round_label(1))
    data = load_data(f"npz:{place / 'data.npz'}")
    assert data is not None
    source = load_source("lenet-s4", options=data.model_options)
    assert isinstance(source, TorchSource)
    module = source.build()
    module.load_state_dict({name: torch.from_numpy(array) for name, array in begin.items()})
    masks = {name: torch.from_numpy(end[f"mask:{name}"]).float() for name in SHAPES}
    parameters = dict(module.named_parameters())
    for inputs, labels in data.batches("train", 16, seed=0, epoch=0):
        with torch.no_grad():
            for name, mask in masks.items():
                parameters[name].mul_(mask)
        module.zero_grad()
        torch.autograd.backward(torch.nn.functional.cross_entropy(module(inputs), labels))
        with torch.no_grad():
            for name, parameter in parameters.items():
                assert parameter.grad is not None
                parameter.sub_(0.05 * parameter.grad * masks.get(name, torch.tensor(1.0)))
    for name, parameter in parameters.items():
        np.testing.assert_allclose(end[name], parameter.detach().numpy(), rtol=1e-5, atol=1e-6)


def test_fully_connected_leaves_convolutions_dense_and_says_so(place: Path, tmp_path: Path) -> None:
    made, _ = run(place, tmp_path / "run", structure="fully-connected")
    assert made.tensors["conv1.weight"].mask is None
    assert "'conv1.weight' stays dense: it is a convolution" in " ".join(made.metadata.warnings)


@pytest.mark.parametrize(
    ("choices", "error", "message"),
    [
        ({"options": {"kept": "finetune", "rewind_step": 1}}, UsageError, "kept is finetune"),
        ({"options": {"rewind_step": 1}, "train": {"epochs": 0}}, UsageError, "no training to take that step"),
        ({"options": {"kept": "fine-tune"}}, UsageError, "Did you mean 'finetune'"),
        ({"allocation": "global"}, UnsupportedError, "every round takes its share from each layer"),
        ({"structure": "input-chanel"}, UsageError, "input-channel"),
        ({"method": "magnitude", "structure": "hybrid"}, UnsupportedError, "does not go with structure 'hybrid'"),
    ],
)
def test_what_cannot_be_is_said(
    place: Path, tmp_path: Path, choices: dict[str, Any], error: type[SparsepackError], message: str
) -> None:
    with pytest.raises(error, match=message):
        prune(recipe(place, **choices), tmp_path / "run")
