"""Sparse coefficients in place of sparse weights (methods 4.15, 4.16): transforms, bases, gradients and storage."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.interspace import (
    BASES,
    SHARING,
    basis_owners,
    coefficients_of,
    filter_length,
    first_basis,
    in_interspace,
)
from sparsepack.compressor.methods.pai.coefficients import INTERSPACE
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.rule import MaskRule
from sparsepack.compressor.settings import PruneRecipe
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import parse_structure
from sparsepack.compressor.training.coefficients import Coefficients, CosineOffset, FilterBasis
from sparsepack.models.prunable import prunable_tensors

NETWORK = (
    "from torch import nn\n"
    "def build():\n"
    "    return nn.Sequential(nn.Conv2d(1, 4, 3), nn.ReLU(), nn.Conv2d(4, 6, 3), nn.ReLU(), nn.Conv2d(6, 6, 1),\n"
    "                         nn.ReLU(), nn.Flatten(), nn.Linear(96, 10))\n"
)
FILTERS = ("0.weight", "2.weight")


@pytest.fixture
def model(tmp_path: Path) -> str:
    """A small convolutional network, with 3x3 and 1x1 kernels and a linear layer."""
    (tmp_path / "net.py").write_text(NETWORK)
    return f"{tmp_path / 'net.py'}:build"


def recipe(model: str, method: str, *options: str, **settings: Any) -> PruneRecipe:
    wanted = {"data": "digits", "sparsity": 0.6, "epochs": 1, "threads": 1, "init": "uniform", "learning_rate": 0.05}
    return single_run(None, model, method=method, method_options=options, **{**wanted, **settings})


def network() -> nn.Sequential:
    torch.manual_seed(2)
    return nn.Sequential(nn.Conv2d(2, 3, 3), nn.ReLU(), nn.Conv2d(3, 4, 3), nn.Flatten(), nn.Linear(16, 3))


def rule_of(module: nn.Module) -> MaskRule:
    form = parse_structure("element")
    return MaskRule(make_space(prunable_tensors(module), form), form, "global")


def masks_for(module: nn.Module) -> dict[str, torch.Tensor]:
    torch.manual_seed(3)
    return {name: torch.rand(p.shape) < 0.5 for name, p in module.named_parameters() if name.endswith("weight")}


def batch() -> tuple[torch.Tensor, torch.Tensor]:
    torch.manual_seed(4)
    return torch.randn(5, 2, 6, 6), torch.tensor([0, 1, 2, 0, 1])


def train_ours(dynamics: Coefficients, steps: int, **settings: Any) -> dict[str, torch.Tensor]:
    optimiser = torch.optim.SGD(dynamics.parameter_groups(), **settings)
    dynamics.attach(optimiser)
    inputs, labels = batch()
    for step in range(steps):
        optimiser.zero_grad()
        torch.autograd.backward(F.cross_entropy(dynamics.module(inputs), labels))
        dynamics.after_backward(step)
        optimiser.step()
        dynamics.after_step(step)
    dynamics.finish()
    return {name: p.detach().clone() for name, p in dynamics.module.named_parameters()}


def train_by_autograd(
    module: nn.Module, own: Mapping[str, nn.Parameter], weights: Any, steps: int, **settings: Any
) -> dict[str, torch.Tensor]:
    """Train the parameters ``own`` and the module's biases; ``weights()`` builds the weights out of them."""
    biases = {name: p for name, p in module.named_parameters() if name.endswith("bias")}
    optimiser = torch.optim.SGD([*own.values(), *biases.values()], **settings)
    inputs, labels = batch()
    for _ in range(steps):
        optimiser.zero_grad()
        outputs = torch.func.functional_call(module, {**weights(), **biases}, (inputs,))
        torch.autograd.backward(F.cross_entropy(outputs, labels))
        optimiser.step()
    return {name: w.detach() for name, w in {**weights(), **biases}.items()}


SETTINGS: dict[str, Any] = {"lr": 0.1, "momentum": 0.9, "weight_decay": 0.01}


def test_cosines_and_sparse_weights_train_as_autograd_trains_them() -> None:
    module, twin = network(), network()
    masks = masks_for(module)
    found = train_ours(CosineOffset(module, masks, rule_of(module)), 4, **SETTINGS)
    transforms = {}
    for name, mask in masks.items():
        size = max(len(mask), mask[0].numel())
        angles = np.pi * np.outer(np.arange(size), 2 * np.arange(size) + 1) / (2 * size)
        full = np.cos(angles) * np.sqrt(2 / size)
        full[0] /= np.sqrt(2)
        transforms[name] = torch.from_numpy(full[: len(mask), : mask[0].numel()]).float().reshape(mask.shape)
    own = {f"s/{name}": nn.Parameter(torch.zeros(mask.shape)) for name, mask in masks.items()}
    own |= {f"a/{name}": nn.Parameter(torch.ones(())) for name in masks}

    def weights() -> dict[str, torch.Tensor]:
        return {name: own[f"a/{name}"] * transforms[name] + own[f"s/{name}"] * mask for name, mask in masks.items()}

    expected = train_by_autograd(twin, own, weights, 4, **SETTINGS)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)


