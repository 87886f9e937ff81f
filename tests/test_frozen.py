"""FreezeNet (methods 7.6): what is frozen does not move by a bit, what is trained is what SNIP would keep."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import PruneRecipe, TrainSettings
from sparsepack.compressor.training.dynamics import Dynamics
from sparsepack.compressor.training.frozen import FrozenPart
from sparsepack.compressor.training.static import StaticMask
from sparsepack.compressor.training.trainer import Trainer
from sparsepack.models.data import Dataset, make_dataset
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.source import TorchSource, load_source

CPU = torch.device("cpu")


class Ignore:
    def after_step(self, trainer: Trainer) -> None:
        pass

    def after_epoch(self, trainer: Trainer, figures: object) -> None:
        pass


def points() -> Dataset:
    random = np.random.default_rng(0)
    labels = np.arange(44) % 3
    inputs = (random.standard_normal((44, 6)) + np.eye(3, 6)[labels] * 3).astype(np.float32)
    return make_dataset("points", inputs, labels, inputs[:12], labels[:12])


def network() -> Any:
    torch.manual_seed(1)
    # A bias before normalisation has no gradient but rounding noise, which Adam would blow up.
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def halves(module: nn.Module) -> dict[str, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    return {n: torch.rand(p.shape, generator=generator) < 0.5 for n, p in module.named_parameters() if p.dim() > 1}


def train(module: nn.Module, dynamics: Dynamics, settings: TrainSettings) -> Trainer:
    trainer = Trainer(module, points(), settings, dynamics, seed=3, device=CPU)
    trainer.run(Ignore())
    return trainer


def settings_for(optimiser: str, weight_decay: float = 0.05) -> TrainSettings:
    return TrainSettings(optimiser=optimiser, learning_rate=0.05, weight_decay=weight_decay, epochs=3, batch_size=8)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_frozen_weights_keep_every_bit_and_the_others_move(optimiser: str) -> None:
    module = network()
    module[0].weight.data[0, :2] = torch.tensor([-0.0, 0.0])
    masks = halves(module)
    masks["0.weight"][0, :2] = False
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    settings = settings_for(optimiser)
    train(module, FrozenPart(module, masks, settings), settings)
    for name, parameter in module.named_parameters():
        now = parameter.detach()
        if name in masks:
            frozen = ~masks[name]
            assert now[frozen].numpy().tobytes() == before[name][frozen].numpy().tobytes()
            assert not (now[masks[name]] == before[name][masks[name]]).any()
        else:
            assert not torch.equal(now, before[name])


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_with_every_weight_trained_it_is_dense_training(optimiser: str) -> None:
    settings = settings_for(optimiser)
    frozen, dense = network(), network()
    ones = {name: torch.ones_like(mask) for name, mask in halves(frozen).items()}
    train(frozen, FrozenPart(frozen, ones, settings), settings)
    train(dense, Dynamics(dense), settings)
    for a, b in zip(frozen.parameters(), dense.parameters(), strict=True):
        # Adam divides by the gradient's size, which magnifies a last bit where it is small.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("optimiser", ["sgd", "adam", "adamw"])
def test_frozen_at_zero_it_is_training_with_a_static_mask(optimiser: str) -> None:
    settings = settings_for(optimiser)
    frozen, static = network(), network()
    masks = halves(frozen)
    with torch.no_grad():
        for name, mask in masks.items():
            dict(frozen.named_parameters())[name][~mask] = 0.0
    train(frozen, FrozenPart(frozen, masks, settings), settings)
    train(static, StaticMask(static, masks), settings)
    for a, b in zip(frozen.parameters(), static.parameters(), strict=True):
        # Adam divides by the gradient's size, which magnifies a last bit where it is small.
        torch.testing.assert_close(a, b, rtol=1e-3, atol=1e-4)


def test_gradients_flow_through_the_frozen_weights() -> None:
    module = network()
    masks = {name: torch.zeros_like(mask) for name, mask in halves(module).items()}
    settings = settings_for("sgd")
    dynamics = FrozenPart(module, masks, settings)
    inputs = torch.randn(5, 6, requires_grad=True)
    torch.autograd.backward(F.cross_entropy(module(inputs), torch.tensor([0, 1, 2, 0, 1])))
    dynamics.after_backward(0)
    assert inputs.grad is not None
    assert (inputs.grad != 0).all()
    assert not module[0].weight.grad.any()
    assert module[3].bias.grad.any()


def freezing(**options: object) -> PruneRecipe:
    wanted = {"method": "freezenet", "data": "digits", "sparsity": 0.9, "epochs": 1, "threads": 1, **options}
    return single_run(None, "lenet-300-100", **wanted)


def weights(checkpoint: SparseCheckpoint) -> list[str]:
    return [name for name, tensor in checkpoint.tensors.items() if tensor.mask is not None]


@pytest.mark.parametrize("generator", ["keyed-product", "philox4x32-10"])
def test_the_checkpoint_holds_kept_values_and_the_seed_of_the_rest(tmp_path: Path, generator: str) -> None:
    checkpoint = prune(freezing(seed=11, generator=generator), tmp_path / "run")
    again = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    again.verify()
    assert len(weights(checkpoint)) == 3
    for name in weights(checkpoint):
        tensor = again.tensors[name]
        assert tensor.record.parametrisation == "frozen"
        assert tensor.record.seed is not None
        assert (tensor.record.seed.generator, tensor.record.seed.seed) == (generator, 11)
        assert tensor.values is not None
        assert tensor.mask is not None
        assert tensor.values.size == tensor.kept < tensor.mask.size
        drawn = rebuild(tensor.record.seed, tensor.record.shape)
        dense = tensor.dense()
        np.testing.assert_array_equal(dense[~tensor.mask], drawn[~tensor.mask])
        assert np.mean(dense[tensor.mask] != drawn[tensor.mask]) > 0.99
    assert checkpoint.metadata.warnings == []


def test_the_mask_is_that_of_snip(tmp_path: Path) -> None:
    frozen = prune(freezing(generator="philox4x32-10"), tmp_path / "frozen")
    pruned = prune(freezing(method="snip"), tmp_path / "snip")
    for name in weights(pruned):
        np.testing.assert_array_equal(frozen.tensors[name].mask, pruned.tensors[name].mask)


def test_an_initialiser_that_no_seed_rebuilds_stores_values_and_says_so(tmp_path: Path) -> None:
    checkpoint = prune(freezing(init="kaiming-normal"), tmp_path / "run")
    checkpoint.verify()
    for name in weights(checkpoint):
        tensor = checkpoint.tensors[name]
        assert tensor.record.parametrisation == "frozen"
        assert tensor.record.seed is None
        assert tensor.values is not None
        assert tensor.mask is not None
        assert tensor.values.shape == tensor.record.shape
        assert (tensor.values[~tensor.mask] != 0).all()
    assert checkpoint.metadata.warnings == [
        "the frozen weights are stored as values, not as a seed: the initialiser 'kaiming-normal' does not rebuild bit "
        "for bit everywhere; uniform, signed-constant, constant do."
    ]


def test_weights_that_a_model_brings_are_frozen_as_they_are(tmp_path: Path) -> None:
    (tmp_path / "net.py").write_text(
        "from torch import nn\n"
        "def build():\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, 20), nn.ReLU(), nn.Linear(20, 10))\n"
    )
    model = f"{tmp_path / 'net.py'}:build"
    recipe = single_run(None, model, method="freezenet", data="digits", sparsity=0.8, epochs=1, threads=1)
    checkpoint = prune(recipe, tmp_path / "run")
    first = load_source(model, options={"input_shape": [1, 8, 8], "classes": 10}, allow_import=True)
    assert isinstance(first, TorchSource)
    initial = first.build().state_dict()
    for name in weights(checkpoint):
        tensor = checkpoint.tensors[name]
        assert tensor.record.seed is None
        assert tensor.mask is not None
        np.testing.assert_array_equal(tensor.dense()[~tensor.mask], initial[name].numpy()[~tensor.mask])
    assert "the model brings its own weights" in checkpoint.metadata.warnings[0]


def test_operations_are_dense_forward_and_backward_with_sparse_weight_gradients(tmp_path: Path) -> None:
    checkpoint = prune(freezing(), tmp_path / "run")
    shapes = {name: checkpoint.tensors[name] for name in weights(checkpoint)}
    dense = sum(2 * math.prod(t.record.shape) for t in shapes.values())
    sparse = sum(2 * t.kept for t in shapes.values())
    assert checkpoint.metadata.training is not None
    assert checkpoint.metadata.training.training_flops == 1437 * (2 * dense + sparse)
    assert checkpoint.metadata.training.mask_search_flops == 128 * 3 * dense
    assert checkpoint.metadata.training.trained_parameters == sparse // 2 + 300 + 100 + 10
