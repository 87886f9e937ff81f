"""What loops of one's own do around a sparsifier: mixed precision, scaled losses, accumulation, clipping, restarts."""

from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepack.compressor.sparsifier import Sparsifier

STEPS, BATCH = 16, 32

# One or two of each paradigm: masks that stand, move, are learned; weights frozen, faded, reparametrised, rewound.
METHODS: dict[str, dict[str, Any]] = {
    "snip": {},
    "rigl": {"options": {"update_interval": 2}},
    "set": {"options": {"update_interval": 2}},
    "snfs": {"options": {"update_interval": 2}},
    "top-kast": {"options": {"update_interval": 2}},
    "powerpropagation": {},
    "edge-popup": {"init": "signed-constant"},
    "freezenet": {"init": "uniform"},
    "freezenet-wd": {"init": "uniform"},
    "random-filters": {"init": "uniform"},
    "fixed-classifier": {"sparsity": None, "init": "uniform"},
}
# What else a restart has to bear: weights to go back to, masks that grow, weights that learn behind their mask.
OTHERS: dict[str, dict[str, Any]] = {
    "lottery-ticket": {"schedule": "iterative", "rounds": 2},
    "magnitude": {"schedule": "gradual"},
    "deep-rewiring": {},
    "dsr": {"options": {"update_interval": 2}},
    "batchnorm-only": {"sparsity": None, "init": "uniform"},
    "movement": {},
    "soft-threshold-reparametrisation": {},
}


def network(seed: int = 0, norm: bool = False) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(12, 16), nn.BatchNorm1d(16) if norm else nn.Identity(), nn.ReLU(), nn.Linear(16, 4))


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    labels = torch.randint(0, 4, (BATCH,), generator=generator)
    return torch.randn(BATCH, 12, generator=generator) + torch.eye(4, 12)[labels] * 3, labels


def attach(module: nn.Module, method: str, settings: dict[str, Any]) -> Sparsifier:
    wanted = {"sparsity": 0.6, "data": batch(0), **settings}
    return Sparsifier(module, torch.zeros(2, 12), method=method, total_steps=STEPS, **wanted)


def optimiser_for(sparsifier: Sparsifier) -> torch.optim.Optimizer:
    made = torch.optim.SGD(sparsifier.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    sparsifier.attach(made)
    return made


def train(
    module: nn.Module,
    sparsifier: Sparsifier,
    optimiser: torch.optim.Optimizer,
    first: int = 0,
    last: int = STEPS,
    *,
    scaler: torch.amp.GradScaler | None = None,
    low_precision: bool = False,
    parts: int = 1,
    clip_norm: float | None = None,
) -> list[float]:
    """Train with what a loop may add; return the losses."""
    losses = []
    for step in range(first, last):
        optimiser.zero_grad()
        inputs, labels = batch(step)
        for x, y in zip(inputs.chunk(parts), labels.chunk(parts), strict=True):
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=low_precision):
                outputs = module(x)
                loss = sparsifier.loss(cross_entropy(outputs, y), x, outputs, y) / parts
            torch.autograd.backward(loss if scaler is None else scaler.scale(loss))
        losses.append(float(loss.detach()) * parts)
        sparsifier.step(scaler, clip_norm)
    return losses


@pytest.mark.parametrize("method", METHODS)
def test_mixed_precision_accumulation_scaling_and_clipping_together(method: str) -> None:
    module = network()
    sparsifier = attach(module, method, METHODS[method])
    begun = {name: p.detach().clone() for name, p in module.named_parameters()}
    sparsity = sparsifier.sparsity
    optimiser = optimiser_for(sparsifier)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**10)
    losses = train(module, sparsifier, optimiser, scaler=scaler, low_precision=True, parts=2, clip_norm=1.0)
    assert sparsifier.steps == STEPS
    assert sum(losses[-4:]) < sum(losses[:4])
    assert sparsifier.sparsity == pytest.approx(sparsity, abs=1e-9)
    sparsifier.finish()
    for name, parameter in module.named_parameters():
        # Autocast computes in bfloat16; weights stay what they were, and so does everything that is masked.
        assert parameter.dtype == torch.float32
        if name in sparsifier.masks:
            outside = ~sparsifier.masks[name]
            if method in ("freezenet", "random-filters"):
                assert torch.equal(parameter[outside], begun[name][outside])
            elif method != "fixed-classifier":
                assert not parameter[outside].any()


