"""Sparse selection beyond edge-popup (methods 6): every rule against its closed form, and weights that never move."""

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.sparse_selection.biprop import Biprop
from sparsepack.compressor.training.sparse_selection.iterand import IteRand
from sparsepack.compressor.training.sparse_selection.jackpots import Jackpots
from sparsepack.compressor.training.sparse_selection.signed_supermask import SignedSupermask, first_masks
from sparsepack.compressor.training.sparse_selection.signs import SignTraining, flipped
from sparsepack.compressor.training.sparse_selection.slots import SlotMachines, slot_scores, slot_values
from sparsepack.compressor.training.sparse_selection.supermask import Supermask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.philox import words

CPU = torch.device("cpu")
NAMES = ("0.weight", "3.weight")
SIZES = {"0.weight": 48, "3.weight": 24}


def points() -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(44) % 3
    inputs = (random.standard_normal((44, 6)) + np.eye(3, 6)[labels] * 3).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:12], labels[:12])


def network() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def rule(module: nn.Module, allocation: str = "uniform") -> MaskRule:
    return MaskRule(make_space(prunable_tensors(module), Element()), Element(), allocation)


def never(number: int) -> Any:
    raise AssertionError("nothing is to be drawn")


def redraw(number: int) -> dict[str, Any]:
    """A draw whose number can be read off."""
    return {name: np.full(tuple(network().get_parameter(name).shape), 100.0 + number, np.float32) for name in NAMES}


class Watch:
    def __init__(self, look: Callable[[Trainer], None] = lambda trainer: None) -> None:
        self.look = look

    def after_step(self, trainer: Trainer) -> None:
        self.look(trainer)

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        pass


def train(
    module: nn.Module, dynamics: Dynamics, look: Callable[[Trainer], None] = lambda t: None, **options: Any
) -> None:
    settings = TrainSettings(**{"epochs": 3, "batch_size": 8, "weight_decay": 1e-4, **options})
    Trainer(module, points(), settings, dynamics, seed=3, device=CPU).run(Watch(look))


def scores_of(dynamics: Dynamics) -> dict[str, torch.Tensor]:
    return {name.removeprefix("scores/"): score.detach() for name, score in dynamics.named_parameters()}


def backward(module: nn.Module) -> dict[str, torch.Tensor]:
    inputs, labels = next(points().batches("train", 44, shuffle=False))
    torch.autograd.backward(F.cross_entropy(module(inputs), labels))
    # The backward pass has made it.
    return {name: module.get_parameter(name).grad.clone() for name in NAMES}  # type: ignore[union-attr]


KEPT: dict[str, Callable[[nn.Module], Dynamics]] = {
    "supermask": lambda m: Supermask(m, rule(m), 0.75, rescaled=False),
    "biprop": lambda m: Biprop(m, rule(m), 0.75, seed=4),
    "signed-supermask": lambda m: SignedSupermask(m, rule(m), 0.75, threshold=0.0, seed=4),
    "iterand": lambda m: IteRand(m, rule(m), 0.75, seed=4, redraw=never, every=5, share=0.0),
    "jackpots": lambda m: Jackpots(m, rule(m), 0.75, seed=4),
}


@pytest.mark.parametrize("name", KEPT)
def test_weights_stay_kept_counts_are_exact_and_masks_move(name: str) -> None:
    module = network()
    initial = {key: parameter.detach().clone() for key, parameter in module.named_parameters()}
    dynamics = KEPT[name](module)
    seen: list[dict[str, torch.Tensor]] = []
    train(module, dynamics, lambda t: seen.append({key: mask.clone() for key, mask in dynamics.masks.items()}))
    for key, parameter in module.named_parameters():
        assert parameter.requires_grad
        if key not in NAMES:
            assert torch.equal(parameter, initial[key])
            continue
        mask = dynamics.masks[key]
        assert int(mask.sum()) == SIZES[key] // 4
        assert not parameter[~mask].any()
        if name in ("supermask", "iterand", "jackpots"):
            assert torch.equal(parameter[mask], initial[key][mask])
        if name == "signed-supermask":
            assert torch.equal(parameter[mask].abs(), initial[key][mask].abs())
    assert any(not torch.equal(seen[0][key], seen[-1][key]) for key in NAMES)


