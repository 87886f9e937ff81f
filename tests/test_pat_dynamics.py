"""Masks, thresholds and penalties that move while a network trains: against autograd and closed forms."""

import math
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from probes import CPU, linear_network, points
from torch import nn

from sparsepack.compressor.counter import Counter
from sparsepack.compressor.methods import METHODS
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import NofM, parse_structure
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.global_momentum import GlobalSparseMomentum
from sparsepack.compressor.training.growing import GrowingPenalty, rank_increments
from sparsepack.compressor.training.movement import Movement, StraightThrough, Surgery
from sparsepack.compressor.training.penalties import GroupLasso, ScalePenalty, group_lasso_gradient
from sparsepack.compressor.training.pruning_table import PRUNING
from sparsepack.compressor.training.table import DYNAMICS, Context
from sparsepack.compressor.training.thresholds import (
    ScaledUnits,
    SoftThreshold,
    UnitThreshold,
    proximal_step,
    step_slope,
)
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.compressor.training.weights import state_tensors
from sparsepack.errors import UnsupportedError
from sparsepack.models.prunable import prunable_tensors


def rule_of(module: nn.Module, structure: str = "element", allocation: str = "global") -> MaskRule:
    form = parse_structure(structure)
    return MaskRule(make_space(prunable_tensors(module), form), form, allocation)


def step(module: nn.Module, dynamics: Dynamics, optimiser: torch.optim.Optimizer, number: int, **given: Any) -> None:
    """Take one step of the training loop with given gradients instead of a loss."""
    dynamics.before_forward(number)
    for name, parameter in module.named_parameters():
        parameter.grad = given[name.replace(".", "_")].clone()
    if dynamics.after_backward(number):
        optimiser.step()
    dynamics.after_step(number)


def began(module: nn.Module, dynamics: Dynamics, rate: float = 0.1, **more: Any) -> torch.optim.Optimizer:
    optimiser = torch.optim.SGD(dynamics.parameter_groups(), lr=rate, **more)
    dynamics.attach(optimiser)
    return optimiser


def test_movement_adds_up_what_moves_away_from_zero() -> None:
    module = linear_network(5, 4)
    w = module[0].weight.detach().clone()
    dynamics = Movement(module, rule_of(module), 0.5, rate=0.3, start=1, end=3)
    optimiser = began(module, dynamics)
    scores = torch.zeros_like(w)
    mask = torch.ones_like(w, dtype=torch.bool)
    generator = torch.Generator().manual_seed(0)
    for number in range(5):
        g = torch.randn(w.shape, generator=generator)
        scores -= 0.3 * g * w
        w -= 0.1 * g * mask
        step(module, dynamics, optimiser, number, **{"0_weight": g})
        # (1 - t)^3 of the way at the middle step, then all of it.
        sparsity = [0.0, 0.5 * (1 - 0.5**3), 0.5][min(number, 2)]
        kept = 20 - round(sparsity * 20)
        mask = torch.zeros(20, dtype=torch.bool)
        mask[scores.flatten().argsort(descending=True)[:kept]] = True
        mask = mask.reshape(w.shape)
        assert torch.equal(dynamics.masks["0.weight"], mask)
        assert torch.allclose(module[0].weight, w * mask)
    dynamics.finish()
    assert int(dynamics.masks["0.weight"].sum()) == 10
    assert torch.allclose(module[0].weight, w * mask)


def test_soft_movement_cuts_at_a_threshold_and_ends_exact() -> None:
    module = linear_network(5, 4)
    dynamics = Movement(module, rule_of(module), 0.75, rate=1.0, start=0, end=1, soft=True, threshold=0.5, penalty=20.0)
    optimiser = began(module, dynamics)
    w = module[0].weight.detach().clone()
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(1))
    step(module, dynamics, optimiser, 0, **{"0_weight": g})
    # d/dS of 20 * mean sigmoid(S) at S = 0 is 20 / 20 / 4 for each of the 20 weights.
    scores = -g * w - 0.25
    assert torch.equal(dynamics.masks["0.weight"], scores > 0)
    dynamics.finish()
    assert int(dynamics.masks["0.weight"].sum()) == 5
    assert torch.equal(module[0].weight != 0, dynamics.masks["0.weight"])