def test_without_sparse_weights_a_square_layer_is_orthogonal_and_a_convolution_transforms_patches() -> None:
    fft = pytest.importorskip("scipy.fft", reason="scipy's cosine transform is the reference")
    module = nn.Sequential(nn.Linear(12, 12, bias=False), nn.Unflatten(1, (3, 2, 2)), nn.Conv2d(3, 5, 2, bias=False))
    masks = {name: torch.zeros(p.shape, dtype=torch.bool) for name, p in module.named_parameters()}
    dynamics = CosineOffset(module, masks, rule_of(module))
    dynamics.attach(torch.optim.SGD(dynamics.parameter_groups(), lr=0.1))
    inputs = torch.randn(7, 12)
    outputs = module[0](inputs)
    torch.testing.assert_close(outputs.norm(dim=1), inputs.norm(dim=1))
    torch.testing.assert_close(outputs, torch.from_numpy(fft.dct(inputs.numpy(), norm="ortho")).float())
    images = torch.randn(2, 3, 2, 2)
    patches = images.reshape(2, 12).numpy()
    expected = fft.dct(patches, norm="ortho")[:, :5]
    np.testing.assert_allclose(module[2](images).detach().reshape(2, 5).numpy(), expected, atol=1e-5)


def test_cosines_and_sparse_weights_are_stored_as_such(model: str, tmp_path: Path) -> None:
    run = prune(recipe(model, "dct-plus-sparse"), tmp_path / "run")
    loaded = SparseCheckpoint.load(tmp_path / "run" / "checkpoint.safetensors")
    loaded.verify()
    kept = 0
    for tensor in loaded.tensors.values():
        if tensor.mask is None:
            continue
        assert tensor.record.parametrisation == "offset"
        assert tensor.record.parts == ("scale",)
        assert tensor.values is not None
        assert len(tensor.values) == tensor.mask.sum()
        assert (tensor.dense() != 0).mean() > 0.9
        kept += len(tensor.values)
    total = 4 * 9 + 6 * 4 * 9 + 36 + 960
    assert kept == total - round(0.6 * total)
    assert run.metadata.provenance == loaded.metadata.provenance
    started = prune(recipe(model, "dct-plus-sparse", epochs=0), tmp_path / "started")
    assert not np.concatenate([t.values for t in started.tensors.values() if t.mask is not None]).any()


@pytest.mark.parametrize("sharing", SHARING)
@pytest.mark.parametrize("kind", BASES)
def test_coefficients_and_bases_train_as_autograd_trains_them(kind: str, sharing: str) -> None:
    module, twin = network(), network()
    masks = masks_for(module)
    dynamics = FilterBasis(module, masks, rule_of(module), kind=kind, sharing=sharing, trained=True, seed=5)
    start = {name: p.detach().clone() for name, p in twin.named_parameters()}
    own, owner = {}, {"0.weight": "0.weight", "2.weight": "0.weight" if sharing == "network" else "2.weight"}
    for name, mask in masks.items():
        array = start[name].numpy()
        if name in owner:
            basis = first_basis(kind, 9, 5, owner[name])
            own[f"b/{owner[name]}"] = nn.Parameter(torch.from_numpy(basis))
            array = coefficients_of(array, basis)
        own[f"c/{name}"] = nn.Parameter(torch.from_numpy(array) * mask)

    def weights() -> dict[str, torch.Tensor]:
        made = {}
        for name, mask in masks.items():
            made[name] = own[f"c/{name}"] * mask
            if name in owner:
                made[name] = (made[name].reshape(-1, 9) @ own[f"b/{owner[name]}"]).reshape(mask.shape)
        return made

    found = train_ours(dynamics, 4, **SETTINGS)
    expected = train_by_autograd(twin, own, weights, 4, **SETTINGS)
    for name, weight in expected.items():
        torch.testing.assert_close(found[name], weight, rtol=1e-4, atol=1e-5)
    handed = dynamics.handover()
    assert set(handed) == set(owner)
    assert handed["2.weight"].shares == ("0.weight" if sharing == "network" else None)