def test_a_supermask_computes_each_weight_with_its_probability() -> None:
    module = network()
    initial = module[0].weight.detach().clone()
    dynamics = Supermask(module, rule(module), 0.7, rescaled=False)
    count = torch.zeros(8, 6)
    for step in range(2000):
        dynamics.before_forward(step)
        assert torch.equal(module[0].weight.detach(), initial * dynamics.masks["0.weight"])
        count += dynamics.masks["0.weight"]
    # Four standard deviations of the mean of 2000 draws of each of 48 weights, and of the largest of 48.
    assert abs(float(count.mean()) / 2000 - 0.3) < 4 * math.sqrt(0.21 / (2000 * 48))
    assert float((count / 2000 - 0.3).abs().max()) < 4.5 * math.sqrt(0.21 / 2000)


def test_a_supermask_at_infinite_logits_is_a_fixed_mask() -> None:
    module = network()
    dynamics = Supermask(module, rule(module), 0.5, rescaled=False)
    wanted = {name: torch.rand(module.get_parameter(name).shape) < 0.5 for name in NAMES}
    for name, score in scores_of(dynamics).items():
        score.copy_(torch.where(wanted[name], torch.inf, -torch.inf))
    for step in range(5):
        dynamics.before_forward(step)
        for name in NAMES:
            assert torch.equal(dynamics.masks[name], wanted[name])


@pytest.mark.parametrize("rescaled", [False, True])
def test_the_gradient_of_a_logit_is_that_of_its_probability(rescaled: bool) -> None:
    module = network()
    initial = {name: module.get_parameter(name).detach().clone() for name in NAMES}
    dynamics = Supermask(module, rule(module), 0.6, rescaled=rescaled)
    logits = {name: score.copy_(torch.randn(score.shape)) for name, score in scores_of(dynamics).items()}
    dynamics.before_forward(0)
    masks = {name: mask.clone() for name, mask in dynamics.masks.items()}
    gradients = backward(module)
    dynamics.after_backward(0)
    trained = dict(dynamics.named_parameters())
    for name in NAMES:
        factor = SIZES[name] / int(masks[name].sum()) if rescaled else 1.0
        # Straight through: the mask in place of p, and p's own derivative, here by autograd.
        logit = logits[name].clone().requires_grad_()
        chance = torch.sigmoid(logit)
        through = masks[name].float() + chance - chance.detach()
        torch.autograd.backward((initial[name] * factor * through * gradients[name]).sum())
        torch.testing.assert_close(trained[f"scores/{name}"].grad, logit.grad, rtol=1e-5, atol=1e-7)


def test_rescaling_keeps_the_expected_sum() -> None:
    module = network()
    with torch.no_grad():
        module[0].weight.fill_(0.5)
    dynamics = Supermask(module, rule(module), 0.75, rescaled=True)
    for step in range(20):
        dynamics.before_forward(step)
        assert float(module[0].weight.detach().sum()) == pytest.approx(0.5 * 48, rel=1e-5)


def test_a_supermask_ends_in_the_most_probable_weights() -> None:
    module = network()
    dynamics = Supermask(module, rule(module), 0.5, rescaled=False)
    logits = {name: score.copy_(torch.randn(score.shape)) for name, score in scores_of(dynamics).items()}
    dynamics.finish()
    for name in NAMES:
        assert logits[name][dynamics.masks[name]].min() >= logits[name][~dynamics.masks[name]].max()
        assert int(dynamics.masks[name].sum()) == SIZES[name] // 2