@pytest.mark.parametrize("method", ["powerpropagation", "edge-popup", "rigl"])
def test_an_overflow_in_weights_that_the_optimiser_does_not_hold_is_left_out(method: str) -> None:
    module = network()
    sparsifier = attach(module, method, METHODS[method])
    optimiser = optimiser_for(sparsifier)
    scaler = torch.amp.GradScaler("cpu", init_scale=64.0)
    before = [p.detach().clone() for p in sparsifier.parameters()]
    torch.autograd.backward(scaler.scale(cross_entropy(module(batch(0)[0]), batch(0)[1])))
    gradient = dict(module.named_parameters())["0.weight"].grad
    assert gradient is not None
    gradient[0, 0] = float("inf")
    sparsifier.step(scaler)
    assert (sparsifier.steps, scaler.get_scale()) == (0, 32.0)
    assert all(torch.equal(one, two) for one, two in zip(sparsifier.parameters(), before, strict=True))
    train(module, sparsifier, optimiser, last=1, scaler=scaler)
    assert sparsifier.steps == 1


@pytest.mark.parametrize(
    "method", ["rigl", "top-kast", "powerpropagation", "edge-popup", "freezenet", "fixed-classifier"]
)
def test_a_loss_scaled_by_a_power_of_two_gives_the_same_bits(method: str) -> None:
    plain, scaled = network(), network()
    ours, theirs = (attach(module, method, METHODS[method]) for module in (plain, scaled))
    train(plain, ours, optimiser_for(ours), last=6, clip_norm=0.5)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
    train(scaled, theirs, optimiser_for(theirs), last=6, clip_norm=0.5, scaler=scaler)
    for one, two in zip(plain.parameters(), scaled.parameters(), strict=True):
        assert torch.equal(one, two)


@pytest.mark.parametrize("method", ["snip", "top-kast", "powerpropagation", "freezenet-wd"])
def test_halves_of_a_batch_are_one_step(method: str) -> None:
    whole, halves = network(), network()
    ours, theirs = (attach(module, method, METHODS[method]) for module in (whole, halves))
    train(whole, ours, optimiser_for(ours), last=1)
    train(halves, theirs, optimiser_for(theirs), last=1, parts=2)
    assert ours.steps == theirs.steps == 1
    for one, two in zip(whole.parameters(), halves.parameters(), strict=True):
        torch.testing.assert_close(one, two, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("method", [*METHODS, *OTHERS])
def test_a_loop_in_another_process_goes_on_in_the_same_bits(method: str, tmp_path: Path) -> None:
    settings = {**METHODS, **OTHERS}[method]
    whole = network(norm=method == "batchnorm-only")
    sparsifier = attach(whole, method, settings)
    optimiser = optimiser_for(sparsifier)
    # A ticket is stopped in its second training, when the weights that it will go back to are long gone.
    while method == "lottery-ticket" and sparsifier.training == "training":
        train(whole, sparsifier, optimiser)
        sparsifier.finish()
        optimiser = optimiser_for(sparsifier)
    train(whole, sparsifier, optimiser, last=5)
    state = {"model": whole.state_dict(), "sparsifier": sparsifier.state_dict(), "optimiser": optimiser.state_dict()}
    torch.save(state, tmp_path / "state.pt")

    # Drawn from another seed: whatever is not restored shows.
    other = network(seed=1, norm=method == "batchnorm-only")
    resumed = attach(other, method, settings)
    loaded = torch.load(tmp_path / "state.pt", weights_only=True)
    other.load_state_dict(loaded["model"])
    resumed.load_state_dict(loaded["sparsifier"])
    again = torch.optim.SGD(resumed.parameters(), lr=0.1, momentum=0.9, weight_decay=1e-3)
    again.load_state_dict(loaded["optimiser"])
    resumed.attach(again)
    for module, each, made in ((whole, sparsifier, optimiser), (other, resumed, again)):
        # Noise is torch's own, whose state a loop keeps for itself.
        torch.manual_seed(7)
        train(module, each, made, first=5)
        while each.finish():
            train(module, each, optimiser_for(each))
    for (name, one), two in zip(whole.named_parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two), name
    assert all(torch.equal(resumed.masks[name], mask) for name, mask in sparsifier.masks.items())
