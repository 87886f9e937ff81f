"""RigL's invariants, and gradual pruning's (methods 2.8 and 5.6): what stays constant while connections move."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.schedule import cubic
from sparsepack.compressor.selection import top_k
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.exact import keep_largest
from sparsepack.compressor.training.gradual import GradualMask
from sparsepack.compressor.training.rigl import RigL
from sparsepack.compressor.training.static import StaticMask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.errors import TrainingDivergedError
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.prunable import prunable_tensors

CPU = torch.device("cpu")
Masks = dict[str, torch.Tensor]


def points() -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(44) % 3
    inputs = (random.standard_normal((44, 6)) + np.eye(3, 6)[labels] * 3).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:12], labels[:12])


def network() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3))


def sparse_masks(module: nn.Module, density: float = 0.25) -> Masks:
    generator = torch.Generator().manual_seed(2)
    masks = {}
    for name, parameter in module.named_parameters():
        if parameter.dim() > 1:
            keep = torch.randperm(parameter.numel(), generator=generator)[: int(density * parameter.numel())]
            masks[name] = torch.zeros(parameter.numel(), dtype=torch.bool)
            masks[name][keep] = True
            masks[name] = masks[name].reshape(parameter.shape)
    return masks


class Look:
    """Collects masks after every step."""

    def __init__(self) -> None:
        self.masks: list[Masks] = []

    def after_step(self, trainer: Trainer) -> None:
        self.masks.append({name: mask.clone() for name, mask in trainer.dynamics.masks.items()})

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        pass


def trained(module: nn.Module, dynamics: Dynamics, **settings: object) -> tuple[Look, Trainer]:
    look = Look()
    values = {"epochs": 4, "batch_size": 8, "learning_rate": 0.1, **settings}
    # By name.
    trainer = Trainer(module, points(), TrainSettings(**values), dynamics, seed=3, device=CPU)  # type: ignore[arg-type]
    trainer.run(look)
    return look, trainer


def test_the_number_of_weights_of_each_layer_never_changes_and_the_rest_are_zero() -> None:
    module = network()
    masks = sparse_masks(module)
    look, _ = trained(module, RigL(module, masks, drop_fraction=0.5, end=24, every=3))
    for step in look.masks:
        assert {name: int(mask.sum()) for name, mask in step.items()} == {
            name: int(mask.sum()) for name, mask in masks.items()
        }
    for name, mask in look.masks[-1].items():
        assert not dict(module.named_parameters())[name][~mask].any()


def test_masks_move_at_the_interval_until_the_end_and_at_no_other_step() -> None:
    module = network()
    look, _ = trained(module, RigL(module, sparse_masks(module), drop_fraction=0.9, end=18, every=5))
    pairs = zip(look.masks, look.masks[1:], strict=False)
    moved = [step + 1 for step, (a, b) in enumerate(pairs) if any(not torch.equal(a[name], b[name]) for name in a)]
    assert moved
    assert set(moved) <= {5, 10, 15}


def test_an_exchange_drops_the_smallest_weights_and_grows_the_largest_gradients() -> None:
    module = nn.Linear(8, 1, bias=False)
    mask = torch.tensor([[1, 1, 1, 1, 0, 0, 0, 0]], dtype=torch.bool)
    rigl = RigL(module, {"weight": mask}, drop_fraction=0.5, end=10, every=1)
    module.weight.data = torch.tensor([[0.4, -0.1, 0.2, -0.3, 0, 0, 0, 0]])
    #                          kept, small: |g| counts only where the weight has left
    module.weight.grad = torch.tensor([[9.0, 0.1, 0.2, 9.0, 0.0, -0.5, 0.4, 0.1]])
    rigl.exchange(0.5, 1)
    # Dropped: -0.1 and 0.2. Largest gradients among what is then free: -0.5 and 0.4.
    assert rigl.masks["weight"].tolist() == [[True, False, False, True, False, True, True, False]]
    torch.testing.assert_close(module.weight.data, torch.tensor([[0.4, 0, 0, -0.3, 0, 0, 0, 0]]))


def test_a_weight_that_comes_back_in_the_same_exchange_keeps_value_and_momentum() -> None:
    module = nn.Linear(4, 1, bias=False)
    rigl = RigL(module, {"weight": torch.tensor([[True, True, False, False]])}, drop_fraction=0.5, end=10, every=1)
    module.weight.data = torch.tensor([[0.1, 0.4, 0, 0]])
    optimiser = torch.optim.SGD(module.parameters(), lr=0.1, momentum=0.9)
    optimiser.state[module.weight]["momentum_buffer"] = torch.tensor([[3.0, 4.0, 0, 0]])
    rigl.attach(optimiser)
    module.weight.grad = torch.tensor([[5.0, 0.0, 1.0, 1.0]])
    rigl.exchange(0.5, 1)
    assert rigl.masks["weight"].tolist() == [[True, True, False, False]]
    assert module.weight.data.tolist() == [[pytest.approx(0.1), pytest.approx(0.4), 0, 0]]
    assert optimiser.state[module.weight]["momentum_buffer"].tolist() == [[3, 4, 0, 0]]


def test_what_leaves_is_forgotten_and_what_comes_in_starts_with_nothing() -> None:
    module = nn.Linear(4, 1, bias=False)
    rigl = RigL(module, {"weight": torch.tensor([[True, True, False, False]])}, drop_fraction=0.5, end=10, every=1)
    module.weight.data = torch.tensor([[0.1, 0.4, 0, 0]])
    optimiser = torch.optim.Adam(module.parameters(), lr=0.1)
    optimiser.state[module.weight] = {
        "step": torch.tensor(3.0),
        "exp_avg": torch.tensor([[3.0, 4.0, 0, 0]]),
        "exp_avg_sq": torch.tensor([[5.0, 6.0, 0, 0]]),
    }
    rigl.attach(optimiser)
    module.weight.grad = torch.tensor([[0.0, 0.0, 1.0, 2.0]])
    rigl.exchange(0.5, 1)
    state = optimiser.state[module.weight]
    assert rigl.masks["weight"].tolist() == [[False, True, False, True]]
    assert module.weight.data.tolist() == [[0, pytest.approx(0.4), 0, 0]]
    assert state["exp_avg"].tolist() == [[0, 4, 0, 0]]
    assert state["exp_avg_sq"].tolist() == [[0, 6, 0, 0]]
    assert state["step"].item() == 3


def test_growth_leaves_the_output_as_it_was_but_for_what_was_dropped() -> None:
    module = network()
    rigl = RigL(module, sparse_masks(module), drop_fraction=0.5, end=10, every=1)
    rigl.attach(torch.optim.SGD(module.parameters(), lr=0.1))
    inputs, labels = next(points().batches("train", 44, shuffle=False))
    torch.autograd.backward(F.cross_entropy(module(inputs), labels))
    old = {name: mask.clone() for name, mask in rigl.masks.items()}
    assert rigl.exchange(0.5, 1)
    after = module(inputs)
    parameters = dict(module.named_parameters())
    # The grown weights are zero, so leaving them out again changes nothing, bit for bit.
    with torch.no_grad():
        for name, mask in rigl.masks.items():
            assert (mask & ~old[name]).any()
            parameters[name].masked_fill_(mask & ~old[name], 0.0)
    assert torch.equal(module(inputs), after)


def test_a_hidden_weight_of_largest_gradient_is_always_grown() -> None:
    module = network()
    masks = sparse_masks(module)
    rigl = RigL(module, masks, drop_fraction=0.3, end=10, every=1)
    hidden = (~masks["0.weight"]).nonzero()[3]
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    module[0].weight.grad[tuple(hidden)] = -1.0
    rigl.exchange(0.3, 1)
    assert rigl.masks["0.weight"][tuple(hidden)]


def test_an_exchange_takes_the_place_of_the_optimiser_s_step() -> None:
    module = network()
    rigl = RigL(module, sparse_masks(module), drop_fraction=0.5, end=10, every=4)
    for parameter in module.parameters():
        parameter.grad = torch.ones_like(parameter)
    assert not rigl.after_backward(4)
    assert rigl.after_backward(5)
    assert not any(w.grad[~rigl.masks[n]].any() for n, w in module.named_parameters() if n in rigl.masks)


def test_with_nothing_to_exchange_it_is_training_with_a_static_mask() -> None:
    rigl, static = network(), network()
    masks = sparse_masks(rigl)
    # int(0.01 * nnz) is 0 in every layer.
    trained(rigl, RigL(rigl, masks, drop_fraction=0.01, end=24, every=2))
    trained(static, StaticMask(static, masks))
    for a, b in zip(rigl.parameters(), static.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_layer_that_is_dense_stays_as_it_is() -> None:
    module = network()
    masks = sparse_masks(module) | {"2.weight": torch.ones(3, 8, dtype=torch.bool)}
    look, _ = trained(module, RigL(module, masks, drop_fraction=0.9, end=24, every=2))
    assert all(step["2.weight"].all() for step in look.masks)


def test_operations_are_those_of_the_paper() -> None:
    module = network()
    rigl = RigL(
        module,
        sparse_masks(module),
        drop_fraction=0.9,
        end=1000,
        every=5,
        flops=lambda masks: 3,
        exchange_flops=lambda masks: 100,
    )
    _, trainer = trained(module, rigl)
    # Exchanges at 5, 10, 15, 20; step 5 is the last of an epoch (44 = 5 * 8 + 4 examples).
    exchanged = 8 * 3 + 4 * 1
    assert trainer.flops == 100 * exchanged + 3 * (4 * 44 - exchanged)


def test_a_gradient_that_is_not_finite_stops_the_run() -> None:
    module = network()
    rigl = RigL(module, sparse_masks(module), drop_fraction=0.5, end=10, every=1)
    for parameter in module.parameters():
        parameter.grad = torch.full_like(parameter, torch.nan)
    with pytest.raises(TrainingDivergedError, match=r"the gradient of '0\.weight' is not finite at step 7"):
        rigl.exchange(0.5, 7)


@given(st.lists(st.sampled_from([0.0, -0.0, 1.0, 2.0, 2.5, 3.0]), min_size=1, max_size=40), st.data())
def test_the_fast_selection_is_the_exact_one_ties_included(values: list[float], data: st.DataObject) -> None:
    scores = np.array(values, np.float32)
    k = data.draw(st.integers(0, len(values)))
    np.testing.assert_array_equal(keep_largest(scores, k), top_k([scores], k)[0])


def test_the_fast_selection_refuses_nan() -> None:
    with pytest.raises(TrainingDivergedError, match="became NaN"):
        keep_largest(np.array([1.0, np.nan, 0.5], np.float32), 1)


def gradual(module: nn.Module, allocation: str, sparsity: float = 0.75) -> GradualMask:
    space = make_space(prunable_tensors(module), Element())
    return GradualMask(module, MaskRule(space, Element(), allocation), sparsity, start=4, end=20, every=3)


@pytest.mark.parametrize("allocation", ["global", "uniform", "erdos-renyi"])
def test_gradual_masks_are_nested_and_follow_the_cubic(allocation: str) -> None:
    module = network()
    look, _ = trained(module, gradual(module, allocation))
    total = 48 + 24
    for step, masks in enumerate(look.masks):
        due = max((t for t in (*range(4, 20, 3), 20) if t <= step + 1), default=None)
        sparsity = 0.0 if due is None else cubic(due, 4, 20, 0.75)
        assert sum(int(m.sum()) for m in masks.values()) == total - round(sparsity * total)
    for earlier, later in zip(look.masks, look.masks[1:], strict=False):
        assert all(not (later[name] & ~earlier[name]).any() for name in later)
    for name, mask in look.masks[-1].items():
        assert not dict(module.named_parameters())[name][~mask].any()


def test_gradual_pruning_of_frozen_weights_removes_them_in_order_of_magnitude() -> None:
    module = network()
    weights = {name: p.detach().abs().clone() for name, p in module.named_parameters() if p.dim() > 1}
    look, _ = trained(module, gradual(module, "global"), learning_rate=1e-12, weight_decay=0.0)
    order = torch.cat([w.flatten() for w in weights.values()]).sort(descending=True).values
    final = torch.cat([weights[name][mask] for name, mask in look.masks[-1].items()]).sort(descending=True).values
    torch.testing.assert_close(final, order[: len(final)], rtol=1e-6, atol=1e-6)