def test_biprop_computes_with_signs_at_the_closest_scale() -> None:
    module = network()
    initial = {name: module.get_parameter(name).detach().clone() for name in NAMES}
    dynamics = Biprop(module, rule(module), 0.5, seed=4)
    for name in NAMES:
        shown, mask = module.get_parameter(name).detach(), dynamics.masks[name]
        scale = float(dynamics.scale(name))
        assert set(shown.unique().tolist()) == {-scale, 0.0, scale}
        assert torch.equal(shown.sign(), initial[name].sign() * mask)
        # The least-squares fit of a multiple of the signs to the kept weights, by the general solver.
        signs = initial[name][mask].sign().reshape(-1, 1)
        fitted = torch.linalg.lstsq(signs, initial[name][mask].reshape(-1, 1)).solution
        assert scale == pytest.approx(float(fitted), rel=1e-5)


def test_biprop_that_keeps_everything_is_the_scale_of_xnor_net() -> None:
    module = network()
    initial = module[0].weight.detach().clone()
    Biprop(module, rule(module), 0.0, seed=4)
    torch.testing.assert_close(module[0].weight.detach(), initial.sign() * initial.abs().mean())


@pytest.mark.parametrize("name", ["biprop", "iterand", "signed-supermask", "jackpots"])
def test_scores_learn_from_the_gradient_of_what_computes_times_the_weight(name: str) -> None:
    module = network()
    initial = {key: module.get_parameter(key).detach().clone() for key in NAMES}
    dynamics = KEPT[name](module)
    scores = {key: score.clone() for key, score in scores_of(dynamics).items()}
    gradients = backward(module)
    dynamics.after_backward(0)
    trained = dict(dynamics.named_parameters())
    for key in NAMES:
        expected = gradients[key] * initial[key]
        if name == "biprop":
            expected *= scores[key].sign()
        torch.testing.assert_close(trained[f"scores/{key}"].grad, expected, rtol=0, atol=0)
        # The backward pass has made it.
        pruned = trained[f"scores/{key}"].grad[~dynamics.masks[key]]  # type: ignore[index]
        assert (pruned != 0).float().mean() > 0.4


def test_a_signed_supermask_is_ternary() -> None:
    module = network()
    with torch.no_grad():
        module[0].weight.fill_(2.0)
    dynamics = SignedSupermask(module, rule(module), 0.5, threshold=0.1, seed=4)
    values = torch.tensor([-0.3, -0.1, -0.05, 0.0, 0.1, 0.2]).repeat(8, 1)
    scores_of(dynamics)["0.weight"].copy_(values)
    dynamics.choose()
    # sign(v) where |v| exceeds the threshold, nothing elsewhere.
    assert torch.equal(module[0].weight.detach(), torch.tensor([-2.0, 0, 0, 0, 0, 2.0]).repeat(8, 1))


def test_signs_of_weight_and_mask_turn_round_together() -> None:
    def trained(turned: bool) -> dict[str, torch.Tensor]:
        module = network()
        signs = {name: torch.where(torch.arange(SIZES[name]) % 3 == 0, -1.0, 1.0) for name in NAMES}
        signs = {name: sign.reshape(module.get_parameter(name).shape) for name, sign in signs.items()}
        if turned:
            with torch.no_grad():
                for name in NAMES:
                    module.get_parameter(name).mul_(signs[name])
        dynamics = SignedSupermask(module, rule(module), 0.5, threshold=0.0, seed=4)
        if turned:
            for name, score in scores_of(dynamics).items():
                score.mul_(signs[name])
            dynamics.choose()
        train(module, dynamics, epochs=2)
        return {name: module.get_parameter(name).detach() for name in NAMES}

    plain, turned = trained(False), trained(True)
    for name in NAMES:
        assert torch.equal(plain[name], turned[name])


def test_first_masks_are_xavier_uniform() -> None:
    module: Any = nn.Sequential(nn.Linear(300, 200))
    values = first_masks(rule(module), 3)["0.weight"]
    bound = math.sqrt(6 / 500)
    assert float(values.abs().max()) <= bound
    assert float(values.std()) == pytest.approx(bound / math.sqrt(3), rel=0.01)


