"""The loop against a hand-written one, learning rates against closed forms, and what a mask may not let through."""

import json
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.training.devices import deterministic, find_device
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.losses import CHECK_EVERY, LossMeter
from sparsepack.compressor.training.rates import learning_rate
from sparsepack.compressor.training.static import StaticMask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.errors import ModelError, RuntimeUnavailableError, TrainingDivergedError, UnsupportedError
from sparsepack.models.data import Dataset, make_dataset

CPU = torch.device("cpu")


class Ignore:
    def after_step(self, trainer: Trainer) -> None:
        pass

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        pass


class Keep(Ignore):
    def __init__(self) -> None:
        self.figures: list[Mapping[str, Any]] = []

    def after_epoch(self, trainer: Trainer, figures: Mapping[str, Any]) -> None:
        self.figures.append(figures)


def points(count: int = 44, classes: int = 3) -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(count) % classes
    inputs = (random.standard_normal((count, 6)) + np.eye(classes, 6)[labels] * 3).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:12], labels[:12])


def network(*, norm: bool = False) -> Any:
    torch.manual_seed(1)
    hidden: list[nn.Module] = [nn.Linear(6, 8), *([nn.BatchNorm1d(8)] if norm else []), nn.ReLU(), nn.Linear(8, 3)]
    return nn.Sequential(*hidden)


