"""Freezing (methods 7.1 to 7.3, 7.6 to 7.8): closed forms, what stays bit for bit, and files as small as claimed."""

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from probes import linear_network, points, probe_of
from torch import nn
from torch.nn.functional import cross_entropy

from sparsepack.compressor.checkpoint import SparseCheckpoint
from sparsepack.compressor.evidence.curvature import curvature
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.settings import TrainSettings
from sparsepack.compressor.training.fixed_classifier import FixedClassifier
from sparsepack.compressor.training.frozen import FadingPart
from sparsepack.compressor.training.norms_only import NormsOnly
from sparsepack.compressor.transforms.least_squares import RidgeSolver, least_squares
from sparsepack.errors import FileFormatError, UnsupportedError, UsageError
from sparsepack.exporters import export
from sparsepack.models.seeding.candidates import candidate
from sparsepack.models.seeding.initialisers import draw
from sparsepack.models.seeding.rebuild import rebuild
from sparsepack.models.seeding.record import HADAMARD, SeedRecord
from sparsepack.models.zoo import ZOO


def run(tmp_path: Path, model: str, method: str, **options: Any) -> SparseCheckpoint:
    wanted = {"method": method, "data": "digits", "epochs": 1, "threads": 1, **options}
    return prune(single_run(None, model, **wanted), tmp_path / method)


def packed_bytes(checkpoint: SparseCheckpoint, tmp_path: Path) -> tuple[int, dict[str, int]]:
    """Return the size of the packed file and of every tensor in it; what it decodes to is checked."""
    artifact = export(checkpoint, "packed", tmp_path / "x.spk", force=True)
    artifact.verify()
    for name, tensor in checkpoint.tensors.items():
        np.testing.assert_array_equal(artifact.tensor(name), tensor.dense())
    return artifact.size, {row.name: row.bytes for row in artifact.rows()}


