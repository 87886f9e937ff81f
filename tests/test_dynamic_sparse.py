"""Dynamic sparse training (methods 5.2 to 5.8): what every rule conserves, and each rule's own closed forms."""

import copy
import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule, make_rule
from sparsepack.compressor.schedule import never_updates, updates_at
from sparsepack.compressor.training.dynamic_sparse.deep_rewiring import DeepRewiring
from sparsepack.compressor.training.dynamic_sparse.growth import apportion, random_places
from sparsepack.compressor.training.dynamic_sparse.powerpropagation import Powerpropagation
from sparsepack.compressor.training.dynamic_sparse.reparameterization import DynamicReparameterization, adapted
from sparsepack.compressor.training.dynamic_sparse.sparse_evolution import SparseEvolution, surviving
from sparsepack.compressor.training.dynamic_sparse.sparse_momentum import SparseMomentum, drop_rate
from sparsepack.compressor.training.dynamic_sparse.top_kast import TopKast
from sparsepack.compressor.training.dynamics import Dynamics, Masks
from sparsepack.compressor.training.rigl import RigL
from sparsepack.compressor.training.static import StaticMask
from sparsepack.models.prunable import prunable_tensors

NAMES = ("0.weight", "2.weight")


def network(seed: int = 0) -> nn.Sequential:
    torch.manual_seed(seed)
    return nn.Sequential(nn.Linear(10, 16), nn.ReLU(), nn.Linear(16, 4))


def random_masks(module: nn.Module, density: float, seed: int = 0) -> Masks:
    random = np.random.default_rng(seed)
    weights = dict(module.named_parameters())
    return {
        name: torch.from_numpy(
            random.permutation(weights[name].numel()).reshape(tuple(weights[name].shape))
            < round(density * weights[name].numel())
        )
        for name in NAMES
    }


