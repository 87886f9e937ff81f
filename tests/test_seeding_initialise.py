"""Initialisers and whole networks: bounds, distributions, what comes back as a seed, what is refused."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import nn

from sparsepack.errors import ModelError, UnknownNameError, UnsupportedError, UsageError
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.initialisers import INITIALISERS, draw, require_rebuildable, weight_bound
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import GENERATORS, KEYED_PRODUCT, PHILOX, REBUILDABLE
from sparsepack.models.tensors import to_numpy


class Everything(nn.Module):
    """One layer of every kind that the table of ``initialise`` names."""

    def __init__(self) -> None:
        super().__init__()
        self.tokens = nn.Embedding(40, 16, padding_idx=3)
        self.positions = nn.Embedding(20, 16)
        self.conv = nn.Conv2d(6, 8, (3, 2), groups=2)
        self.up = nn.ConvTranspose1d(4, 6, 3)
        self.norm = nn.BatchNorm2d(8)
        self.layer_norm = nn.LayerNorm(16)
        self.attention = nn.MultiheadAttention(16, 2)
        self.prelu = nn.PReLU()
        self.head = nn.Linear(16, 5)
        self.plain = nn.Linear(16, 5, bias=False)


def test_bounds_are_the_float32_of_their_formulas() -> None:
    assert weight_bound("uniform", 784, 300) == float(np.float32(1 / math.sqrt(784)))
    assert weight_bound("signed-constant", 27, 64) == float(np.float32(math.sqrt(2 / 27)))
    assert weight_bound("kaiming-normal", 50, 1) == pytest.approx(0.2)
    assert weight_bound("xavier-normal", 30, 20) == pytest.approx(0.2)
    assert [weight_bound(name, 0, 0) for name in INITIALISERS] == [0.0] * 5 + [1.0]


@pytest.mark.parametrize("layer", [nn.Linear(27, 50), nn.Conv2d(64, 32, 3), nn.Conv1d(12, 8, 5, groups=4)])
def test_uniform_has_the_default_bounds_of_the_framework(layer: nn.Linear | nn.Conv2d) -> None:
    records = initialise(layer, "uniform", 0, PHILOX)
    torch.manual_seed(0)
    widest = {"weight": 0.0, "bias": 0.0}
    for _ in range(60):
        layer.reset_parameters()
        for name, parameter in layer.named_parameters():
            widest[name] = max(widest[name], float(parameter.detach().abs().max()))
    for name, largest in widest.items():
        assert largest <= records[name].bound * (1 + 1e-6)
        assert largest > records[name].bound * 0.99


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("initialiser", REBUILDABLE)
def test_a_record_rebuilds_what_was_drawn(initialiser: str, generator: str) -> None:
    array, record = draw(initialiser, (20, 30), 30, 20, 7, "w", generator)
    assert record is not None and record.generator == generator and record.initialiser == initialiser
    assert array.tobytes() == rebuild(record, (20, 30)).tobytes()
    assert float(np.abs(array).max()) <= weight_bound(initialiser, 30, 20)


@pytest.mark.parametrize("initialiser", ["kaiming-normal", "xavier-normal"])
def test_normals_have_the_moments_of_their_formula_and_no_record(initialiser: str) -> None:
    array, record = draw(initialiser, (300, 401), 401, 300, 0, "w", KEYED_PRODUCT)
    assert record is None and array.dtype == np.float32
    scaled = array.astype(np.float64) / weight_bound(initialiser, 401, 300)
    error = 1 / math.sqrt(scaled.size)
    assert abs(scaled.mean()) < 5 * error
    assert abs(scaled.var() - 1) < 5 * math.sqrt(2) * error
    assert abs((scaled**4).mean() - 3) < 5 * math.sqrt(96) * error
    # P(|z| > 1.959964) = 0.05.
    assert (np.abs(scaled) > 1.959964).mean() == pytest.approx(0.05, abs=5 * math.sqrt(0.05 * 0.95) * error)
    assert np.array_equal(array, draw(initialiser, (300, 401), 401, 300, 0, "w")[0])


def test_magnitude_at_kaiming_normal_follows_the_complementary_error_function() -> None:
    # methods.md 9.6: density above the threshold t is erfc(t / sqrt(4 / fan_in)).
    array, _ = draw("kaiming-normal", (256, 1024), 1024, 256, 1, "conv.weight")
    for threshold in (0.02, 0.05, 0.1):
        expected = math.erfc(threshold / math.sqrt(4 / 1024))
        assert (np.abs(array) > threshold).mean() == pytest.approx(expected, abs=0.004)


@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (16, 4, 2, 2), (1, 5)])
def test_orthogonal_weights_are_orthonormal(shape: tuple[int, ...]) -> None:
    array, record = draw("orthogonal", shape, 1, 1, 2, "w")
    assert record is None
    matrix = array.reshape(shape[0], -1).astype(np.float64)
    gram = matrix @ matrix.T if matrix.shape[0] <= matrix.shape[1] else matrix.T @ matrix
    assert np.abs(gram - np.eye(len(gram))).max() < 1e-6


def test_orthogonal_has_no_preferred_sign() -> None:
    traces = [np.trace(draw("orthogonal", (6, 6), 6, 6, seed, "w")[0]) for seed in range(200)]
    # The trace of a Haar-distributed orthogonal matrix has mean 0 and variance 1.
    assert abs(np.mean(traces)) < 0.35 and np.var(traces) == pytest.approx(1.0, abs=0.4)


def test_unknown_names_and_seeds_are_refused() -> None:
    with pytest.raises(UnknownNameError, match=r"unknown initialiser 'kaimingnormal'\. Did you mean 'kaiming-normal'"):
        draw("kaimingnormal", (2, 2), 2, 2, 0, "w")
    with pytest.raises(UnknownNameError, match=r"unknown generator 'philox'\. Did you mean 'philox4x32-10'"):
        initialise(nn.Linear(2, 2), "uniform", 0, "philox")
    with pytest.raises(UsageError, match="out of range"):
        initialise(nn.Linear(2, 2), "orthogonal", 2**32, PHILOX)


@pytest.mark.parametrize("initialiser", ["kaiming-normal", "xavier-normal", "orthogonal"])
def test_an_initialiser_without_a_seed_record_cannot_stay_in_a_file(initialiser: str) -> None:
    with pytest.raises(UnsupportedError, match=f"'{initialiser}' goes through float64"):
        require_rebuildable(initialiser)
    require_rebuildable("uniform")


@pytest.mark.parametrize("generator", GENERATORS)
@pytest.mark.parametrize("initialiser", INITIALISERS)
def test_every_parameter_is_drawn_and_every_record_rebuilds_it(initialiser: str, generator: str) -> None:
    model = Everything()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.fill_(math.nan)
    records = initialise(model, initialiser, 5, generator)
    for name, parameter in model.named_parameters():
        assert torch.isfinite(parameter).all(), name
        if name in records:
            assert to_numpy(parameter).tobytes() == rebuild(records[name], tuple(parameter.shape)).tobytes(), name
    drawn = {name for name, parameter in model.named_parameters() if name not in records}
    weights = {"conv.weight", "up.weight", "attention.in_proj_weight", "attention.out_proj.weight", "head.weight"}
    weights |= {"plain.weight", "positions.weight"}
    # The row of the padding index is zero, so no seed rebuilds that embedding.
    assert drawn == {"tokens.weight"} | (set() if initialiser in REBUILDABLE else weights)


def test_fixed_values_and_bounds_by_layer_type() -> None:
    model = Everything()
    records = initialise(model, "signed-constant", 0, PHILOX)
    assert torch.all(model.norm.weight == 1) and torch.all(model.norm.bias == 0)
    assert torch.all(model.layer_norm.weight == 1) and torch.all(model.layer_norm.bias == 0)
    assert not model.get_parameter("head.bias").any() and not model.get_parameter("attention.in_proj_bias").any()
    assert torch.all(model.prelu.weight == 0.25)
    assert torch.all(model.tokens.weight[3] == 0) and set(model.tokens.weight[4].abs().tolist()) == {
        records["positions.weight"].bound
    }
    assert records["positions.weight"].bound == float(np.float32(0.02))
    assert records["conv.weight"].bound == float(np.float32(math.sqrt(2 / 18)))
    assert records["attention.in_proj_weight"].bound == float(np.float32(math.sqrt(2 / 16)))
    assert records["conv.bias"].initialiser == "constant"


def test_uniform_draws_biases_with_the_bound_of_their_weight_and_embeddings_at_their_deviation() -> None:
    model = Everything()
    records = initialise(model, "uniform", 0, PHILOX)
    assert records["head.bias"].bound == records["head.weight"].bound == 0.25
    assert records["attention.in_proj_bias"].bound == 0.25
    assert records["conv.bias"].bound == float(np.float32(1 / math.sqrt(18)))
    assert model.positions.weight.std().item() == pytest.approx(0.02, rel=0.1)


def test_xavier_counts_three_stacked_projections_as_one() -> None:
    attention = nn.MultiheadAttention(64, 4)
    initialise(attention, "xavier-normal", 0, PHILOX)
    assert attention.in_proj_weight.std().item() == pytest.approx(math.sqrt(2 / 128), rel=0.03)


def test_running_statistics_are_reset() -> None:
    norm = nn.BatchNorm1d(4)
    norm(torch.randn(8, 4))
    assert not torch.all(norm.get_buffer("running_mean") == 0)
    initialise(nn.Sequential(nn.Linear(3, 4), norm), "uniform", 0, PHILOX)
    assert torch.all(norm.get_buffer("running_mean") == 0) and torch.all(norm.get_buffer("running_var") == 1)
    assert norm.num_batches_tracked == 0


def test_a_tied_weight_is_drawn_once_under_its_first_name() -> None:
    first, second = nn.Linear(4, 4), nn.Linear(4, 4)
    second.weight = first.weight
    records = initialise(nn.Sequential(first, second), "uniform", 0, PHILOX)
    assert list(records) == ["0.weight", "0.bias", "1.bias"]


def test_a_half_precision_network_holds_the_rounded_draw() -> None:
    model = nn.Linear(8, 4).to(torch.bfloat16)
    records = initialise(model, "uniform", 0, KEYED_PRODUCT)
    array = to_numpy(model.weight)
    assert array.tobytes() == rebuild(records["weight"], (4, 8)).astype(array.dtype).tobytes()


def test_names_of_equal_crc_are_refused() -> None:
    # A known pair of English words with one CRC-32.
    model = nn.ModuleDict({"plumless": nn.Linear(2, 2), "buckeroo": nn.Linear(2, 2)})
    with pytest.raises(ModelError, match=r"'plumless\.weight' and 'buckeroo\.weight' have names of equal CRC-32"):
        initialise(model, "uniform", 0, PHILOX)


def test_a_layer_that_no_initialiser_knows_is_refused_before_anything_changes() -> None:
    model = nn.Sequential(nn.Linear(3, 3), nn.LSTM(3, 3))
    before = model.get_parameter("0.weight").detach().clone()
    with pytest.raises(ModelError, match=r"'1\.weight_ih_l0' belongs to a LSTM"):
        initialise(model, "uniform", 0, PHILOX)
    assert torch.equal(model.get_parameter("0.weight"), before)