def test_surgery_has_two_thresholds_and_pruned_weights_learn() -> None:
    module: Any = nn.Sequential(nn.Linear(4, 1, bias=False))
    with torch.no_grad():
        module[0].weight.copy_(torch.tensor([[0.5, 1.0, 1.05, 2.0]]))
    # Half of the layer lies below t = 1.05: prune at 0.945 or less, splice above 1.155.
    dynamics = Surgery(module, rule_of(module, allocation="uniform"), 0.5, gamma=0.0, power=1.0, end=4, seed=0)
    optimiser = began(module, dynamics, rate=1.0)
    table = [
        # (change of the four weights, mask afterwards)
        ([0.0, 0.0, 0.0, 0.0], [False, True, True, True]),
        ([0.5, -0.1, 0.05, -1.0], [False, False, True, True]),
        ([0.1, 0.2, 0.0, -0.1], [False, False, True, False]),
        ([0.1, 0.1, -0.1, 0.3], [True, True, True, True]),
        ([-1.0, 0.0, 0.0, 0.0], [True, True, True, True]),
    ]
    w = torch.tensor([[0.5, 1.0, 1.05, 2.0]])
    for number, (change, kept) in enumerate(table):
        w += torch.tensor([change])
        step(module, dynamics, optimiser, number, **{"0_weight": -torch.tensor([change])})
        assert dynamics.masks["0.weight"].tolist() == [kept], number
        assert torch.allclose(module[0].weight, w * dynamics.masks["0.weight"])


def test_surgery_moves_masks_less_and_less_often() -> None:
    module = linear_network(4, 2)
    dynamics = Surgery(module, rule_of(module), 0.5, gamma=1.0, power=1.0, end=4000, seed=0)
    moved = []
    dynamics._recount = lambda: moved.append(True)  # type: ignore[method-assign]  # counts the calls
    for number in range(4000):
        dynamics.advance(number)
    # The sum of 1 / (1 + step) over 4,000 steps is 8.9.
    assert 3 <= len(moved) <= 16


@pytest.mark.parametrize("decay", [0.0, 0.2])
def test_straight_through_trains_all_and_decays_what_is_out(decay: float) -> None:
    module = linear_network(8, 3)
    w = module[0].weight.detach().clone()
    dynamics = StraightThrough(module, rule_of(module, "2:4"), 0.5, decay=decay)
    optimiser = began(module, dynamics)
    generator = torch.Generator().manual_seed(0)
    for number in range(4):
        blocks = w.abs().reshape(-1, 4)
        kept = torch.zeros_like(blocks, dtype=torch.bool).scatter_(1, blocks.topk(2).indices, True).reshape(w.shape)
        assert torch.equal(dynamics.masks["0.weight"], kept)
        assert torch.allclose(module[0].weight, w * kept)
        g = torch.randn(w.shape, generator=generator)
        w = w - 0.1 * (g + decay * w * ~kept)
        step(module, dynamics, optimiser, number, **{"0_weight": g})
    assert dynamics._rule.structure == NofM(2, 4)


def test_a_soft_threshold_has_the_gradients_of_its_formula() -> None:
    module = linear_network(6, 5)
    dynamics = SoftThreshold(module, rule_of(module), 0.5, start=-2.0, decay=0.3)
    optimiser = began(module, dynamics)
    w = dynamics._behind["0.weight"].clone().requires_grad_()
    s = torch.tensor(-2.0, requires_grad=True)
    shown = w.sign() * torch.relu(w.abs() - torch.sigmoid(s))
    assert torch.allclose(module[0].weight, shown)
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
    dw, ds = torch.autograd.grad((shown * g).sum(), [w, s])
    step(module, dynamics, optimiser, 0, **{"0_weight": g})
    assert torch.allclose(dynamics._behind["0.weight"], w - 0.1 * dw)
    assert torch.allclose(dynamics._learned["0.weight"], s - 0.1 * (ds + 0.3 * s))
    margin = dynamics._behind["0.weight"].abs() - torch.sigmoid(dynamics._learned["0.weight"])
    dynamics.finish()
    best = margin.flatten().argsort(descending=True)[:15]
    assert dynamics.masks["0.weight"].flatten()[best].all()
    assert int(dynamics.masks["0.weight"].sum()) == 15


