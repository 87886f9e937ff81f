"""edge-popup (methods 6, 6.2): weights never move, scores do, and the kept count of every layer is exact."""

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.settings import PruneRecipe, TrainSettings
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.compressor.training.sparse_selection.edge_popup import EdgePopup, initial_scores
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.prunable import prunable_tensors
from sparsepack.models.seeding.rebuild import rebuild

CPU = torch.device("cpu")


def points() -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(44) % 3
    inputs = (random.standard_normal((44, 6)) + np.eye(3, 6)[labels] * 3).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:12], labels[:12])


def network() -> Any:
    torch.manual_seed(1)
    return nn.Sequential(nn.Linear(6, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def popup(module: nn.Module, sparsity: float = 0.5) -> EdgePopup:
    space = make_space(prunable_tensors(module), Element())
    return EdgePopup(module, MaskRule(space, Element(), "uniform"), sparsity, seed=4)


class Count:
    """Checks after every step that each layer keeps exactly its share, at its first values."""

    def __init__(self, initial: dict[str, torch.Tensor], kept: dict[str, int]) -> None:
        self.initial, self.kept = initial, kept

    def after_step(self, trainer: Trainer) -> None:
        for name, parameter in trainer.module.named_parameters():
            if name in self.kept:
                mask = trainer.dynamics.masks[name]
                assert int(mask.sum()) == self.kept[name]
                assert torch.equal(parameter[mask], self.initial[name][mask])
                assert not parameter[~mask].any()
            else:
                assert torch.equal(parameter, self.initial[name])

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        pass


def test_only_scores_and_running_statistics_change() -> None:
    module = network()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    dynamics = popup(module, 0.75)
    settings = TrainSettings(epochs=4, batch_size=8, weight_decay=1e-4)
    trainer = Trainer(module, points(), settings, dynamics, seed=3, device=CPU)
    first = {name: mask.clone() for name, mask in dynamics.masks.items()}
    trainer.run(Count(initial, {"0.weight": 12, "3.weight": 6}))
    assert any(not torch.equal(first[name], mask) for name, mask in dynamics.masks.items())
    assert module[1].running_mean.any()
    assert all(parameter.requires_grad for parameter in module.parameters())


def test_the_gradient_of_a_score_passes_straight_through_the_mask() -> None:
    module = network()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    dynamics = popup(module)
    scores = {name.removeprefix("scores/"): score for name, score in dynamics.named_parameters()}
    inputs, labels = next(points().batches("train", 44, shuffle=False))
    torch.autograd.backward(F.cross_entropy(module(inputs), labels))
    gradients = {name: module.get_parameter(name).grad.clone() for name in scores}
    dynamics.after_backward(0)
    for name, score in scores.items():
        expected = gradients[name] * initial[name] * torch.sign(score.detach())
        torch.testing.assert_close(score.grad, expected, rtol=0, atol=0)
        # Pruned scores learn too.
        assert score.grad is not None
        assert (score.grad[~dynamics.masks[name]] != 0).float().mean() > 0.5


def test_it_agrees_with_the_straight_through_estimator_written_as_autograd() -> None:
    class Subnet(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, magnitudes: torch.Tensor, kept: int) -> torch.Tensor:
            order = magnitudes.flatten().argsort(descending=True, stable=True)
            mask = torch.zeros(magnitudes.numel())
            mask[order[:kept]] = 1.0
            return mask.reshape(magnitudes.shape)

        @staticmethod
        def backward(ctx: Any, gradient: torch.Tensor) -> tuple[torch.Tensor, None]:
            return gradient, None

    subnet: Any = Subnet.apply
    module = network()
    initial = {name: p.detach().clone() for name, p in module.named_parameters()}
    reference = network()
    dynamics = popup(module)
    scores = {n.removeprefix("scores/"): s.detach().clone().requires_grad_() for n, s in dynamics.named_parameters()}
    settings = TrainSettings(epochs=3, batch_size=8, rate_schedule="constant", weight_decay=1e-3)
    trainer = Trainer(module, points(), settings, dynamics, seed=3, device=CPU)
    optimiser = torch.optim.SGD(scores.values(), lr=0.1, momentum=0.9, weight_decay=1e-3)

    class Ignore:
        def after_step(self, trainer: Trainer) -> None:
            pass

        def after_epoch(self, trainer: Trainer, figures: object) -> None:
            pass

    trainer.run(Ignore())
    for epoch in range(3):
        for inputs, labels in points().batches("train", 8, seed=3, epoch=epoch):
            masked = {n: initial[n] * subnet(s.abs(), s.numel() // 2) for n, s in scores.items()}
            optimiser.zero_grad()
            outputs = torch.func.functional_call(reference, masked, (inputs,))
            torch.autograd.backward(F.cross_entropy(outputs, labels))
            optimiser.step()
    for name, score in dynamics.named_parameters():
        torch.testing.assert_close(score, scores[name.removeprefix("scores/")], rtol=1e-4, atol=1e-5)


def test_scores_start_kaiming_uniform_and_apart_from_the_weights() -> None:
    scores = initial_scores((400, 100), 100, 7, "fc.weight")
    assert scores.dtype == np.float32
    # Kaiming-uniform with a = sqrt(5): bound sqrt(6 / ((1 + 5) fan_in)) = 0.1.
    assert np.abs(scores).max() <= 0.1
    assert np.std(scores) == pytest.approx(0.1 / np.sqrt(3), rel=0.02)


def selecting(**options: object) -> PruneRecipe:
    wanted = {"method": "edge-popup", "data": "digits", "sparsity": 0.5, "epochs": 1, "threads": 1, **options}
    return single_run(None, "lenet-300-100", **wanted)


def test_the_checkpoint_holds_masks_and_seeds_and_no_weight(tmp_path: Path) -> None:
    checkpoint = prune(selecting(seed=5), tmp_path / "run")
    checkpoint.verify()
    for name, tensor in checkpoint.tensors.items():
        if tensor.mask is None:
            # Biases are zero and fixed; the record says how to make them again.
            assert not tensor.dense().any()
            assert tensor.record.seed is not None
            continue
        assert tensor.values is None
        assert tensor.record.parametrisation == "selected"
        assert tensor.record.seed is not None
        assert tensor.kept == tensor.mask.size // 2
        bound = np.float32(np.sqrt(2 / tensor.record.shape[1]))
        drawn = rebuild(tensor.record.seed, tensor.record.shape)
        assert set(np.unique(drawn)) == {-bound, bound}
        np.testing.assert_array_equal(tensor.dense(), np.where(tensor.mask, drawn, np.float32(0)))
        assert name.endswith("weight")
    assert checkpoint.metadata.training is not None
    assert checkpoint.metadata.training.trained_parameters == 0
    assert checkpoint.metadata.training.training_flops == 0
    dense = 2 * (64 * 300 + 300 * 100 + 100 * 10)
    assert checkpoint.metadata.training.mask_search_flops == 1437 * (2 * dense // 2 + dense)


def test_it_learns(tmp_path: Path) -> None:
    prune(selecting(epochs=12), tmp_path / "run")
    log = (tmp_path / "run" / "log.jsonl").read_text()
    accuracy = float(log.rpartition('"accuracy":')[2].partition(",")[0])
    assert accuracy > 0.9


def test_weights_without_a_seed_are_stored(tmp_path: Path) -> None:
    checkpoint = prune(selecting(init="kaiming-normal"), tmp_path / "run")
    checkpoint.verify()
    masked = [tensor for tensor in checkpoint.tensors.values() if tensor.mask is not None]
    assert {tensor.record.parametrisation for tensor in masked} == {"identity"}
    assert "the selected weights are stored as values, not as a seed" in checkpoint.metadata.warnings[0]


def test_without_training_the_first_scores_choose(tmp_path: Path) -> None:
    checkpoint = prune(selecting(epochs=0, seed=9), tmp_path / "run")
    tensor = checkpoint.tensors["fc3.weight"]
    scores = np.abs(initial_scores((10, 100), 100, 9, "fc3.weight"))
    assert tensor.mask is not None
    assert scores[tensor.mask].min() >= scores[~tensor.mask].max()


def test_a_swap_lowers_the_loss() -> None:
    """Ramanujan et al. 2020, theorem 1: for a small step, what comes in has the smaller g w, and the loss falls."""
    inputs, labels = next(points().batches("train", 44, shuffle=False))
    swaps = 0
    for seed in range(40):
        torch.manual_seed(seed)
        module: Any = nn.Sequential(nn.Linear(6, 3, bias=False))
        with torch.no_grad():
            module[0].weight.mul_(1e-3)
        initial = module[0].weight.detach().clone()
        space = make_space(prunable_tensors(module), Element())
        dynamics = EdgePopup(module, MaskRule(space, Element(), "uniform"), 0.5, seed=seed)
        optimiser = torch.optim.SGD(dynamics.parameter_groups(), lr=30.0)
        old = dynamics.masks["0.weight"].clone()
        loss = F.cross_entropy(module(inputs), labels)
        torch.autograd.backward(loss)
        effect = module[0].weight.grad.clone() * initial
        dynamics.after_backward(0)
        optimiser.step()
        dynamics.after_step(0)
        new = dynamics.masks["0.weight"]
        if int((old != new).sum()) != 2:
            continue
        swaps += 1
        assert float(effect[new & ~old]) < float(effect[old & ~new])
        assert float(F.cross_entropy(module(inputs), labels).detach()) < float(loss.detach())
    assert swaps >= 5