def test_iterand_redraws_only_what_is_out_and_the_asked_share_of_it() -> None:
    module: Any = nn.Sequential(nn.Linear(100, 100, bias=False))
    initial = module[0].weight.detach().clone()
    drawn = {"0.weight": np.full((100, 100), 7.0, np.float32)}
    dynamics = IteRand(module, rule(module), 0.8, seed=4, redraw=lambda number: drawn, every=3, share=0.25)
    scores = scores_of(dynamics)["0.weight"]
    for step in range(3):
        before = dynamics.tensors()["initial/0.weight"].clone()
        dynamics.after_step(step)
        if step < 2:
            assert torch.equal(dynamics.tensors()["initial/0.weight"], before)
    changed = dynamics.tensors()["initial/0.weight"] != initial
    mask = dynamics.masks["0.weight"]
    assert not (changed & mask).any()
    assert torch.equal(module[0].weight.detach(), initial * mask)
    # Binomial(8000, 1/4), four standard deviations.
    assert abs(int(changed.sum()) - 2000) < 4 * math.sqrt(8000 * 0.25 * 0.75)
    assert (dynamics.tensors()["initial/0.weight"][changed] == 7.0).all()
    # A redrawn weight may come back, with its new value.
    scores.copy_(changed.float())
    dynamics.choose()
    assert (module[0].weight.detach()[dynamics.masks["0.weight"] & changed] == 7.0).all()


def test_iterand_of_no_share_never_draws_and_goes_by_the_scores_sign() -> None:
    module = network()
    dynamics = IteRand(module, rule(module), 0.5, seed=4, redraw=never, every=1, share=0.0)
    scores = scores_of(dynamics)["0.weight"]
    assert torch.equal(dynamics.masks["0.weight"].reshape(-1).nonzero(), top_half(scores).nonzero())
    train(module, dynamics)