class Step(torch.autograd.Function):
    """The unit step with the long-tailed derivative, written as a table."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
        ctx.save_for_backward(x)
        return (x >= 0).to(x.dtype)

    @staticmethod
    def backward(ctx: Any, *gradients: torch.Tensor) -> torch.Tensor:
        (x,) = ctx.saved_tensors
        slope = [2 - 4 * abs(v) if abs(v) <= 0.4 else 0.4 if abs(v) <= 1 else 0.0 for v in x.flatten().tolist()]
        return gradients[0] * torch.tensor(slope).reshape(x.shape)


def test_unit_thresholds_have_the_gradients_of_the_long_tailed_step() -> None:
    torch.manual_seed(0)
    module: Any = nn.Sequential(nn.Conv2d(2, 3, 2, bias=False))
    with torch.no_grad():
        module[0].weight.mul_(3)
    dynamics = UnitThreshold(module, rule_of(module), 0.5, alpha=0.05)
    optimiser = began(module, dynamics)
    w = dynamics._behind["0.weight"].clone()
    t = torch.zeros(3, 1, 1, 1)
    for number in range(3):
        w, t = w.detach().requires_grad_(), t.detach().requires_grad_()
        shown = w * Step.apply(w.abs() - t)  # type: ignore[no-untyped-call]  # untyped in torch
        assert torch.allclose(module[0].weight, shown)
        g = torch.randn(w.shape, generator=torch.Generator().manual_seed(number))
        dw, dt = torch.autograd.grad((shown * g).sum() + 0.05 * torch.exp(-t).sum(), [w, t])
        step(module, dynamics, optimiser, number, **{"0_weight": g})
        w, t = w - 0.1 * dw, t - 0.1 * dt
        assert torch.allclose(dynamics._behind["0.weight"], w, atol=1e-6)
        assert torch.allclose(dynamics._learned["0.weight"], t, atol=1e-6)


def test_the_slope_of_the_step() -> None:
    x = torch.tensor([0.0, 0.2, -0.4, 0.5, -1.0, 1.01])
    assert torch.allclose(step_slope(x), torch.tensor([2.0, 1.2, 0.4, 0.4, 0.4, 0.0]))


def test_proximal_steps_end_at_the_soft_threshold() -> None:
    # For 1/2 (s - b)^2 + gamma |s| the minimum is sign(b) max(0, |b| - gamma).
    b = torch.tensor([2.0, -0.3, 0.05, -1.0])
    scales, speeds = torch.ones(4), torch.zeros(4)
    for _ in range(400):
        scales, speeds = proximal_step(scales, speeds, scales - b, 0.1, 0.5, 0.8)
    assert torch.allclose(scales, torch.tensor([1.5, 0.0, 0.0, -0.5]), atol=1e-5)


def test_scales_of_units_move_by_their_own_gradient() -> None:
    module = linear_network(6, 5, 3)
    dynamics = ScaledUnits(module, rule_of(module, "channel", "uniform"), 0.4, penalty=0.0, momentum=0.0)
    optimiser = began(module, dynamics)
    scale = torch.ones(5, 1, requires_grad=True)
    w = dynamics._behind["0.weight"].clone().requires_grad_()
    g = torch.randn(w.shape, generator=torch.Generator().manual_seed(0))
    dw, ds = torch.autograd.grad((w * scale * g).sum(), [w, scale])
    step(module, dynamics, optimiser, 0, **{"0_weight": g, "2_weight": torch.zeros(3, 5)})
    assert torch.allclose(dynamics._behind["0.weight"], w - 0.1 * dw)
    assert torch.allclose(dynamics._scales["0.weight"], scale - 0.1 * ds)
    assert torch.allclose(module[0].weight, (w - 0.1 * dw) * (scale - 0.1 * ds))
    smallest = dynamics._scales["0.weight"].abs().flatten().argsort()[:2]
    dynamics.finish()
    assert torch.equal((~dynamics.masks["0.weight"]).all(dim=1).nonzero().flatten(), smallest.sort().values)


def test_the_gradient_of_the_group_lasso_is_autograds() -> None:
    w = torch.randn(4, 3, 2, 2, generator=torch.Generator().manual_seed(0), requires_grad=True)
    for axis in (0, 1):
        norms = torch.linalg.vector_norm(w.transpose(0, axis).reshape(w.shape[axis], -1), dim=1)
        (expected,) = torch.autograd.grad(norms.sum(), [w])
        assert torch.allclose(group_lasso_gradient(w.detach(), axis), expected, atol=1e-6)
    assert not group_lasso_gradient(torch.zeros(2, 3), 0).any()


def test_group_lasso_shrinks_whole_rows_as_its_proximal_operator() -> None:
    # Orthonormal design: minimise 1/2 |W - B|^2 + lambda sum |W_f|, solved by max(0, 1 - lambda / |B_f|) B_f.
    module = linear_network(2, 3)
    b = torch.tensor([[3.0, 4.0], [0.3, 0.4], [-1.0, 0.0]])
    dynamics = GroupLasso(module, rule_of(module), filters=0.8, channels=0.0)
    optimiser = began(module, dynamics, rate=0.01)
    for number in range(1500):
        step(module, dynamics, optimiser, number, **{"0_weight": module[0].weight.detach() - b})
    expected = torch.tensor([[3.0 * 0.84, 4.0 * 0.84], [0.0, 0.0], [-0.2, 0.0]])
    # Without the proximal operator the middle row only hovers around zero, one step away.
    assert torch.allclose(module[0].weight, expected, atol=0.02)


def test_the_scale_penalty_is_the_subgradient_of_l1() -> None:
    module: Any = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))
    with torch.no_grad():
        module[1].weight.copy_(torch.tensor([1.0, -2.0, 0.0, 0.5]))
    dynamics = ScalePenalty(module, 0.1)
    for parameter in module.parameters():
        parameter.grad = torch.zeros_like(parameter)
    dynamics.after_backward(0)
    assert torch.allclose(module[1].weight.grad, torch.tensor([0.1, -0.1, 0.0, 0.1]))
    assert not module[1].bias.grad.any()
    assert not module[0].weight.grad.any()
    with pytest.raises(UnsupportedError, match="scales of batch normalisation here, and this network has none"):
        ScalePenalty(linear_network(3, 2), 0.1)


def grown(kind: str, steps: int = 20, **options: Any) -> tuple[torch.Tensor, torch.Tensor, GrowingPenalty]:
    """Return first and last weights of a training whose loss has no gradient."""
    module = linear_network(5, 4)
    first = module[0].weight.detach().clone()
    dynamics = GrowingPenalty(module, rule_of(module), 0.5, kind=kind, ceiling=1.0, every=2, **options)
    optimiser = began(module, dynamics, rate=0.1)
    for number in range(steps):
        step(module, dynamics, optimiser, number, **{"0_weight": torch.zeros(4, 5)})
    return first, module[0].weight.detach().clone(), dynamics


def test_greg_1_decays_what_the_l1_norm_picks_by_the_product_of_its_coefficients() -> None:
    first, last, dynamics = grown("greg-1", end=10)
    picked = first.abs().flatten().argsort()[:10]
    factor = math.prod([1 - 0.1 * min(1.0, (number // 2 * 2 + 2) / 10) for number in range(20)])
    expected = first.flatten().clone()
    expected[picked] *= factor
    assert torch.allclose(last.flatten(), expected, atol=1e-7)
    assert dynamics.coefficients["0.weight"].flatten()[picked].tolist() == [1.0] * 10
    dynamics.finish()
    assert (~dynamics.masks["0.weight"]).flatten().nonzero().flatten().tolist() == sorted(picked.tolist())
    assert not dynamics.module.get_parameter("0.weight").flatten()[picked].any()


def test_greg_2_presses_all_weights_first_and_lets_the_kept_recover() -> None:
    first, last, dynamics = grown("greg-2", end=16, pick=8, pick_ceiling=0.2)
    removed = first.abs().flatten().argsort()[:10]
    pressed = math.prod([1 - 0.1 * 0.2 * min(1.0, (number // 2 * 2 + 2) / 8) for number in range(8)])
    rising = [min(1.0, (number // 2 * 2 + 2 - 8) / 8) for number in range(8, 20)]
    expected = first.flatten() * pressed * math.prod([1 - 0.1 * 0.2 * (1 - share) for share in rising])
    expected[removed] = first.flatten()[removed] * pressed * math.prod([1 - 0.1 * (0.2 + 0.8 * s) for s in rising])
    assert torch.allclose(last.flatten(), expected, atol=1e-7)
    assert sorted(dynamics.coefficients["0.weight"].flatten().tolist()) == pytest.approx([0.0] * 10 + [1.0] * 10)


def test_increments_by_rank_fall_through_zero_at_the_border() -> None:
    found = rank_increments(np.array([5.0, 0.1, 3.0, 0.2, 4.0]), 0.4, 0.6)
    # Ranks 4 0 2 1 3; the border of two groups of five is rank 2.
    np.testing.assert_allclose(found, [-0.6, 0.6, 0.0, 0.3, -0.3])
    first, last, dynamics = grown("increg", end=20)
    small = first.abs().flatten().argsort()
    coefficients = dynamics.coefficients["0.weight"].flatten()[small]
    assert (coefficients[:-1] >= coefficients[1:]).all()
    assert coefficients[0] == pytest.approx(1.0)
    assert not coefficients[11:].any()
    assert torch.equal(last.flatten()[small[11:]], first.flatten()[small[11:]])


def test_global_sparse_momentum_lets_the_useful_weights_learn_and_the_others_decay() -> None:
    module = linear_network(5, 4)
    w = module[0].weight.detach().clone()
    dynamics = GlobalSparseMomentum(module, rule_of(module), 0.75)
    optimiser = began(module, dynamics, rate=0.1, momentum=0.9, weight_decay=0.5)
    speed = torch.zeros_like(w)
    for number in range(3):
        g = torch.randn(w.shape, generator=torch.Generator().manual_seed(number))
        active = torch.zeros(20, dtype=torch.bool)
        active[(g * w).abs().flatten().argsort(descending=True)[:5]] = True
        speed = 0.9 * speed + g * active.reshape(w.shape) + 0.5 * w
        w = w - 0.1 * speed
        step(module, dynamics, optimiser, number, **{"0_weight": g})
        assert torch.allclose(module[0].weight, w, atol=1e-6)
    dynamics.finish()
    best = w.abs().flatten().argsort(descending=True)[:5]
    assert dynamics.masks["0.weight"].flatten()[best].all()
    assert int(dynamics.masks["0.weight"].sum()) == 5


class Stop(Exception):  # noqa: N818
    """Ends a training between two steps."""


class Watch:
    """Keeps the state after one step, and stops there when asked to."""

    def __init__(self, at: int) -> None:
        self.at = at

    def after_step(self, trainer: Trainer) -> None:
        if trainer.step == self.at:
            self.tensors = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
            self.facts = trainer.facts()
            raise Stop

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        pass


@pytest.mark.parametrize("name", PRUNING)
def test_a_training_that_was_stopped_ends_in_the_same_bits(name: str) -> None:
    method = next(method for method in METHODS.values() if method.prepares == name)
    structure = {"N:M": "2:4"}.get(method.structures[0], method.structures[0])

    def trainer() -> Trainer:
        torch.manual_seed(3)
        module: Any = nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))
        rule = rule_of(module, structure, "uniform")
        settings = TrainSettings(epochs=3, batch_size=6, learning_rate=0.05)
        options = method.defaults | ({"update_interval": 2} if "update_interval" in method.defaults else {})
        counter = Counter(prunable_tensors(module))
        context = Context(module, {}, rule, 0.5, settings, 12, options, 4, counter)
        return Trainer(module, points(), settings, DYNAMICS[name](context), seed=4, device=CPU)

    whole = trainer()
    whole.run(Watch(-1))
    stopped, watch = trainer(), Watch(7)
    with pytest.raises(Stop):
        stopped.run(watch)
    again = trainer()
    for key, tensor in state_tensors(again.module).items():
        with torch.no_grad():
            tensor.copy_(watch.tensors[f"model:{key}"])
    again.restore(watch.tensors, watch.facts)
    again.run(Watch(-1))
    for key, tensor in state_tensors(whole.module).items():
        assert torch.equal(tensor, state_tensors(again.module)[key]), key
    assert whole.dynamics.masks.keys() == again.dynamics.masks.keys()
    for key, mask in whole.dynamics.masks.items():
        assert torch.equal(mask, again.dynamics.masks[key])


def test_weights_behind_learn_the_task() -> None:
    module = linear_network(6, 16, 3)
    rule = rule_of(module)
    data = points()
    settings = TrainSettings(epochs=20, batch_size=8, learning_rate=0.1)
    dynamics = Movement(module, rule, 0.6, rate=1.0, start=6, end=40)
    inputs, labels = data.test()

    def loss() -> float:
        return F.cross_entropy(module(inputs), labels).item()

    before = loss()
    Trainer(module, data, settings, dynamics, seed=0, device=CPU).run(Watch(-1))
    assert loss() < 0.5 * before
