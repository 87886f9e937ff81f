"""What dynamic sparse training conserves, over networks, densities, optimisers and schedules that hypothesis draws.

For each rule: the weights of every layer, or of the network where they may move between layers, stay as many; what is
pruned is exactly zero; what comes in starts at nothing, in the weights and in the optimiser's memory, so that the
network computes what it would if weights had only left; and a training that is taken up again goes on in the same bits.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.dynamic_sparse.deep_rewiring import DeepRewiring
from sparsepack.compressor.training.dynamic_sparse.powerpropagation import Powerpropagation
from sparsepack.compressor.training.dynamic_sparse.reparameterization import DynamicReparameterization
from sparsepack.compressor.training.dynamic_sparse.sparse_evolution import SparseEvolution
from sparsepack.compressor.training.dynamic_sparse.sparse_momentum import SparseMomentum
from sparsepack.compressor.training.dynamic_sparse.top_kast import TopKast
from sparsepack.compressor.training.dynamics import Dynamics, Masks
from sparsepack.compressor.training.rigl import RigL
from sparsepack.models.prunable import prunable_tensors

STEPS = 8


@dataclass(frozen=True)
class Case:
    """A training that is drawn.

    Attributes:
        widths: of the layers.
        kept: weights that each layer begins with.
        adam: Adam in the place of SGD with momentum.
        every: steps between two exchanges.
        fraction: share that an exchange moves.
        seed: of weights, masks and batches.
    """

    widths: tuple[int, ...]
    kept: tuple[int, ...]
    adam: bool
    every: int
    fraction: float
    seed: int

    def module(self) -> nn.Sequential:
        """Return the network, the same at each call."""
        torch.manual_seed(self.seed)
        layers: list[nn.Module] = []
        for inputs, outputs in pairwise(self.widths):
            layers += [nn.Linear(inputs, outputs), nn.ReLU()]
        return nn.Sequential(*layers[:-1])

    def masks(self, module: nn.Module) -> Masks:
        """Return random masks."""
        random = np.random.default_rng(self.seed)
        weights = {name: p for name, p in module.named_parameters() if p.dim() > 1}
        return {
            name: torch.from_numpy(random.permutation(weight.numel()) < kept).reshape(weight.shape)
            for (name, weight), kept in zip(weights.items(), self.kept, strict=True)
        }

    def optimiser(self, dynamics: Dynamics) -> torch.optim.Optimizer:
        """Return an optimiser with memory, and with weight decay."""
        if self.adam:
            return torch.optim.Adam(dynamics.parameter_groups(), lr=0.02, weight_decay=1e-3)
        return torch.optim.SGD(dynamics.parameter_groups(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    def batch(self, step: int) -> tuple[torch.Tensor, torch.Tensor]:
        """Return inputs and labels of one step."""
        generator = torch.Generator().manual_seed(1000 * self.seed + step)
        inputs = torch.randn(16, self.widths[0], generator=generator)
        return inputs, torch.randint(0, self.widths[-1], (16,), generator=generator)


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """Draw a training: two or three layers, any number of kept weights in each, empty and full ones too."""
    widths = tuple(draw(st.lists(st.integers(2, 9), min_size=3, max_size=4)))
    kept = tuple(draw(st.integers(0, a * b)) for a, b in pairwise(widths))
    return Case(
        widths,
        kept,
        draw(st.booleans()),
        draw(st.integers(1, 4)),
        draw(st.floats(0.05, 0.9)),
        draw(st.integers(0, 999)),
    )


Make = Callable[[nn.Module, Masks, Case], Dynamics]

# Rules whose every exchange is: some leave, as many come in at zero.
EXCHANGING: dict[str, Make] = {
    "set": lambda module, masks, case: SparseEvolution(
        module, masks, fraction=case.fraction, every=case.every, end=99, by_sign=True, seed=case.seed
    ),
    "dsr": lambda module, masks, case: DynamicReparameterization(
        module, masks, fraction=case.fraction, threshold=0.1, every=case.every, end=99, seed=case.seed
    ),
    "snfs": lambda module, masks, case: SparseMomentum(
        module, masks, rate=case.fraction, every=case.every, total_steps=99, smoothing=0.9
    ),
    "rigl": lambda module, masks, case: RigL(module, masks, drop_fraction=case.fraction, end=99, every=case.every),
    # What rigl-itop is: rare, large exchanges to the end of the training.
    "rigl-itop": lambda module, masks, case: RigL(
        module, masks, drop_fraction=0.5, end=STEPS, every=max(3, case.every)
    ),
}
REDISTRIBUTES = ("dsr", "snfs")


def deep_rewiring(module: nn.Module, masks: Masks, case: Case) -> DeepRewiring:
    """Return DeepR with so much pull and noise that signs change."""
    return DeepRewiring(module, masks, pull=0.3, noise=case.fraction, seed=case.seed)


def top_kast(module: nn.Module, case: Case) -> TopKast:
    """Return Top-KAST with the densities of the case."""
    space = make_space(prunable_tensors(module), Element())
    densities = {t.name: kept / t.size for t, kept in zip(space.tensors, case.kept, strict=True)}
    sparsity = 1 - sum(case.kept) / space.total
    rule = MaskRule(space, Element(), densities)
    return TopKast(module, rule, sparsity, extra=case.fraction / 2, penalty=1e-3, every=case.every)


def step_of(
    module: nn.Module,
    dynamics: Dynamics,
    optimiser: torch.optim.Optimizer,
    case: Case,
    step: int,
    look: Callable[[], None] = lambda: None,
) -> None:
    """Take one step; ``look`` is called each time that the dynamics are about to move something."""
    for parameter in module.parameters():
        parameter.grad = None
    for group in optimiser.param_groups:
        for parameter in group["params"]:
            parameter.grad = None
    dynamics.before_forward(step)
    inputs, labels = case.batch(step)
    torch.autograd.backward(cross_entropy(module(inputs), labels))
    look()
    if dynamics.after_backward(step):
        optimiser.step()
        look()
    dynamics.after_step(step)


def weights_of(module: nn.Module, names: Mapping[str, object]) -> dict[str, torch.Tensor]:
    """Return copies of the weights that are masked."""
    return {name: p.detach().clone() for name, p in module.named_parameters() if name in names}


def counts(masks: Masks) -> dict[str, int]:
    """Return how many weights each mask keeps."""
    return {name: int(mask.sum()) for name, mask in masks.items()}


def check_memory(module: nn.Module, optimiser: torch.optim.Optimizer, where: Masks) -> None:
    """The optimiser remembers nothing of these places."""
    for name, weight in module.named_parameters():
        if name in where:
            for slot in optimiser.state.get(weight, {}).values():
                if isinstance(slot, torch.Tensor) and slot.shape == weight.shape:
                    assert not slot[where[name]].any()


@pytest.mark.parametrize("name", EXCHANGING)
@given(case=cases())
@settings(max_examples=8)
def test_an_exchange_conserves_counts_zeroes_what_leaves_and_starts_what_comes_with_nothing(
    name: str, case: Case
) -> None:
    module = case.module()
    dynamics = EXCHANGING[name](module, case.masks(module), case)
    optimiser = case.optimiser(dynamics)
    dynamics.attach(optimiser)
    begun = counts(dynamics.masks)
    before: dict[str, torch.Tensor] = {}

    def look() -> None:
        before.update(weights_of(module, begun))

    for step in range(STEPS):
        old = {key: mask.clone() for key, mask in dynamics.masks.items()}
        step_of(module, dynamics, optimiser, case, step, look)
        now = counts(dynamics.masks)
        assert sum(now.values()) == sum(begun.values())
        if name not in REDISTRIBUTES:
            assert now == begun
        assert all(0 <= number <= mask.numel() for number, mask in zip(now.values(), old.values(), strict=True))
        for key, weight in weights_of(module, begun).items():
            mask = dynamics.masks[key]
            assert not weight[~mask].any()
            grown = mask & ~old[key]
            # Every weight is what it was, or gone: growth itself changes nothing of what the network computes.
            assert not weight[grown].any()
            assert ((weight == before[key]) | (weight == 0)).all()
            if name.startswith("rigl"):
                # What leaves and comes back in one exchange keeps its value.
                assert torch.equal(weight[mask], before[key][mask])
        check_memory(module, optimiser, {key: ~mask | (mask & ~old[key]) for key, mask in dynamics.masks.items()})


@given(case=cases())
@settings(max_examples=8)
def test_rewiring_conserves_counts_and_begins_next_to_zero_with_its_sign(case: Case) -> None:
    module = case.module()
    dynamics = deep_rewiring(module, case.masks(module), case)
    optimiser = case.optimiser(dynamics)
    dynamics.attach(optimiser)
    begun = counts(dynamics.masks)
    signs = {key: dynamics.tensors()[f"signs/{key}"].clone() for key in begun}
    for step in range(STEPS):
        old = {key: mask.clone() for key, mask in dynamics.masks.items()}
        step_of(module, dynamics, optimiser, case, step)
        assert counts(dynamics.masks) == begun
        for key, weight in weights_of(module, begun).items():
            mask = dynamics.masks[key]
            assert not weight[~mask].any()
            assert (weight[mask & ~old[key]].abs() <= 1e-12).all()
            assert ((weight * signs[key])[mask] >= 0).all()
        check_memory(module, optimiser, {key: ~mask | (mask & ~old[key]) for key, mask in dynamics.masks.items()})


@given(case=cases())
@settings(max_examples=8)
def test_the_two_sets_of_top_kast_keep_their_sizes_and_nothing_else_moves(case: Case) -> None:
    module = case.module()
    dynamics = top_kast(module, case)
    optimiser = case.optimiser(dynamics)
    dynamics.attach(optimiser)
    forward, backward = counts(dynamics.masks), counts(dynamics.backward)
    assert tuple(forward.values()) == case.kept
    for step in range(STEPS):
        theta = {key: dynamics.tensors()[f"theta/{key}"].clone() for key in forward}
        allowed = {key: mask.clone() for key, mask in dynamics.backward.items()}
        step_of(module, dynamics, optimiser, case, step)
        assert (counts(dynamics.masks), counts(dynamics.backward)) == (forward, backward)
        for key, weight in weights_of(module, forward).items():
            now = dynamics.tensors()[f"theta/{key}"]
            assert torch.equal(now[~allowed[key]], theta[key][~allowed[key]])
            assert not (dynamics.masks[key] & ~dynamics.backward[key]).any()
            assert torch.equal(weight, now * dynamics.masks[key])
        # What was trained and no longer is, the optimiser has forgotten.
        check_memory(module, optimiser, {key: allowed[key] & ~dynamics.backward[key] for key in forward})


@given(case=cases(), alpha=st.floats(1, 5))
@settings(max_examples=8)
def test_a_power_of_what_is_trained_keeps_its_zeros(case: Case, alpha: float) -> None:
    module = case.module()
    masks = case.masks(module)
    with torch.no_grad():
        for key, parameter in module.named_parameters():
            if key in masks:
                parameter.mul_(masks[key])
    start = weights_of(module, masks)
    dynamics = Powerpropagation(module, tuple(masks), alpha)
    for key, weight in weights_of(module, masks).items():
        torch.testing.assert_close(weight, start[key], rtol=1e-5, atol=1e-7)
    optimiser = case.optimiser(dynamics)
    dynamics.attach(optimiser)
    for step in range(STEPS):
        step_of(module, dynamics, optimiser, case, step)
        for key, weight in weights_of(module, masks).items():
            phi = dynamics.tensors()[f"phi/{key}"]
            torch.testing.assert_close(weight, phi.sign() * phi.abs() ** alpha, rtol=1e-4, atol=1e-7)
            if alpha > 1:
                # Zero is a fixed point: the gradient of a power is zero there.
                assert not weight[~masks[key]].any()


@pytest.mark.parametrize("name", [*EXCHANGING, "deep-rewiring", "top-kast", "powerpropagation"])
@given(case=cases(), stop=st.integers(1, STEPS - 1))
@settings(max_examples=4)
def test_what_is_taken_up_again_goes_on_in_the_same_bits(name: str, case: Case, stop: int) -> None:
    def make(module: nn.Module) -> Dynamics:
        if name == "top-kast":
            return top_kast(module, case)
        if name == "powerpropagation":
            return Powerpropagation(module, tuple(case.masks(module)), 2.0)
        masks = case.masks(module)
        return deep_rewiring(module, masks, case) if name == "deep-rewiring" else EXCHANGING[name](module, masks, case)

    module = case.module()
    dynamics = make(module)
    optimiser = case.optimiser(dynamics)
    dynamics.attach(optimiser)
    torch.manual_seed(5)
    for step in range(stop):
        step_of(module, dynamics, optimiser, case, step)
    other = copy.deepcopy(module)
    resumed = make(other)
    with torch.no_grad():
        for parameter, saved in zip(other.parameters(), module.parameters(), strict=True):
            parameter.copy_(saved)
    resumed.restore({key: tensor.clone() for key, tensor in dynamics.tensors().items()})
    again = case.optimiser(resumed)
    again.load_state_dict(copy.deepcopy(optimiser.state_dict()))
    resumed.attach(again)
    random = torch.get_rng_state()
    for step in range(stop, STEPS):
        step_of(module, dynamics, optimiser, case, step)
    torch.set_rng_state(random)
    for step in range(stop, STEPS):
        step_of(other, resumed, again, case, step)
    for one, two in zip(module.parameters(), other.parameters(), strict=True):
        assert torch.equal(one, two)
    assert all(torch.equal(resumed.masks[key], mask) for key, mask in dynamics.masks.items())