def batch(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(step)
    return torch.randn(32, 10, generator=generator), torch.randint(0, 4, (32,), generator=generator)


def train(
    module: nn.Module,
    dynamics: Dynamics,
    steps: int,
    make: Callable[..., torch.optim.Optimizer] = torch.optim.SGD,
    after: Callable[[int], None] | None = None,
    **settings: float,
) -> torch.optim.Optimizer:
    optimiser = make(dynamics.parameter_groups(), **{"lr": 0.1, **settings})
    dynamics.attach(optimiser)
    for step in range(steps):
        for group in optimiser.param_groups:
            for parameter in group["params"]:
                parameter.grad = None
        inputs, labels = batch(step)
        torch.autograd.backward(cross_entropy(module(inputs), labels))
        if dynamics.after_backward(step):
            optimiser.step()
        dynamics.after_step(step)
        if after is not None:
            after(step)
    return optimiser


@given(st.data())
def test_apportioned_numbers_add_up_and_fit(data: st.DataObject) -> None:
    count = data.draw(st.integers(1, 6))
    capacities = data.draw(st.lists(st.integers(0, 50), min_size=count, max_size=count))
    shares = data.draw(st.lists(st.floats(0, 10), min_size=count, max_size=count))
    total = data.draw(st.integers(0, sum(capacities)))
    found = apportion(total, shares, capacities)
    assert sum(found) == total
    assert all(0 <= number <= room for number, room in zip(found, capacities, strict=True))
    exact = [total * share / sum(shares) for share in shares] if sum(shares) > 0 else []
    if exact and all(part + 1 <= room for part, room in zip(exact, capacities, strict=True)):
        assert all(abs(number - part) < 1 for number, part in zip(found, exact, strict=True))


@given(st.integers(0, 2**32 - 1), st.integers(1, 200), st.data())
def test_random_places_are_different_candidates(seed: int, size: int, data: st.DataObject) -> None:
    candidates = np.arange(size) * 3 + 1
    count = data.draw(st.integers(0, size))
    places = random_places(candidates, count, seed, "x")
    assert len(set(places.tolist())) == count
    assert set(places.tolist()) <= set(candidates.tolist())
    np.testing.assert_array_equal(places, random_places(candidates, count, seed, "x"))


@pytest.mark.parametrize("count", [2, 30])
def test_every_place_is_equally_likely(count: int) -> None:
    candidates = np.arange(40)
    hits = np.zeros(40)
    draws = 2000
    for draw in range(draws):
        hits[random_places(candidates, count, 7, f"stream/{draw}")] += 1
    share = count / 40
    # Five standard deviations of a binomial count.
    assert np.abs(hits - draws * share).max() < 5 * math.sqrt(draws * share * (1 - share))


def rules(module: nn.Module, masks: Masks) -> dict[str, StaticMask]:
    return {
        "set": SparseEvolution(module, masks, fraction=0.3, every=2, end=100, by_sign=True, seed=3),
        "set-magnitude": SparseEvolution(module, masks, fraction=0.3, every=2, end=100, by_sign=False, seed=3),
        "snfs": SparseMomentum(module, masks, rate=0.5, every=2, total_steps=100, smoothing=0.9),
        "dsr": DynamicReparameterization(module, masks, fraction=0.1, threshold=0.05, every=2, end=100, seed=3),
        "deep-rewiring": DeepRewiring(module, masks, pull=0.5, noise=0.5, seed=3),
        "rigl": RigL(module, masks, drop_fraction=0.3, end=100, every=2),
    }


@pytest.mark.parametrize("name", ["set", "set-magnitude", "snfs", "dsr", "deep-rewiring", "rigl"])
@pytest.mark.parametrize("density", [0.1, 0.5, 0.9])
def test_counts_stay_pruned_weights_are_zero_and_so_is_what_is_remembered_of_them(name: str, density: float) -> None:
    module = network()
    masks = random_masks(module, density)
    dynamics = rules(module, masks)[name]
    counts = {key: int(mask.sum()) for key, mask in masks.items()}
    before = {key: mask.clone() for key, mask in masks.items()}

    def look(step: int) -> None:
        now = {key: int(mask.sum()) for key, mask in dynamics.masks.items()}
        assert sum(now.values()) == sum(counts.values())
        if name not in ("snfs", "dsr"):
            assert now == counts
        for key, mask in dynamics.masks.items():
            assert not dict(module.named_parameters())[key].detach()[~mask].any()

    optimiser = train(module, dynamics, 12, momentum=0.9, weight_decay=1e-3, after=look)
    assert any((dynamics.masks[key] != before[key]).any() for key in NAMES)
    for key, weight in module.named_parameters():
        if key in NAMES:
            assert not optimiser.state[weight]["momentum_buffer"][~dynamics.masks[key]].any()


@pytest.mark.parametrize("name", ["set", "snfs", "dsr"])
def test_growth_leaves_the_output_as_dropping_made_it(name: str) -> None:
    module = network()
    dynamics = rules(module, random_masks(module, 0.4))[name]
    train(module, dynamics, 3, momentum=0.9)
    before = {key: mask.clone() for key, mask in dynamics.masks.items()}
    dropped = copy.deepcopy(module)
    if isinstance(dynamics, SparseMomentum):
        dynamics.exchange(0.4)
    elif isinstance(dynamics, (SparseEvolution, DynamicReparameterization)):
        dynamics.exchange(4)
    for key, mask in dynamics.masks.items():
        weight = dict(module.named_parameters())[key].detach()
        grown = mask & ~before[key]
        assert grown.any()
        assert not weight[grown].any()
        # Taking away only what left gives the same network.
        left = weight == 0
        dict(dropped.named_parameters())[key].data[left] = 0
    inputs, _ = batch(99)
    assert torch.equal(module(inputs), dropped(inputs))


@given(st.integers(0, 2**32 - 1), st.floats(0, 0.9), st.booleans())
def test_the_smallest_leave_of_all_or_of_each_sign(seed: int, fraction: float, by_sign: bool) -> None:
    random = np.random.default_rng(seed)
    weights = random.standard_normal((5, 8)).astype(np.float32)
    mask = random.random((5, 8)) < 0.7
    kept = surviving(weights, mask, fraction, by_sign=by_sign)
    assert not (kept & ~mask).any()
    groups = (mask & (weights >= 0), mask & (weights < 0)) if by_sign else (mask,)
    for group in groups:
        gone = group & ~kept
        assert gone.sum() == int(fraction * group.sum())
        if gone.any() and (group & kept).any():
            assert np.abs(weights[gone]).max() <= np.abs(weights[group & kept]).min()


def test_the_threshold_is_halved_or_doubled_when_it_misses() -> None:
    assert [adapted(0.4, dropped, 100) for dropped in (111, 110, 100, 90, 89)] == [0.2, 0.4, 0.4, 0.4, 0.8]


def test_dsr_gives_to_layers_by_their_survivors_and_not_to_what_just_left() -> None:
    module = network()
    masks = random_masks(module, 0.5)
    dynamics = rules(module, masks)["dsr"]
    assert isinstance(dynamics, DynamicReparameterization)
    dynamics.attach(torch.optim.SGD(module.parameters(), lr=0.1))
    dynamics.threshold = 0.1
    weights = {name: p.detach().clone() for name, p in module.named_parameters()}
    kept = {name: masks[name] & (weights[name].abs() >= 0.1) for name in NAMES}
    gone = {name: masks[name] & ~kept[name] for name in NAMES}
    dynamics.exchange(1)
    total = sum(int(mask.sum()) for mask in gone.values())
    survivors = {name: int(kept[name].sum()) for name in NAMES}
    for name in NAMES:
        assert not (dynamics.masks[name] & gone[name]).any()
        grown = int((dynamics.masks[name] & ~kept[name]).sum())
        assert abs(grown - total * survivors[name] / sum(survivors.values())) < 1


def test_dsr_with_a_full_layer_gives_the_rest_elsewhere() -> None:
    module = network()
    masks = random_masks(module, 0.3)
    masks["2.weight"] = torch.ones_like(masks["2.weight"])
    dynamics = DynamicReparameterization(module, masks, fraction=0.1, threshold=0.1, every=1, end=9, seed=0)
    dynamics.attach(torch.optim.SGD(module.parameters(), lr=0.1))
    total = sum(int(mask.sum()) for mask in masks.values())
    dynamics.exchange(1)
    assert sum(int(mask.sum()) for mask in dynamics.masks.values()) == total
    assert int(dynamics.masks["2.weight"].sum()) < masks["2.weight"].numel()


def test_sparse_momentum_remembers_dense_gradients_and_grows_at_the_largest() -> None:
    module = network()
    masks = random_masks(module, 0.3)
    dynamics = SparseMomentum(module, masks, rate=0.5, every=100, total_steps=100, smoothing=0.5)
    expected = {name: torch.zeros_like(dict(module.named_parameters())[name]) for name in NAMES}
    optimiser = torch.optim.SGD(dynamics.parameter_groups(), lr=0.1)
    dynamics.attach(optimiser)
    for step in range(3):
        optimiser.zero_grad()
        inputs, labels = batch(step)
        torch.autograd.backward(cross_entropy(module(inputs), labels))
        for name in NAMES:
            gradient = dict(module.named_parameters())[name].grad
            assert gradient is not None
            expected[name] = 0.5 * expected[name] + gradient
        dynamics.after_backward(step)
        optimiser.step()
    for name in NAMES:
        torch.testing.assert_close(dynamics.tensors()[f"momentum/{name}"], expected[name])
        assert expected[name][~masks[name]].any()
    kept_before = {name: mask.clone() for name, mask in dynamics.masks.items()}
    dynamics.exchange(0.5)
    for name in NAMES:
        grown = dynamics.masks[name] & ~kept_before[name]
        free = ~dynamics.masks[name] & ~kept_before[name]
        if grown.any() and free.any():
            assert expected[name][grown].abs().min() >= expected[name][free].abs().max()


def test_the_rate_of_sparse_momentum_falls_along_a_cosine() -> None:
    assert [round(drop_rate(step, 100, 0.5), 4) for step in (0, 50, 100)] == [0.5, 0.2525, 0.005]


def test_rewiring_without_pull_and_noise_is_training_on_a_fixed_mask_until_a_sign_changes() -> None:
    plain, rewired = network(), network()
    masks = random_masks(plain, 0.5)
    static = StaticMask(plain, {name: mask.clone() for name, mask in masks.items()})
    deep = DeepRewiring(rewired, {name: mask.clone() for name, mask in masks.items()}, pull=0, noise=0, seed=1)
    signs = {name: dict(rewired.named_parameters())[name].detach().sign() for name in NAMES}
    train(plain, static, 1, lr=1e-4)
    train(rewired, deep, 1, lr=1e-4)
    for name in NAMES:
        ours, theirs = (dict(module.named_parameters())[name].detach() for module in (rewired, plain))
        same = signs[name] * theirs >= 0
        assert same.float().mean() > 0.95
        assert torch.equal(ours[same & masks[name]], theirs[same & masks[name]])


def test_a_rewired_connection_keeps_its_sign() -> None:
    module = network()
    dynamics = DeepRewiring(module, random_masks(module, 0.3), pull=0.3, noise=0.3, seed=1)
    signs = {name: dynamics.tensors()[f"signs/{name}"].clone() for name in NAMES}
    train(module, dynamics, 10)
    for name in NAMES:
        weight, mask = dict(module.named_parameters())[name].detach(), dynamics.masks[name]
        assert (weight[mask] * signs[name][mask] > 0).all()


def uniform_rule(module: nn.Module, sparsity: float) -> MaskRule:
    recipe = single_run(None, "lenet-300-100", method="top-kast", data="digits", sparsity=sparsity)
    return make_rule(recipe, prunable_tensors(module))[0]


@pytest.mark.parametrize("make", [torch.optim.SGD, torch.optim.Adam])
def test_top_kast_never_changes_what_lies_outside_both_sets(make: Callable[..., torch.optim.Optimizer]) -> None:
    module = network()
    dynamics = TopKast(module, uniform_rule(module, 0.8), 0.8, extra=0.2, penalty=1e-3, every=3)
    counts = [int(mask.sum()) for mask in dynamics.masks.values()]
    theta = {name: dynamics.tensors()[f"theta/{name}"].clone() for name in NAMES}
    allowed = {name: dynamics.backward[name].clone() for name in NAMES}

    def look(step: int) -> None:
        for name in NAMES:
            now = dynamics.tensors()[f"theta/{name}"]
            assert torch.equal(now[~allowed[name]], theta[name][~allowed[name]])
            theta[name], allowed[name] = now.clone(), dynamics.backward[name].clone()
            assert not (dynamics.masks[name] & ~dynamics.backward[name]).any()
            weight = dict(module.named_parameters())[name].detach()
            assert torch.equal(weight, now * dynamics.masks[name])

    settings = {"momentum": 0.9} if make is torch.optim.SGD else {}
    train(module, dynamics, 12, make, after=look, lr=0.02, **settings)
    assert [int(mask.sum()) for mask in dynamics.masks.values()] == counts
    for name, mask in dynamics.masks.items():
        assert int(dynamics.backward[name].sum()) == int(mask.sum()) + round(0.2 * mask.numel())


def test_top_kast_with_nothing_extra_is_training_on_the_largest_weights() -> None:
    module, fixed = network(), network()
    dynamics = TopKast(module, uniform_rule(module, 0.7), 0.7, extra=0, penalty=0, every=1000)
    static = StaticMask(fixed, {name: mask.clone() for name, mask in dynamics.masks.items()})
    train(module, dynamics, 5, momentum=0.9)
    train(fixed, static, 5, momentum=0.9)
    for ours, theirs in zip(module.parameters(), fixed.parameters(), strict=True):
        assert torch.equal(ours, theirs)


def test_the_penalty_of_top_kast_is_its_formula() -> None:
    module = network()
    dynamics = TopKast(module, uniform_rule(module, 0.75), 0.75, extra=0.25, penalty=0.5, every=10)
    theta = {name: dynamics.tensors()[f"theta/{name}"].clone().requires_grad_() for name in NAMES}
    for name, weight in module.named_parameters():
        weight.grad = torch.zeros_like(weight)
        if name in NAMES:
            inside, beyond = dynamics.masks[name], dynamics.backward[name] & ~dynamics.masks[name]
            density = int(inside.sum()) / inside.numel()
            square = theta[name].square()
            torch.autograd.backward(0.25 * (square[inside].sum() + square[beyond].sum() / density))
    dynamics.after_backward(0)
    for name in NAMES:
        torch.testing.assert_close(dict(module.named_parameters())[name].grad, theta[name].grad)


def test_powerpropagation_follows_autograd_through_the_power() -> None:
    alpha = 3.0
    module, oracle = network(), network()
    dynamics = Powerpropagation(module, NAMES, alpha)
    named = dict(oracle.named_parameters())
    phi = {n: (named[n].detach().sign() * named[n].detach().abs() ** (1 / alpha)).requires_grad_() for n in NAMES}
    for step in range(3):
        effective = {n: phi[n] * phi[n].abs() ** (alpha - 1) if n in phi else p for n, p in named.items()}
        inputs, labels = batch(step)
        loss = cross_entropy(torch.func.functional_call(oracle, effective, inputs), labels)
        trained = [phi.get(n, p) for n, p in named.items()]
        gradients = torch.autograd.grad(loss, trained)
        with torch.no_grad():
            for tensor, gradient in zip(trained, gradients, strict=True):
                tensor -= 0.1 * gradient
    train(module, dynamics, 3)
    for name, weight in module.named_parameters():
        wanted = phi[name] * phi[name].abs() ** (alpha - 1) if name in phi else named[name]
        torch.testing.assert_close(weight.detach(), wanted.detach(), rtol=1e-4, atol=1e-6)


def test_powerpropagation_at_one_is_ordinary_training_and_zero_stays_zero() -> None:
    module, plain = network(), network()
    for net in (module, plain):
        dict(net.named_parameters())["0.weight"].data[0, 0] = 0
    train(module, Powerpropagation(module, NAMES, 1.0), 4, momentum=0.9)
    train(plain, Dynamics(plain), 4, momentum=0.9)
    for ours, theirs in zip(module.parameters(), plain.parameters(), strict=True):
        assert torch.equal(ours, theirs)
    powered = network()
    dict(powered.named_parameters())["0.weight"].data[0, 0] = 0
    train(powered, Powerpropagation(powered, NAMES, 2.0), 4)
    assert dict(powered.named_parameters())["0.weight"][0, 0] == 0


def test_explored_weights_only_grow_in_number() -> None:
    module = network()
    dynamics = rules(module, random_masks(module, 0.2))["rigl"]
    seen: list[float] = [dynamics.figures()["explored"]]
    assert seen[0] == pytest.approx(45 / 224, abs=1e-6)
    train(module, dynamics, 20, after=lambda step: seen.append(dynamics.figures()["explored"]))
    assert seen == sorted(seen)
    assert seen[-1] > seen[0]


def test_a_schedule_says_when_it_never_comes_to_an_exchange() -> None:
    for end in range(1, 12):
        for every in range(1, 12):
            comes = any(updates_at(step, end, every) for step in range(end + 1))
            assert bool(never_updates(end, every)) is not comes
    assert never_updates(0, 5) == []


@pytest.mark.parametrize("method", ["rigl", "set", "dsr", "snfs"])
def test_a_training_too_short_for_an_exchange_is_told(method: str, tmp_path: Path) -> None:
    told = {}
    for interval in (5, 1000):
        recipe = single_run(
            None,
            "lenet-300-100",
            data="digits",
            method=method,
            sparsity=0.9,
            epochs=1,
            batch_size=128,
            threads=1,
            method_options=(f"update_interval={interval}",),
        )
        made = prune(recipe, tmp_path / str(interval))
        told[interval] = [text for text in made.metadata.warnings if "never moved" in text]
    assert told[5] == []
    assert len(told[1000]) == 1 and "every 1000 steps" in told[1000][0]