def top_half(scores: torch.Tensor) -> torch.Tensor:
    flat = scores.reshape(-1)
    kept = torch.zeros(flat.numel(), dtype=torch.bool)
    kept[flat.argsort(descending=True, stable=True)[: flat.numel() // 2]] = True
    return kept


@pytest.mark.parametrize(
    ("weight", "momentum", "flips"),
    [
        (1.0, 0.5, True),
        (-1.0, -0.5, True),
        (1.0, -0.5, False),
        (-1.0, 0.5, False),
        (1.0, 0.05, False),
        (-1.0, -0.05, False),
        (1.0, 0.1, True),
    ],
)
def test_when_a_sign_flips(weight: float, momentum: float, flips: bool) -> None:
    assert bool(flipped(torch.tensor(weight), torch.tensor(momentum), 0.1)) is flips


def signs_of(module: nn.Module, **options: Any) -> SignTraining:
    settings = {"gamma": 0.1, "decay": 0.5, "threshold": 1e-3, "total_steps": 18, **options}
    masks = {name: torch.arange(SIZES[name]).reshape(module.get_parameter(name).shape) % 2 == 0 for name in NAMES}
    return SignTraining(module, masks, **settings)


def test_sign_training_leaves_magnitudes_and_trains_the_rest() -> None:
    module = network()
    initial = {key: parameter.detach().clone() for key, parameter in module.named_parameters()}
    dynamics = signs_of(module)
    train(module, dynamics)
    for key, parameter in module.named_parameters():
        if key in NAMES:
            mask = dynamics.masks[key]
            assert torch.equal(parameter[mask].abs(), initial[key][mask].abs())
            assert not parameter[~mask].any()
            assert 0 < int((parameter[mask] != initial[key][mask]).sum()) < int(mask.sum())
        else:
            assert not torch.equal(parameter, initial[key])


def test_the_momentum_of_signs_step_by_step() -> None:
    module = network()
    dynamics = signs_of(module, gamma=0.2, decay=1.0, threshold=0.01)
    dynamics.finish()
    weights = {name: module.get_parameter(name).detach().clone() for name in NAMES}
    momenta = {name: torch.zeros_like(weight) for name, weight in weights.items()}
    for step in range(4):
        gradients = backward(module)
        dynamics.after_backward(step)
        for name in NAMES:
            momenta[name] = 0.8 * momenta[name] + 0.2 * gradients[name]
            for place in np.ndindex(*weights[name].shape):
                m, w = momenta[name][place], weights[name][place]
                if abs(m) >= 0.01 and m * w > 0:
                    weights[name][place] = -w
            assert torch.equal(module.get_parameter(name).detach(), weights[name])


def test_the_adaptivity_rate_falls_at_each_quarter() -> None:
    dynamics = signs_of(network(), gamma=1e-3, decay=0.15, total_steps=180)
    assert [dynamics.rate(step) for step in (0, 44, 45, 90, 179)] == pytest.approx(
        [1e-3, 1e-3, 1.5e-4, 2.25e-5, 1e-3 * 0.15**3]
    )


def test_signs_alone_can_be_all_that_is_trained() -> None:
    module: Any = nn.Sequential(nn.Linear(6, 3, bias=False))
    masks = {"0.weight": torch.ones(3, 6, dtype=torch.bool)}
    initial = module[0].weight.detach().clone()
    train(module, SignTraining(module, masks, gamma=0.1, decay=1.0, threshold=0.0, total_steps=18))
    assert torch.equal(module[0].weight.detach().abs(), initial.abs())
    assert not torch.equal(module[0].weight.detach(), initial)


def slots(module: nn.Module, values: int, sampled: bool = False) -> SlotMachines:
    return SlotMachines(
        module, prunable_tensors(module), values=values, sampled=sampled, seed=4, generator="philox4x32-10"
    )


def test_a_machine_with_one_value_never_changes() -> None:
    module = network()
    dynamics = slots(module, 1)
    before = module[0].weight.detach().clone()
    train(module, dynamics, epochs=2)
    assert torch.equal(module[0].weight.detach(), before)


def test_a_slot_switches_when_scores_cross() -> None:
    module = network()
    dynamics = slots(module, 3)
    values = slot_values(prunable_tensors(module)[0], 3, 4, "philox4x32-10")[0]
    score = scores_of(dynamics)["0.weight"]
    score.zero_()
    score[1] = 1.0
    dynamics.choose()
    assert torch.equal(module[0].weight.detach(), values[1])
    score[2, 4, 5] = 1.5
    dynamics.choose()
    expected = values[1].clone()
    expected[4, 5] = values[2, 4, 5]
    assert torch.equal(module[0].weight.detach(), expected)


def test_every_value_of_a_slot_learns() -> None:
    module = network()
    dynamics = slots(module, 4)
    gradients = backward(module)
    dynamics.after_backward(0)
    for tensor in prunable_tensors(module):
        values = slot_values(tensor, 4, 4, "philox4x32-10")[0]
        grad = dict(dynamics.named_parameters())[f"scores/{tensor.name}"].grad
        assert grad is not None
        for number in range(4):
            torch.testing.assert_close(grad[number], gradients[tensor.name] * values[number], rtol=0, atol=0)


def test_sampled_slots_follow_the_softmax_of_their_scores() -> None:
    module: Any = nn.Sequential(nn.Linear(200, 100, bias=False))
    dynamics = slots(module, 3, sampled=True)
    scores_of(dynamics)["0.weight"].copy_(torch.tensor([0.0, 1.0, 2.0]).reshape(3, 1, 1).expand(3, 100, 200))
    dynamics.before_forward(0)
    shares = torch.bincount(dynamics.choices["0.weight"].reshape(-1), minlength=3) / 20000
    torch.testing.assert_close(shares, torch.tensor([0.0, 1.0, 2.0]).softmax(0), rtol=0, atol=4 * math.sqrt(0.25 / 2e4))
    dynamics.finish()
    assert (dynamics.choices["0.weight"] == 2).all()


def test_values_and_first_scores_of_slots() -> None:
    conv, linear = (
        prunable_tensors(nn.Sequential(nn.Conv2d(16, 32, 5), nn.Linear(400, 300)))[number] for number in (0, 1)
    )
    for tensor, factor in ((conv, 1.0), (linear, 0.1)):
        spread = math.sqrt(2 / (tensor.fan_in + tensor.fan_out))
        values, record = slot_values(tensor, 2, 5, "keyed-product")
        assert record.bound == np.float32(spread)
        assert float(values.abs().max()) <= record.bound
        assert float(values.std()) == pytest.approx(spread / math.sqrt(3), rel=0.02)
        assert abs(float(np.corrcoef(values[0].reshape(-1), values[1].reshape(-1))[0, 1])) < 0.05
        scores = slot_scores(tensor, 2, 5)
        assert float(scores.min()) >= 0
        assert float(scores.max()) < factor * spread
        assert float(scores.mean()) == pytest.approx(factor * spread / 2, rel=0.02)


def test_a_search_over_trained_weights_begins_at_magnitude_pruning() -> None:
    module = network()
    magnitudes = {name: module.get_parameter(name).detach().abs().clone() for name in NAMES}
    dynamics = Jackpots(module, rule(module), 0.5, seed=4)
    for name in NAMES:
        assert torch.equal(dynamics.masks[name].reshape(-1), top_half(magnitudes[name]))


@pytest.mark.parametrize("name", ["supermask", "biprop", "signed-supermask", "iterand", "slots", "signs"])
def test_a_training_goes_on_where_it_was_taken_up(name: str) -> None:
    def fresh() -> tuple[nn.Module, Dynamics]:
        module = network()
        if name == "slots":
            return module, slots(module, 3, sampled=True)
        if name == "signs":
            return module, signs_of(module)
        if name == "iterand":
            return module, IteRand(module, rule(module), 0.5, seed=4, redraw=redraw, every=2, share=0.3)
        return module, KEPT[name](module)

    settings = TrainSettings(epochs=3, batch_size=8)
    taken: dict[str, Any] = {}

    def look(trainer: Trainer) -> None:
        if trainer.step == 7:
            taken["tensors"] = {key: tensor.clone() for key, tensor in trainer.tensors().items()}
            taken["facts"] = trainer.facts()

    module, dynamics = fresh()
    Trainer(module, points(), settings, dynamics, seed=3, device=CPU).run(Watch(look))
    again, other = fresh()
    again.load_state_dict(
        {key.removeprefix("model:"): t for key, t in taken["tensors"].items() if key.startswith("model:")}
    )
    trainer = Trainer(again, points(), settings, other, seed=3, device=CPU)
    trainer.restore(taken["tensors"], taken["facts"])
    trainer.run(Watch())
    for (key, left), right in zip(module.state_dict().items(), again.state_dict().values(), strict=True):
        assert torch.equal(left, right), key


def test_twenty_random_numbers_have_a_subset_that_sums_to_anything() -> None:
    """Strong lottery tickets rest on it (Lueker 1998; Pensia et al. 2020): n = O(log 1/eps) random numbers suffice."""
    worst = 0.0
    for seed in range(5):
        numbers = words(seed, "subset", 0, 20).astype(np.float64) * 2.0**-31 - 1
        sums = np.zeros(1)
        for number in numbers:
            sums = np.concatenate([sums, sums + number])
        sums.sort()
        targets = np.linspace(-0.5, 0.5, 201)
        places = np.searchsorted(sums, targets)
        nearest = np.minimum(np.abs(sums[places] - targets), np.abs(sums[places - 1] - targets))
        worst = max(worst, float(nearest.max()))
    assert worst < 0.01


def test_a_pruned_layer_of_pairs_is_any_linear_weight() -> None:
    """w x = relu(w x) - relu(-w x), the gadget of Malach et al. 2020, with weights chosen out of random ones."""
    random = np.random.default_rng(3)
    pool = random.uniform(-1, 1, 4000)
    for target in (-0.7, 0.1, 0.9):
        positive = pool[np.argmin(np.abs(pool - target))]
        negative = pool[np.argmin(np.abs(pool + target))]
        x = np.linspace(-2, 2, 41)
        network = np.maximum(positive * x, 0) - np.maximum(negative * x, 0)
        assert np.abs(network - target * x).max() < 0.01
