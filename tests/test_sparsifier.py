"""The sparsifier against the recipe's own training: the same loop written by hand ends in the same bits."""

import runpy
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import load_recipe
from sparsepack.compressor.sparsifier import Sparsifier
from sparsepack.errors import UsageError
from sparsepack.exporters import open_artifact
from sparsepack.models.data import load_data
from sparsepack.models.dataset import Dataset

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 24), nn.ReLU(), nn.Linear(24, 10))\n"
)
BATCH, EPOCHS, RATE, DECAY = 128, 2, 0.05, 1e-3
EXAMPLE = Path(__file__).parents[1] / "examples" / "own_loop.py"


@pytest.fixture(scope="module")
def data() -> Dataset:
    """The embedded digits."""
    found = load_data("digits")
    assert found is not None
    return found


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small network of the user's own."""
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def network() -> nn.Module:
    scope: dict[str, Any] = {}
    exec(NETWORK, scope)  # noqa: S102 - the very text that the factory's file holds
    built: nn.Module = scope["build"]()
    return built


def attach(module: nn.Module, data: Dataset, method: str, **settings: Any) -> Sparsifier:
    example, _ = next(data.batches("train", 2))
    wanted = {"sparsity": 0.8, "init": "uniform", "data": data, **settings}
    return Sparsifier(module, example, method=method, total_steps=EPOCHS * data.steps(BATCH), **wanted)


def train(module: nn.Module, data: Dataset, sparsifier: Sparsifier, epochs: int = EPOCHS, first: int = 0) -> None:
    """Train as the recipe's training does, with a constant rate."""
    optimiser = torch.optim.SGD(sparsifier.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY, fused=True)
    sparsifier.attach(optimiser)
    module.train()
    for epoch in range(first, epochs):
        for inputs, labels in data.batches("train", BATCH, seed=0, epoch=epoch):
            optimiser.zero_grad()
            outputs = module(inputs)
            loss = sparsifier.loss(cross_entropy(outputs, labels), inputs, outputs, labels)
            torch.autograd.backward(loss)
            sparsifier.step()
        sparsifier.end_epoch()


@pytest.mark.parametrize(
    ("method", "settings"),
    [
        ("rigl", {"options": {"update_interval": 5}}),
        ("snip", {}),
        ("lottery-ticket", {"schedule": "iterative", "rounds": 2}),
        ("learning-rate-rewinding", {"schedule": "one-shot"}),
        ("edge-popup", {"init": "signed-constant"}),
        ("magnitude", {"schedule": "gradual", "options": {"update_interval": 4}}),
        ("mask-criteria", {"schedule": "one-shot", "options": {"pruned": "freeze"}}),
    ],
)
def test_a_loop_by_hand_ends_in_the_bits_of_the_recipe(
    data: Dataset, model: str, tmp_path: Path, method: str, settings: dict[str, Any]
) -> None:
    decay = 0.0 if method == "mask-criteria" else DECAY
    plain = {
        "version": 1,
        "model": model,
        "data": "digits",
        "threads": 1,
        "train": {
            "epochs": EPOCHS,
            "batch_size": BATCH,
            "learning_rate": RATE,
            "rate_schedule": "constant",
            "optimiser": "sgd",
            "momentum": 0.9,
            "weight_decay": decay,
        },
        "runs": [{"name": "run", "method": method, "sparsity": 0.8, "init": "uniform", **settings}],
    }
    recipe = load_recipe(plain).prune_recipes()[0]
    wanted = prune(recipe, tmp_path / "run").dense_state()
    torch.set_num_threads(1)
    module = network()
    sparsifier = attach(module, data, method, **settings)
    while sparsifier.training is not None:
        if method == "mask-criteria":
            optimiser = torch.optim.SGD(sparsifier.parameters(), lr=RATE, momentum=0.9, fused=True)
            sparsifier.attach(optimiser)
            for epoch in range(EPOCHS):
                for inputs, labels in data.batches("train", BATCH, seed=0, epoch=epoch):
                    optimiser.zero_grad()
                    torch.autograd.backward(cross_entropy(module(inputs), labels))
                    sparsifier.step()
        else:
            train(module, data, sparsifier)
        sparsifier.finish()
    made = sparsifier.checkpoint(model)
    made.verify()
    for name, array in made.dense_state().items():
        assert array.tobytes() == wanted[name].tobytes(), name