def rows(count: int, features: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    random = np.random.default_rng(seed)
    return torch.from_numpy(random.standard_normal((count, features))), torch.from_numpy(
        np.eye(4)[random.integers(0, 4, count)]
    )


@pytest.mark.parametrize(("count", "ridge"), [(300, 0.0), (300, 0.7), (12, 0.0), (12, 0.1)])
def test_batches_give_the_least_squares_of_the_whole(count: int, ridge: float) -> None:
    features, targets = rows(count, 20)
    solver = RidgeSolver(20, 4, bias=True)
    for start in range(0, count, 7):
        solver.add(features[start : start + 7], targets[start : start + 7])
        # Memory is that of the factor and of less than as many rows again.
        assert len(solver._factor) <= 25
        assert sum(map(len, solver._waiting)) < 25
    weight, bias = solver.solve(ridge)
    h, y = np.concatenate([features.numpy(), np.ones((count, 1))], axis=1), targets.numpy()
    penalty = np.diag([ridge] * 20 + [0.0])
    if ridge or count > 20:
        wanted = np.linalg.solve(h.T @ h + penalty, h.T @ y)
    else:
        # Fewer examples than unknowns: the shortest solution, which makes no error.
        wanted = np.linalg.lstsq(h, y)[0]
        np.testing.assert_allclose(h @ wanted, y, atol=1e-9)
    assert bias is not None
    found = np.concatenate([weight.numpy().T, bias.numpy()[None]])
    np.testing.assert_allclose(found, wanted, rtol=1e-7, atol=1e-9)
    # The gradient of the ridge loss is zero there.
    np.testing.assert_allclose(h.T @ (h @ found - y) + penalty @ found, 0, atol=1e-8)


def test_features_that_nearly_repeat_each_other_cost_no_digits_twice() -> None:
    features, targets = rows(400, 6)
    # Condition number 1e7: normal equations would square it to 1e14, and leave two digits.
    features[:, 5] = features[:, 0] + 1e-7 * features[:, 5]
    solver = RidgeSolver(6, 4, bias=False)
    solver.add(features, targets)
    weight, bias = solver.solve(0.0)
    assert bias is None
    q, r = np.linalg.qr(features.numpy())
    wanted = np.linalg.solve(r, q.T @ targets.numpy())
    np.testing.assert_allclose(weight.numpy().T, wanted, rtol=1e-6)


def test_a_readout_of_more_units_than_examples_makes_no_error() -> None:
    data = points(24)
    module = linear_network(6, 64, 3)
    outcome = least_squares(probe_of(module, data, ridge=0.0, direct_link=False))
    assert outcome.weights is not None
    assert outcome.fitted == 64 * 3
    hidden = module[1](module[0](torch.from_numpy(data.train_inputs.copy()))).detach()
    outputs = hidden @ torch.from_numpy(outcome.weights["2.weight"]).T
    torch.testing.assert_close(outputs, torch.eye(3)[torch.from_numpy(data.train_labels)], rtol=0, atol=1e-4)


def test_an_extreme_learning_machine_is_its_readout_and_a_seed(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "lenet-300-100", "elm", seed=5)
    for name in ("fc1.weight", "fc2.weight"):
        record = checkpoint.tensors[name].record
        assert record.seed is not None
        assert checkpoint.tensors[name].kept == 0
        np.testing.assert_array_equal(checkpoint.tensors[name].dense(), rebuild(record.seed, record.shape))
    assert checkpoint.metadata.warnings == []
    assert checkpoint.metadata.training is not None
    assert checkpoint.metadata.training.trained_parameters == 100 * 10 + 10
    # One pass forward over 1,437 examples of 64 features.
    assert checkpoint.metadata.training.training_flops == 1437 * 2 * (64 * 300 + 300 * 100 + 100 * 10)
    assert checkpoint.metadata.training.mask_search_flops == 0
    size, tensors = packed_bytes(checkpoint, tmp_path)
    readout = 4 * (100 * 10 + 10)
    assert sum(tensors.values()) <= readout + 4 * 40
    assert size < readout + 1500


def test_a_functional_link_net_needs_its_direct_link(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "rvfl", "rvfl", method_options=("ridge=1",))
    # 64 inputs beside 1,000 units.
    assert checkpoint.dense_state()["readout.weight"].shape == (10, 1064)
    with pytest.raises(UnsupportedError, match=r"the last layer 'fc3' does not see the network's inputs.*zoo's 'rvfl'"):
        run(tmp_path / "other", "lenet-300-100", "rvfl")


def test_the_readout_of_a_functional_link_net_is_the_regression_on_both() -> None:
    data = points(60)
    module, _ = ZOO["rvfl"].build((6,), 3, hidden=9)
    outcome = least_squares(probe_of(module, data, ridge=0.5, direct_link=True))
    assert outcome.weights is not None
    x = torch.from_numpy(data.train_inputs.copy())
    hidden = torch.sigmoid(x @ module.get_parameter("hidden.weight").T + module.get_parameter("hidden.bias"))
    h = torch.cat([hidden, x, torch.ones(60, 1)], dim=1).detach().double().numpy()
    y = np.eye(3)[data.train_labels]
    wanted = np.linalg.solve(h.T @ h + np.diag([0.5] * 15 + [0.0]), h.T @ y)
    np.testing.assert_allclose(outcome.weights["readout.weight"], wanted[:-1].T, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(outcome.weights["readout.bias"], wanted[-1], rtol=1e-4, atol=1e-6)


def test_a_network_that_does_not_end_in_its_last_layer_is_refused() -> None:
    module = nn.Sequential(nn.Linear(6, 3), nn.Softmax(dim=1))
    with pytest.raises(UnsupportedError, match="does not return what its last layer '0' computes"):
        least_squares(probe_of(module, points(), ridge=0.0, direct_link=False))
    with pytest.raises(UnsupportedError, match="the last layer '1' is a Conv2d"):
        least_squares(
            probe_of(nn.Sequential(nn.Identity(), nn.Conv2d(1, 1, 1)), points(), ridge=0.0, direct_link=False)
        )


def test_the_rows_of_the_hadamard_matrix_are_orthogonal_and_any_slice_is_of_the_whole() -> None:
    def matrix(rows: int, columns: int, **part: int) -> np.ndarray:
        return rebuild(SeedRecord("keyed-product", 0, "w", HADAMARD, -0.5), (rows, columns), **part)

    whole = matrix(10, 64)
    np.testing.assert_array_equal(whole @ whole.T, 64 * 0.25 * np.eye(10))
    np.testing.assert_array_equal(matrix(2, 4), -0.5 * np.array([[1, 1, 1, 1], [1, -1, 1, -1]]))
    # Sylvester's construction: [[H, H], [H, -H]].
    np.testing.assert_array_equal(matrix(4, 4)[2:, 2:], -matrix(2, 2))
    np.testing.assert_array_equal(matrix(10, 64, start=100, count=37), whole.reshape(-1)[100:137])


def test_candidates_of_a_fixed_matrix_are_refused() -> None:
    with pytest.raises(FileFormatError, match="names the initialiser 'hadamard', which no seed rebuilds"):
        candidate(SeedRecord("keyed-product", 0, "w", HADAMARD, 1.0), (2, 2), 1)


@pytest.mark.parametrize(("make", "unit"), [(torch.optim.SGD, "rows"), (torch.optim.Adam, "entries")])
def test_of_a_fixed_classifier_the_scale_alone_is_trained(make: Any, unit: str) -> None:
    """The oracle: a network whose last layer is s * H by autograd."""
    module, oracle = linear_network(6, 8, 3), linear_network(6, 8, 3)
    mask = torch.zeros(3, 8, dtype=torch.bool)
    dynamics = FixedClassifier(module, {"2.weight": mask}, unit)
    h = torch.tensor([[1.0] * 8, [1.0, -1.0] * 4, [1.0, 1.0, -1.0, -1.0] * 2])
    if unit == "rows":
        h = h / 8**0.5
        torch.testing.assert_close(h @ h.T, torch.eye(3))
    scale = torch.full((1,), 3**-0.5, requires_grad=True)
    ours, theirs = (make(p, lr=0.05) for p in (dynamics.parameter_groups(), [oracle[0].weight, scale]))
    dynamics.attach(ours)
    data = points()
    x, y = torch.from_numpy(data.train_inputs.copy()), torch.from_numpy(data.train_labels)
    for step in range(5):
        ours.zero_grad()
        theirs.zero_grad()
        torch.autograd.backward(cross_entropy(module(x), y))
        torch.autograd.backward(cross_entropy(torch.relu(x @ oracle[0].weight.T) @ (scale * h).T, y))
        dynamics.after_backward(step)
        ours.step()
        theirs.step()
        dynamics.after_step(step)
    torch.testing.assert_close(module[2].weight, scale * h, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(module[0].weight, oracle[0].weight, rtol=1e-4, atol=1e-6)
    assert abs(float(scale.detach()) - 3**-0.5) > 0.01


def test_a_fixed_classifier_takes_no_bytes(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "lenet-5-caffe", "fixed-classifier")
    fixed = checkpoint.tensors["fc2.weight"]
    assert {name for name, t in checkpoint.tensors.items() if t.mask is not None} == {"fc2.weight"}
    assert fixed.record.seed is not None
    assert len(np.unique(np.abs(fixed.dense()))) == 1
    assert np.abs(fixed.dense()).max() == abs(fixed.record.seed.bound) != np.float32(10**-0.5 * 500**-0.5)
    assert checkpoint.metadata.training is not None
    # All parameters but the 500 times 10 of the classifier.
    others = sum(math.prod(t.record.shape) for name, t in checkpoint.tensors.items() if name != "fc2.weight")
    assert checkpoint.metadata.training.trained_parameters == others
    _, tensors = packed_bytes(checkpoint, tmp_path)
    assert tensors["fc2.weight"] <= 2
    # A graph holds it as values.
    graph = export(checkpoint, "onnx-unpack", tmp_path / "x.onnx")
    graph.verify()
    np.testing.assert_array_equal(graph.tensor("fc2.weight"), fixed.dense())


def test_the_expected_fisher_information_of_logistic_regression() -> None:
    torch.manual_seed(0)
    module = nn.Linear(6, 2, bias=False)
    binary = points(24, classes=2)
    found = curvature(probe_of(module, binary, samples=24, curvature="expected"))["weight"]
    x = torch.from_numpy(binary.train_inputs.copy())
    p = torch.softmax(module(x), dim=1).detach()
    # d2/dw_c2 of the cross-entropy is p_c (1 - p_c) x^2, whatever the label.
    wanted = torch.stack([(p[:, c : c + 1] * (1 - p[:, c : c + 1]) * x.square()).mean(dim=0) for c in range(2)])
    np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-5)


def test_squares_of_single_gradients_are_not_the_square_of_their_mean() -> None:
    data = points(24)
    module = linear_network(6, 3)
    found = curvature(probe_of(module, data, samples=24, curvature="fisher"))["0.weight"]
    x, y = torch.from_numpy(data.train_inputs.copy()), torch.from_numpy(data.train_labels)
    single = [
        torch.autograd.grad(cross_entropy(module(x[i : i + 1]), y[i : i + 1]), module[0].weight)[0] for i in range(24)
    ]
    squares = torch.stack(single).square().mean(dim=0)
    np.testing.assert_allclose(found, squares.numpy(), rtol=1e-4, atol=1e-8)
    assert not np.allclose(found, torch.stack(single).mean(dim=0).square().numpy(), rtol=0.5)


def test_fish_trains_the_weights_of_most_information_and_the_last_layer(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "lenet-300-100", "fish", sparsity=0.995, method_options=("samples=16",))
    masks = {name: t.mask for name, t in checkpoint.tensors.items() if t.mask is not None}
    assert set(masks) == {"fc1.weight", "fc2.weight"}
    total = 64 * 300 + 300 * 100
    assert sum(int(mask.sum()) for mask in masks.values()) == total - round(0.995 * total)
    moved = 0
    for name, mask in masks.items():
        record, dense = checkpoint.tensors[name].record, checkpoint.tensors[name].dense()
        assert record.seed is not None
        drawn = rebuild(record.seed, record.shape)
        np.testing.assert_array_equal(dense[~mask], drawn[~mask])
        moved += int((dense[mask] != drawn[mask]).sum())
    assert moved > 0.9 * 246
    # Kept values, the head and biases; the places of 246 weights take about a byte and a half each.
    size, _ = packed_bytes(checkpoint, tmp_path)
    assert size < 4 * (246 + 1000 + 410) + 2 * 246 + 1500


def test_only_scales_and_shifts_move(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "resnet-20", "batchnorm-only", batch_size=256)
    channels = 7 * 16 + 6 * 32 + 6 * 64
    assert checkpoint.metadata.training is not None
    assert checkpoint.metadata.training.trained_parameters == 2 * channels
    assert checkpoint.metadata.warnings == []
    moved = 0
    for name, tensor in checkpoint.tensors.items():
        record = tensor.record
        if record.role == "prunable" or name == "fc.bias":
            assert record.seed is not None
            np.testing.assert_array_equal(tensor.dense(), rebuild(record.seed, record.shape))
        elif record.role == "parameter":
            moved += int((tensor.dense() != (1.0 if name.endswith("weight") else 0.0)).sum())
    assert moved > 1.9 * channels
    # Affine parameters and running statistics, four numbers a channel; 270,000 weights take nothing but their names.
    size, tensors = packed_bytes(checkpoint, tmp_path)
    assert sum(tensors[name] for name, t in checkpoint.tensors.items() if t.record.role == "prunable") <= 20 * 40
    assert size < 16 * channels + 6000


def test_resnet_50_has_as_many_scales_and_shifts_as_published() -> None:
    with torch.device("meta"):
        module, _ = ZOO["resnet-50"].build()
    dynamics = NormsOnly(module, {})
    # 26,560 channels: methods 7.3.
    assert sum(p.numel() for _, p in dynamics.named_parameters()) == 53_120
    dynamics.attach(torch.optim.SGD([p for _, p in dynamics.named_parameters()], lr=0.1))
    assert sum(p.numel() for p in module.parameters() if p.requires_grad) == 53_120
    dynamics.finish()
    assert all(p.requires_grad for p in module.parameters())


def test_a_network_without_norms_has_nothing_to_train(tmp_path: Path) -> None:
    with pytest.raises(UnsupportedError, match="this network has none; use another method, for example random-filters"):
        run(tmp_path, "lenet-300-100", "batchnorm-only")
    with pytest.raises(UsageError, match=r"method 'batchnorm-only' has a sparsity of its own, 1; leave out 0\.5\."):
        run(tmp_path, "resnet-20", "batchnorm-only", sparsity=0.5)


def test_whole_filters_are_trained_and_the_rest_stay_as_drawn(tmp_path: Path) -> None:
    checkpoint = run(tmp_path, "lenet-5-caffe", "random-filters", sparsity=0.9)
    masks = {name: t.mask for name, t in checkpoint.tensors.items() if t.mask is not None}
    assert set(masks) == {"conv1.weight", "conv2.weight", "fc1.weight"}
    for (name, mask), filters in zip(masks.items(), (2, 5, 50), strict=True):
        flat = mask.reshape(len(mask), -1)
        assert (flat.all(axis=1) | ~flat.any(axis=1)).all()
        assert int(flat.all(axis=1).sum()) == filters
        record, dense = checkpoint.tensors[name].record, checkpoint.tensors[name].dense()
        assert record.seed is not None
        drawn = rebuild(record.seed, record.shape)
        np.testing.assert_array_equal(dense[~mask], drawn[~mask])
        assert (dense[mask] != drawn[mask]).mean() > 0.9
    kept = sum(int(mask.sum()) for mask in masks.values())
    size, _ = packed_bytes(checkpoint, tmp_path)
    # A bit for each filter.
    assert size < 4 * (kept + 500 * 10 + 580) + 600 // 8 + 1500
    again = run(tmp_path / "again", "lenet-5-caffe", "random-filters", sparsity=0.9, seed=1)
    others = {name: t.mask for name, t in again.tensors.items() if t.mask is not None}
    assert any((others[name] != mask).any() for name, mask in masks.items())


def test_the_frozen_part_fades_by_one_factor_and_is_gone_at_the_end() -> None:
    module = linear_network(6, 8, 3)
    masks = {
        name: torch.rand(p.shape, generator=torch.Generator().manual_seed(3)) < 0.5
        for name, p in module.named_parameters()
    }
    before = {name: p.detach().clone() for name, p in module.named_parameters()}
    settings = TrainSettings(learning_rate=0.1, weight_decay=0.01)
    dynamics = FadingPart(module, masks, settings, left=0.01, total_steps=10)
    optimiser = torch.optim.SGD(dynamics.parameter_groups(), lr=0.1)
    dynamics.attach(optimiser)
    data = points()
    x, y = torch.from_numpy(data.train_inputs.copy()), torch.from_numpy(data.train_labels)
    for step in range(10):
        optimiser.zero_grad()
        torch.autograd.backward(cross_entropy(module(x), y))
        assert dynamics.after_backward(step)
        optimiser.step()
        dynamics.after_step(step)
        for name, weight in module.named_parameters():
            wanted = before[name] * 0.01 ** ((step + 1) / 10)
            torch.testing.assert_close(weight.detach()[~masks[name]], wanted[~masks[name]], rtol=1e-5, atol=0)
            assert (weight.detach()[masks[name]] != before[name][masks[name]]).float().mean() > 0.7
    dynamics.finish()
    assert not any(weight.detach()[~masks[name]].any() for name, weight in module.named_parameters())


def test_freezenet_with_decay_ends_sparse_with_the_mask_of_snip(tmp_path: Path) -> None:
    faded = run(tmp_path, "lenet-300-100", "freezenet-wd", sparsity=0.95, generator="philox4x32-10")
    snip = run(tmp_path, "lenet-300-100", "snip", sparsity=0.95)
    for name, tensor in snip.tensors.items():
        if tensor.mask is None:
            continue
        other = faded.tensors[name]
        assert other.mask is not None
        np.testing.assert_array_equal(other.mask, tensor.mask)
        assert not other.dense()[~other.mask].any()
        assert other.record.parametrisation == "identity"
        # While they faded, the frozen weights took part.
        assert not np.array_equal(other.dense(), tensor.dense())


def test_a_random_layer_brings_vectors_together_as_the_arc_cosine_kernel_says() -> None:
    width, size = 20_000, 16
    drawn, _ = draw("kaiming-normal", (width, size), size, width, 7, "w")
    for angle in (0.3, 1.0, math.pi / 2, 2.5):
        pair = np.zeros((size, 2))
        pair[0] = 1, math.cos(angle)
        pair[1, 1] = math.sin(angle)
        hidden = np.maximum(drawn @ pair, 0)
        # He's variance keeps the squared length; the cosine becomes (sin t + (pi - t) cos t) / pi.
        product = hidden[:, 0] @ hidden[:, 1] / width * size
        assert product == pytest.approx((math.sin(angle) + (math.pi - angle) * math.cos(angle)) / math.pi, abs=0.05)