def test_a_training_of_coefficients_goes_on_where_it_was_cut() -> None:
    module, twin = network(), network()
    arguments: dict[str, Any] = {"kind": "random", "sharing": "layer", "trained": True, "seed": 5}
    whole = FilterBasis(module, masks_for(module), rule_of(module), **arguments)
    plain: dict[str, Any] = {"lr": 0.1, "momentum": 0.0, "weight_decay": 0.0}
    train_ours(whole, 5, **plain)
    first = FilterBasis(twin, masks_for(twin), rule_of(twin), **arguments)
    train_ours(first, 2, **plain)
    second = FilterBasis(twin, masks_for(twin), rule_of(twin), **arguments)
    second.restore({name: tensor.clone() for name, tensor in first.tensors().items()})
    train_ours(second, 3, **plain)
    for name, weight in module.named_parameters():
        assert torch.equal(dict(twin.named_parameters())[name], weight)


def test_with_unit_filters_that_do_not_move_it_is_snip(model: str, tmp_path: Path) -> None:
    snip = prune(recipe(model, "snip"), tmp_path / "snip")
    ours = prune(recipe(model, "interspace", "train_basis=false"), tmp_path / "ours")
    for name, tensor in snip.tensors.items():
        if tensor.mask is not None:
            np.testing.assert_array_equal(ours.tensors[name].mask, tensor.mask)
        np.testing.assert_array_equal(ours.dense_state()[name], snip.dense_state()[name])


def test_filters_are_stored_as_coefficients_and_one_basis(model: str, tmp_path: Path) -> None:
    run = prune(recipe(model, "interspace", "basis=random", "sharing=network"), tmp_path / "run")
    run.verify()
    records = {name: tensor.record for name, tensor in run.tensors.items()}
    assert {name for name, record in records.items() if record.parametrisation == "basis"} == set(FILTERS)
    assert records["2.weight"].shares == "0.weight"
    assert records["4.weight"].parametrisation == records["7.weight"].parametrisation == "identity"
    for name in FILTERS:
        tensor = run.tensors[name]
        assert tensor.mask is not None
        assert tensor.values is not None
        assert len(tensor.values) == tensor.mask.sum()
        # Sparse coefficients, dense filters.
        assert tensor.mask.mean() < 1
        alive = tensor.mask.reshape(-1, 9).any(axis=1)
        assert (tensor.dense().reshape(-1, 9)[alive] != 0).all()


def test_an_orthonormal_basis_keeps_lengths_and_convolutions_are_linear_in_it() -> None:
    random = np.random.default_rng(0)
    weights = random.standard_normal((4, 2, 3, 3)).astype(np.float32)
    basis = first_basis("random", 9, 1, "w")
    np.testing.assert_allclose(basis @ basis.T, np.eye(9), atol=1e-6)
    coefficients = coefficients_of(weights, basis)
    np.testing.assert_allclose(
        np.linalg.norm(coefficients.reshape(-1, 9), axis=1), np.linalg.norm(weights.reshape(-1, 9), axis=1), rtol=1e-5
    )
    images = torch.randn(1, 2, 5, 5)
    whole = F.conv2d(images, torch.from_numpy(weights))
    parts = torch.zeros_like(whole)
    for number in range(9):
        filters = torch.from_numpy(basis[number]).reshape(1, 1, 3, 3)
        seen = torch.cat([F.conv2d(images[:, [channel]], filters) for channel in range(2)], dim=1)
        parts += torch.einsum("oi,nihw->nohw", torch.from_numpy(coefficients.reshape(4, 2, 9)[..., number]), seen)
    torch.testing.assert_close(parts, whole, rtol=1e-4, atol=1e-4)


def test_which_tensors_have_a_basis_and_whose() -> None:
    shapes = {"a": (4, 1, 3, 3), "b": (4, 4, 1, 1), "c": (4, 4, 3, 3), "d": (2, 4, 5, 5), "e": (3, 8), "f": (2, 2, 9)}
    assert [filter_length(shape) for shape in shapes.values()] == [9, 0, 9, 25, 0, 9]
    assert basis_owners(shapes, "layer") == {name: name for name in "acdf"}
    assert basis_owners(shapes, "network") == {"a": "a", "c": "a", "d": "d", "f": "a"}
    arrays = {name: np.ones(shape, np.float32) for name, shape in shapes.items()}
    standard = in_interspace(arrays, "standard", "layer", 0)
    assert all(standard[name] is arrays[name] for name in shapes)
    drawn = in_interspace(arrays, "random", "network", 0)
    assert drawn["b"] is arrays["b"]
    np.testing.assert_array_equal(drawn["c"][0, 0], drawn["a"][0, 0])


def test_the_declared_choices_are_those_of_the_pieces() -> None:
    declared = {option.name: option.choices for option in INTERSPACE.options}
    assert declared["basis"] == BASES
    assert declared["sharing"] == SHARING