def halves(module: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {
        name: torch.rand(parameter.shape, generator=generator) < 0.5
        for name, parameter in module.named_parameters()
        if parameter.dim() > 1
    }


def train(module: nn.Module, settings: TrainSettings, dynamics: Dynamics | None = None, **options: Any) -> Trainer:
    trainer = Trainer(module, points(), settings, dynamics or Dynamics(module), seed=3, device=CPU, **options)
    trainer.run(Ignore())
    return trainer


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_dense_training_is_the_plain_loop(optimiser: str) -> None:
    settings = TrainSettings(optimiser=optimiser, learning_rate=0.05, epochs=3, batch_size=8, label_smoothing=0.1)
    ours, plain = network(), network()
    train(ours, settings)
    kinds: dict[str, Any] = {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.05, momentum=0.9, weight_decay=0.0005),
        "adam": lambda p: torch.optim.Adam(p, lr=0.05, weight_decay=0.0005),
        "adamw": lambda p: torch.optim.AdamW(p, lr=0.05, weight_decay=0.0005),
    }
    steps = 3 * 6
    reference = kinds[optimiser](plain.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(reference, steps)
    data = points()
    for epoch in range(3):
        for inputs, labels in data.batches("train", 8, seed=3, epoch=epoch):
            reference.zero_grad()
            torch.autograd.backward(F.cross_entropy(plain(inputs), labels, label_smoothing=0.1))
            reference.step()
            schedule.step()
    for ours_p, plain_p in zip(ours.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(ours_p, plain_p, rtol=2e-5, atol=2e-6)


def test_the_same_training_twice_gives_the_same_bits() -> None:
    settings = TrainSettings(epochs=2, batch_size=8)
    first, second = network(norm=True), network(norm=True)
    train(first, settings)
    train(second, settings)
    for a, b in zip(first.state_dict().values(), second.state_dict().values(), strict=True):
        assert torch.equal(a, b)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_pruned_weights_and_their_memory_stay_exactly_zero(optimiser: str, momentum: float) -> None:
    module = network(norm=True)
    masks = halves(module)
    settings = TrainSettings(optimiser=optimiser, momentum=momentum, weight_decay=0.01, epochs=3, batch_size=8)
    before = {name: parameter.detach().clone() for name, parameter in module.named_parameters()}
    trainer = train(module, settings, StaticMask(module, masks))
    parameters = dict(module.named_parameters())
    for name, mask in masks.items():
        pruned = parameters[name].detach()[~mask]
        assert torch.equal(pruned, torch.zeros_like(pruned))
        assert not torch.signbit(pruned).any()
        assert not torch.equal(parameters[name][mask], before[name][mask])
        for slot, value in trainer._optimiser.state[parameters[name]].items():
            if slot != "step" and value is not None:
                assert not value[~mask].any()


def test_a_mask_of_ones_is_dense_training() -> None:
    settings = TrainSettings(epochs=2, batch_size=8)
    dense, masked = network(), network()
    train(dense, settings)
    ones = {name: torch.ones_like(p, dtype=torch.bool) for name, p in masked.named_parameters() if p.dim() > 1}
    train(masked, settings, StaticMask(masked, ones))
    for a, b in zip(dense.parameters(), masked.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_static_mask_equals_masking_weights_and_gradients_by_hand() -> None:
    module, plain = network(), network()
    masks = halves(module)
    train(module, TrainSettings(epochs=2, batch_size=8, rate_schedule="constant"), StaticMask(module, masks))
    optimiser = torch.optim.SGD(plain.parameters(), lr=0.1, momentum=0.9, weight_decay=0.0005)
    named = dict(plain.named_parameters())
    for epoch in range(2):
        for inputs, labels in points().batches("train", 8, seed=3, epoch=epoch):
            for name, mask in masks.items():
                named[name].data *= mask
            optimiser.zero_grad()
            torch.autograd.backward(F.cross_entropy(plain(inputs), labels))
            optimiser.step()
    for name, mask in masks.items():
        torch.testing.assert_close(dict(module.named_parameters())[name][mask], named[name][mask], rtol=1e-5, atol=1e-6)


def test_learning_rates_follow_their_closed_forms() -> None:
    cosine = TrainSettings(learning_rate=0.4, epochs=10, warmup_epochs=2)
    # 5 steps an epoch: 10 of warm-up, then 40 of cosine.
    assert learning_rate(cosine, 0, 5) == pytest.approx(0.04)
    assert learning_rate(cosine, 9, 5) == pytest.approx(0.4)
    assert learning_rate(cosine, 10, 5) == pytest.approx(0.4)
    assert learning_rate(cosine, 30, 5) == pytest.approx(0.2)
    assert learning_rate(cosine, 49, 5) == pytest.approx(0.2 * (1 + math.cos(math.pi * 39 / 40)))
    stepped = TrainSettings(learning_rate=1.0, epochs=4, rate_schedule="step", milestones=[1, 2.5], gamma=0.1)
    assert [learning_rate(stepped, s, 4) for s in (0, 3, 4, 9, 10)] == pytest.approx([1, 1, 0.1, 0.1, 0.01])
    constant = TrainSettings(learning_rate=0.3, rate_schedule="constant")
    assert {learning_rate(constant, s, 7) for s in range(20)} == {0.3}


def test_a_training_that_begins_late_takes_the_remaining_steps_of_the_same_schedule() -> None:
    trainer = train(network(), TrainSettings(epochs=3, batch_size=8), first_step=7)
    assert (trainer.step, trainer.total_steps, trainer.steps_per_epoch) == (18, 18, 6)


def test_epochs_are_reported_with_the_mean_loss_over_examples() -> None:
    module = network()
    settings = TrainSettings(learning_rate=1e-9, momentum=0.0, weight_decay=0.0, epochs=2, batch_size=8)
    watch = Keep()
    Trainer(module, points(), settings, Dynamics(module), seed=3, device=CPU).run(watch)
    inputs, labels = next(points().batches("train", 44, shuffle=False))
    expected = F.cross_entropy(module(inputs), labels).item()
    assert [figures["epoch"] for figures in watch.figures] == [1, 2]
    assert [figures["loss"] for figures in watch.figures] == pytest.approx([expected, expected], rel=1e-5)
    assert watch.figures[0]["learning_rate"] == pytest.approx(0.5e-9 * (1 + math.cos(math.pi * 5 / 12)))


def test_flops_are_counted_for_every_example() -> None:
    module = network()
    trainer = train(module, TrainSettings(epochs=3, batch_size=8), Dynamics(module, lambda masks: 10))
    assert trainer.flops == 3 * 44 * 10


@pytest.mark.parametrize("poisoned", [0, 1, CHECK_EVERY - 1, CHECK_EVERY + 2])
def test_a_loss_that_is_not_finite_stops_at_its_step(poisoned: int) -> None:
    class Poison(Dynamics):
        def after_step(self, step: int) -> None:
            if step == poisoned - 1:
                nn.init.constant_(self.module.get_parameter("0.weight"), math.nan)

        def attach(self, optimiser: torch.optim.Optimizer) -> None:
            self.after_step(-1)

    module = network()
    with pytest.raises(TrainingDivergedError, match=rf"the loss became nan at step {poisoned}; lower the learning"):
        train(module, TrainSettings(epochs=9, batch_size=8), Poison(module))


def test_a_network_that_detaches_its_outputs_is_refused() -> None:
    class Detached(nn.Linear):
        def forward(self, input: torch.Tensor) -> torch.Tensor:
            return super().forward(input).detach()

    with pytest.raises(ModelError, match="the loss depends on no parameter that is trained"):
        train(Detached(6, 3), TrainSettings(epochs=1))


def test_the_loss_meter_sums_in_order_whatever_the_moments_of_looking() -> None:
    values = [torch.tensor(float(v)) for v in np.random.default_rng(1).random(40)]
    often, seldom = LossMeter(), LossMeter()
    for step, value in enumerate(values):
        often.add(value, 3)
        often.flush(step + 1)
        if seldom.add(value, 3):
            seldom.flush(step + 1)
    seldom.flush(40)
    assert often.total == seldom.total
    assert often.examples == 120


def test_dropout_repeats_and_the_caller_s_random_state_is_put_back() -> None:
    results = []
    for _ in range(2):
        module: Any = nn.Sequential(network()[0], nn.Dropout(0.5), network()[2])
        torch.manual_seed(99)
        with deterministic(1, CPU):
            train(module, TrainSettings(epochs=2, batch_size=8))
        results.append((module[0].weight.detach().clone(), torch.rand(1)))
    assert torch.equal(results[0][0], results[1][0])
    torch.manual_seed(99)
    assert torch.equal(results[0][1], torch.rand(1))


def test_the_switches_of_determinism_are_put_back() -> None:
    threads = torch.get_num_threads()
    with deterministic(1, CPU):
        assert torch.are_deterministic_algorithms_enabled()
        assert torch.get_num_threads() == 1
    assert not torch.are_deterministic_algorithms_enabled()
    assert torch.get_num_threads() == threads


def test_mixed_precision_computes_in_bfloat16_and_keeps_float32_weights() -> None:
    seen = set()
    module = network()
    module[2].register_forward_hook(lambda layer, inputs, output: seen.add(output.dtype))
    full = network()
    train(module, TrainSettings(epochs=3, batch_size=8, precision="bfloat16"))
    train(full, TrainSettings(epochs=3, batch_size=8))
    assert seen == {torch.bfloat16}
    assert module[0].weight.dtype == torch.float32
    torch.testing.assert_close(module[0].weight, full[0].weight, rtol=0.1, atol=0.1)


@pytest.mark.parametrize("precision", ["float32", "bfloat16", "float16"])
@pytest.mark.parametrize("optimiser", ["sgd", "adam"])
def test_a_trainer_goes_on_from_its_own_tensors_and_facts(precision: str, optimiser: str) -> None:
    settings = TrainSettings(optimiser=optimiser, epochs=3, batch_size=8, precision=precision)

    class Snap(Ignore):
        def after_step(self, trainer: Trainer) -> None:
            if trainer.step == 9:
                tensors = {name: tensor.clone() for name, tensor in trainer.tensors().items()}
                self.taken = tensors, json.loads(json.dumps(trainer.facts()))

    def begin(module: nn.Module) -> Trainer:
        dynamics = StaticMask(module, halves(module))
        return Trainer(module, points(), settings, dynamics, seed=3, device=CPU)

    whole, later = network(norm=True), network(norm=True)
    snap = Snap()
    begin(whole).run(snap)
    tensors, facts = snap.taken
    later.load_state_dict({name.removeprefix("model:"): t for name, t in tensors.items() if name.startswith("model:")})
    trainer = begin(later)
    trainer.restore(tensors, facts)
    assert trainer.step == 9
    trainer.run(Ignore())
    for a, b in zip(whole.state_dict().values(), later.state_dict().values(), strict=True):
        assert torch.equal(a, b)
    for name, mask in halves(later).items():
        assert not later.get_parameter(name)[~mask].any()


def test_devices_that_cannot_be_are_refused() -> None:
    with pytest.raises(UnsupportedError, match="precision 'float16' needs device 'cuda'"):
        find_device("cpu", "float16")
    if not torch.cuda.is_available():
        with pytest.raises(RuntimeUnavailableError, match="sees no CUDA GPU; use 'cpu'"):
            find_device("cuda", "float32")


def test_a_weight_that_the_loss_does_not_reach_is_masked_all_the_same() -> None:
    class Unused(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.spare = nn.Linear(6, 3), nn.Linear(4, 4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.used(x)  # type: ignore[no-any-return]  # nn.Module types its children as Any

    module = Unused()
    masks = halves(module)
    train(module, TrainSettings(epochs=1, batch_size=8), StaticMask(module, masks))
    assert not module.spare.weight[~masks["spare.weight"]].any()