def test_frozen_weights_survive_any_optimiser(data: Dataset) -> None:
    module = network()
    sparsifier = attach(module, data, "freezenet")
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    optimiser = torch.optim.AdamW(sparsifier.parameters(), lr=0.01, weight_decay=0.5)
    sparsifier.attach(optimiser)
    for inputs, labels in data.batches("train", BATCH):
        optimiser.zero_grad()
        torch.autograd.backward(cross_entropy(module(inputs), labels))
        sparsifier.step()
    for name, mask in sparsifier.masks.items():
        now = dict(module.named_parameters())[name]
        assert torch.equal(now[~mask], before[name][~mask])
        assert (now[mask] != before[name][mask]).float().mean() > 0.9


def test_accumulated_gradients_are_one_step(data: Dataset) -> None:
    halves, whole = network(), network()
    sparsifiers = [attach(module, data, "snip") for module in (halves, whole)]
    optimisers = [torch.optim.SGD(s.parameters(), lr=0.1) for s in sparsifiers]
    for sparsifier, optimiser in zip(sparsifiers, optimisers, strict=True):
        sparsifier.attach(optimiser)
    inputs, labels = next(data.batches("train", 64))
    for part in (slice(0, 32), slice(32, 64)):
        torch.autograd.backward(cross_entropy(halves(inputs[part]), labels[part]) / 2)
    torch.autograd.backward(cross_entropy(whole(inputs), labels))
    for sparsifier in sparsifiers:
        sparsifier.step()
        assert sparsifier.steps == 1
    for ours, theirs in zip(halves.parameters(), whole.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-7)


def test_clipping_measures_the_gradients_that_are_left(data: Dataset) -> None:
    module = network()
    sparsifier = attach(module, data, "snip")
    sparsifier.attach(torch.optim.SGD(sparsifier.parameters(), lr=1.0))
    before = [p.detach().clone() for p in module.parameters()]
    inputs, labels = next(data.batches("train", 64))
    torch.autograd.backward(100 * cross_entropy(module(inputs), labels))
    sparsifier.step(clip_norm=0.25)
    moved = torch.cat([(p - q).detach().reshape(-1) for p, q in zip(module.parameters(), before, strict=True)])
    assert float(moved.norm()) == pytest.approx(0.25, rel=1e-4)


def test_a_step_that_overflowed_is_left_out(data: Dataset) -> None:
    module = network()
    sparsifier = attach(module, data, "rigl", options={"update_interval": 1})
    optimiser = torch.optim.SGD(sparsifier.parameters(), lr=0.1)
    sparsifier.attach(optimiser)
    scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)
    inputs, labels = next(data.batches("train", 64))
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(module(inputs), labels)
    torch.autograd.backward(scaler.scale(loss))
    next(module.parameters()).grad[0, 0] = float("inf")  # type: ignore[index]  # the backward pass has made it
    before = [p.detach().clone() for p in module.parameters()]
    sparsifier.step(scaler)
    assert all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))
    assert (sparsifier.steps, scaler.get_scale()) == (0, 512.0)
    optimiser.zero_grad()
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = cross_entropy(module(inputs), labels)
    torch.autograd.backward(scaler.scale(loss))
    sparsifier.step(scaler)
    assert sparsifier.steps == 1
    assert not all(torch.equal(p, q) for p, q in zip(module.parameters(), before, strict=True))


@pytest.mark.parametrize("method", ["rigl", "edge-popup"])
def test_a_loop_that_was_stopped_ends_in_the_same_bits(data: Dataset, tmp_path: Path, method: str) -> None:
    settings: dict[str, Any] = {"options": {"update_interval": 5}} if method == "rigl" else {"init": "signed-constant"}
    whole = network()
    train(whole, data, attach(whole, data, method, **settings))

    first = network()
    sparsifier = attach(first, data, method, **settings)
    train(first, data, sparsifier, epochs=1)
    # The optimiser of train() is gone with its momentum; the second half therefore takes over its state.
    state = {"model": first.state_dict(), "sparsifier": sparsifier.state_dict()}
    torch.save(state, tmp_path / "state.pt")
    optimiser_state = sparsifier._optimiser.state_dict()  # type: ignore[union-attr]  # attached above

    second = network()
    resumed = attach(second, data, method, **settings)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    second.load_state_dict(loaded["model"])
    resumed.load_state_dict(loaded["sparsifier"])
    optimiser = torch.optim.SGD(resumed.parameters(), lr=RATE, momentum=0.9, weight_decay=DECAY, fused=True)
    optimiser.load_state_dict(optimiser_state)
    resumed.attach(optimiser)
    for inputs, labels in data.batches("train", BATCH, seed=0, epoch=1):
        optimiser.zero_grad()
        torch.autograd.backward(cross_entropy(second(inputs), labels))
        resumed.step()
    for name, tensor in whole.state_dict().items():
        assert torch.equal(second.state_dict()[name], tensor), name


