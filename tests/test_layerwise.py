"""Wanda and SparseGPT: against their definitions, row by row, and on every kind of layer that they may meet."""

from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from probes import linear_network, points, probe_of
from torch import nn

from sparsepack.compressor.evidence.layers import Product, watching
from sparsepack.compressor.mask import BoolArray
from sparsepack.compressor.structure import NofM
from sparsepack.compressor.transforms.layerwise import apply_sparsegpt, apply_wanda
from sparsepack.compressor.transforms.sparsegpt import inverse_factor, sparsegpt
from sparsepack.compressor.transforms.wanda import best_of_each_row
from sparsepack.errors import UnsupportedError
from sparsepack.models.data import make_dataset
from sparsepack.models.evaluating import evaluating

OPTIONS: dict[str, Any] = {"samples": 24, "batch_size": 7, "damp": 0.01, "block_size": 4}


def caught(module: nn.Module, *inputs: torch.Tensor) -> list[Product]:
    found: list[Product] = []
    names = [name for name, p in module.named_parameters() if p.dim() > 1]
    with evaluating(module), watching(module, names, found.append):
        module(*inputs)
    return found


@pytest.mark.parametrize(
    ("layer", "shape"),
    [
        (nn.Linear(5, 4, bias=False), (3, 7, 5)),
        (nn.Conv2d(4, 4, 3, bias=False), (2, 4, 6, 5)),
        (nn.Conv2d(4, 6, (3, 2), stride=(2, 1), padding=(1, 0), dilation=(2, 1), bias=False), (2, 4, 9, 8)),
        (nn.Conv2d(4, 4, 3, padding="same", bias=False), (2, 4, 4, 4)),
        (nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect", bias=False), (2, 4, 4, 4)),
        (nn.Conv2d(4, 6, 3, groups=2, bias=False), (2, 4, 5, 5)),
        (nn.Conv1d(3, 5, 3, stride=2, bias=False), (2, 3, 9)),
        (nn.Conv3d(2, 3, 2, bias=False), (2, 2, 3, 4, 5)),
    ],
)
def test_rows_times_weights_are_the_layers_output(layer: nn.Module, shape: tuple[int, ...]) -> None:
    products = caught(layer, torch.randn(shape, generator=torch.Generator().manual_seed(0)))
    weight = next(layer.parameters()).detach()
    rows = weight.movedim(1, -1).reshape(len(weight), -1)
    assert len(products) == getattr(layer, "groups", 1)
    for product in products:
        expected = product.rows(product.output)
        assert torch.allclose(product.inputs @ rows[product.units].T, expected, atol=1e-5)


def test_every_projection_of_attention_is_caught() -> None:
    torch.manual_seed(0)
    layer = nn.MultiheadAttention(8, 2, bias=False, batch_first=True)
    x, y = torch.randn(2, 3, 8), torch.randn(2, 4, 8)
    alone = caught(layer, x, x, x)
    assert [(p.name, p.units) for p in alone] == [("in_proj_weight", slice(0, 24)), ("out_proj.weight", slice(0, 8))]
    crossed = caught(layer, x, y, y)
    assert [(p.name, p.units) for p in crossed][:2] == [
        ("in_proj_weight", slice(0, 8)),
        ("in_proj_weight", slice(8, 24)),
    ]
    for product in alone + crossed:
        weight = dict(layer.named_parameters())[product.name].detach()[product.units]
        assert torch.allclose(product.inputs @ weight.T, product.rows(product.output), atol=1e-5)


def test_the_functions_are_put_back() -> None:
    before = (F.linear, F.conv2d)
    with pytest.raises(ZeroDivisionError), watching(nn.Linear(2, 2), ["weight"], lambda product: None):
        raise ZeroDivisionError
    assert (F.linear, F.conv2d) == before


def test_the_best_of_each_row() -> None:
    metric = np.array([[3.0, 1.0, 2.0], [9.0, 8.0, 7.0], [1.0, 1.0, 1.0]])
    np.testing.assert_array_equal(
        best_of_each_row(metric, 5),
        [[True, False, True], [True, True, False], [True, False, False]],
    )
    np.testing.assert_array_equal(best_of_each_row(metric, 6).sum(axis=1), [2, 2, 2])


def test_wanda_sees_what_the_pruned_layers_before_it_produce() -> None:
    module, data = linear_network(6, 8, 4), points(classes=4)
    first, second = (module[i].weight.detach().clone() for i in (0, 2))
    outcome = apply_wanda(probe_of(module, data, **OPTIONS))
    assert outcome.masks is not None
    inputs, _ = next(data.batches("train", 24, seed=3))
    for name, weight in (("0.weight", first), ("2.weight", second)):
        metric = weight.abs() * inputs.norm(dim=0)
        kept = metric.argsort(dim=1, descending=True, stable=True)[:, : weight.shape[1] // 2]
        expected = torch.zeros_like(weight, dtype=torch.bool).scatter_(1, kept, True)
        np.testing.assert_array_equal(outcome.masks[name], expected.numpy())
        inputs = torch.relu(inputs @ (weight * expected).T)
    # Kept weights do not change.
    assert torch.equal(module[0].weight, first * torch.from_numpy(outcome.masks["0.weight"]))


def by_definition(rows: torch.Tensor, hessian: torch.Tensor, mask: BoolArray) -> torch.Tensor:
    """Remove a row's weights from left to right, each time solving for all columns to the right anew."""
    w = rows.double().clone()
    for row, kept in zip(w, mask, strict=True):
        for j in range(w.shape[1]):
            if not kept[j]:
                inverse = torch.linalg.inv(hessian[j:, j:].double())
                row[j:] -= row[j] / inverse[0, 0] * inverse[0]
    return w * torch.from_numpy(mask)


@pytest.mark.parametrize("form", [None, NofM(2, 4)])
@pytest.mark.parametrize("block", [4, 5, 12])
def test_sparsegpt_is_optimal_brain_surgery_from_left_to_right(form: NofM | None, block: int) -> None:
    generator = torch.Generator().manual_seed(1)
    rows, x = torch.randn(5, 12, generator=generator), torch.randn(40, 12, generator=generator)
    hessian = x.T @ x
    new, mask, note = sparsegpt(rows, hessian, 25, form, damp=0.0, block=block)
    assert note is None
    assert mask.sum() == (30 if form else 25)
    expected = by_definition(rows, hessian, mask)
    assert torch.allclose(new.double(), expected, atol=1e-4)

    def error(weights: torch.Tensor) -> float:
        return float((x.double() @ (weights.double() - rows.double()).T).square().sum())

    assert error(new) < error(rows * torch.from_numpy(mask))


def test_sparsegpt_with_uncorrelated_inputs_is_magnitude() -> None:
    rows = torch.randn(3, 8, generator=torch.Generator().manual_seed(2))
    new, mask, _ = sparsegpt(rows, torch.eye(8), 12, None, damp=0.0, block=8)
    kept = torch.zeros(24, dtype=torch.bool)
    kept[rows.abs().reshape(-1).argsort(descending=True)[:12]] = True
    np.testing.assert_array_equal(mask, kept.reshape(3, 8).numpy())
    assert torch.allclose(new, rows * torch.from_numpy(mask))


def test_a_hessian_that_is_not_positive_definite_is_damped_and_named() -> None:
    x = torch.randn(3, 8, generator=torch.Generator().manual_seed(0))
    upper, _, note = inverse_factor(x.T @ x, 0.0)
    assert torch.isfinite(upper).all()
    assert note is not None
    assert "not positive definite with a damping of 0;" in note
    module, data = linear_network(6, 3), points()
    outcome = apply_sparsegpt(probe_of(module, data, **OPTIONS | {"samples": 2, "damp": 0.0}))
    assert outcome.warnings[0].startswith("'0.weight': the Hessian of its inputs is not positive definite")


def test_an_input_that_is_always_zero_loses_its_weights_first() -> None:
    x = torch.randn(30, 6, generator=torch.Generator().manual_seed(0))
    x[:, 2] = 0
    new, mask, note = sparsegpt(torch.ones(2, 6), x.T @ x, 6, None, damp=0.01, block=6)
    assert not mask[:, 2].any()
    assert not new[:, 2].any()
    assert note is None


@pytest.mark.parametrize("apply", [apply_wanda, apply_sparsegpt])
@pytest.mark.parametrize("structure", ["element", "2:4"])
def test_every_kind_of_layer_is_pruned_exactly(apply: Any, structure: str) -> None:
    torch.manual_seed(0)
    images = np.random.default_rng(0).standard_normal((12, 4, 6, 6)).astype(np.float32)
    data = make_dataset("images", images, np.arange(12) % 2, images, np.arange(12) % 2)
    module = nn.Sequential(
        nn.Conv2d(4, 8, 3, groups=2, padding="same"),
        nn.ReLU(),
        nn.Flatten(2),
        nn.TransformerEncoderLayer(36, 2, 16, dropout=0.0, batch_first=True),
        nn.Flatten(),
        nn.Linear(288, 2),
    )
    probe = probe_of(module, data, structure=structure, **OPTIONS | {"samples": 8})
    outcome = apply(probe)
    parameters = dict(module.named_parameters())
    # The convolution sums over 2 * 9 inputs, which blocks of four do not divide.
    assert len(outcome.masks) == (6 if structure == "element" else 5)
    for name, mask in outcome.masks.items():
        assert mask.sum() * 2 == mask.size
        assert mask.shape == tuple(parameters[name].shape)
        assert not parameters[name].detach().numpy()[~mask].any()
        if structure == "2:4":
            assert (np.moveaxis(mask, 1, -1).reshape(-1, 4).sum(axis=1) == 2).all()


def test_a_layer_that_sees_no_data_is_named() -> None:
    class Holder(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.used, self.idle = nn.Linear(6, 3), nn.Linear(3, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            result: torch.Tensor = self.used(x)
            return result

    with pytest.raises(UnsupportedError, match=r"'idle\.weight' multiplies nothing when the network runs"):
        apply_wanda(probe_of(Holder(), points(), **OPTIONS))