def test_memory_of_pruned_weights_is_cleared_when_an_optimiser_is_attached(data: Dataset) -> None:
    module = network()
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    inputs, labels = next(data.batches("train", 64))
    torch.autograd.backward(cross_entropy(module(inputs), labels))
    optimiser.step()
    sparsifier = attach(module, data, "snip", init=None)
    sparsifier.attach(optimiser)
    for _ in range(3):
        optimiser.zero_grad()
        torch.autograd.backward(cross_entropy(module(inputs), labels))
        sparsifier.step()
    for name, mask in sparsifier.masks.items():
        assert not dict(module.named_parameters())[name][~mask].any()
    assert sparsifier.sparsity == pytest.approx(0.8, abs=1e-3)


def test_mistakes_are_named(data: Dataset, model: str) -> None:
    module = network()
    sparsifier = attach(module, data, "edge-popup", init="signed-constant")
    with pytest.raises(UsageError, match="no optimiser is attached"):
        sparsifier.step()
    with pytest.raises(UsageError, match=r"build it with sparsifier\.parameters"):
        sparsifier.attach(torch.optim.SGD(module.parameters(), lr=0.1))
    with pytest.raises(UsageError, match="'training' is not finished"):
        sparsifier.checkpoint(model)
    with pytest.raises(UsageError, match="total_steps is 0"):
        Sparsifier(network(), torch.zeros(1, 64), method="rigl", sparsity=0.5, total_steps=0)
    with pytest.raises(UsageError, match="needs data"):
        Sparsifier(network(), torch.zeros(1, 64), method="snip", sparsity=0.5, total_steps=5)
    with pytest.raises(UsageError, match="has no parameters"):
        Sparsifier(nn.ReLU(), torch.zeros(1, 64), method="magnitude", sparsity=0.5, total_steps=5)
    for nothing in (torch.zeros(0, 64), torch.tensor(1.0), ()):
        with pytest.raises(UsageError, match="hold no example"):
            Sparsifier(network(), nothing, method="magnitude", sparsity=0.5, total_steps=5)
    with pytest.raises(UsageError, match="seed -1 is out of range"):
        Sparsifier(network(), torch.zeros(1, 64), method="magnitude", sparsity=0.5, total_steps=5, seed=-1)


@pytest.mark.filterwarnings("ignore:Initializing zero-element tensors")
def test_a_layer_without_weights_is_left_alone(data: Dataset) -> None:
    module = nn.Sequential(nn.Flatten(), nn.Linear(64, 6), nn.Linear(6, 0), nn.Linear(0, 10))
    sparsifier = attach(module, data, "rigl", init=None)
    assert {name: int(mask.sum()) for name, mask in sparsifier.masks.items()} == {"1.weight": 77}


def test_the_network_is_left_as_it_came_when_the_plan_is_done(data: Dataset) -> None:
    module = network()
    sparsifier = attach(module, data, "magnitude")
    while sparsifier.training is not None:
        assert len(module._forward_pre_hooks) == 1
        train(module, data, sparsifier, 1)
        sparsifier.finish()
    assert not module._forward_pre_hooks


def test_the_example_runs_and_its_artifact_opens(tmp_path: Path) -> None:
    output = tmp_path / "own.spk"
    done = subprocess.run([sys.executable, EXAMPLE, output], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "sparsity 0.900" in done.stdout
    tensors = open_artifact(output).tensors()
    built = runpy.run_path(str(EXAMPLE))["build"]()
    built.load_state_dict({name: torch.from_numpy(array.copy()) for name, array in tensors.items()})
    found = load_data("digits")
    assert found is not None
    inputs, labels = found.test()
    accuracy = float((built.eval()(inputs).argmax(dim=1) == labels).float().mean())
    assert f"accuracy {accuracy:.3f}" in done.stdout
    assert accuracy > 0.85
    assert np.mean(tensors["1.weight"] == 0) > 0.8
