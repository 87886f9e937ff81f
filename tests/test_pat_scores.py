"""Scores of trained networks against closed forms: quadratic losses, gates, Kronecker products, brute force."""

import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch
import torch.nn.functional as F
from probes import linear_network, points, probe_of
from torch import nn

from sparsepack.compressor.evidence.curvature import (
    curvature,
    gradient_samples,
    taylor_second_order_terms,
    taylor_terms,
)
from sparsepack.compressor.evidence.kronecker import kronecker_factors
from sparsepack.compressor.evidence.stream import draw_labels
from sparsepack.compressor.mask import BoolArray
from sparsepack.compressor.scores.magnitude import NORMS, magnitude
from sparsepack.compressor.scores.relevance import accumulated_sensitivity, relevance
from sparsepack.compressor.scores.second_order import inverse_diagonal, kronecker_basis, kronecker_obs, obd, obs
from sparsepack.compressor.structure import Channel
from sparsepack.compressor.training.recorded import UpdateSquares
from sparsepack.compressor.transforms.obs import joint_update, summed_update
from sparsepack.models.data import make_dataset
from sparsepack.models.prunable import prunable_tensors

Vector = npt.NDArray[np.float64]
RANDOM = np.random.default_rng(7)


def fisher(gradients: Vector, damp: float) -> Vector:
    whole: Vector = damp * np.eye(gradients.shape[1]) + gradients.T @ gradients / len(gradients)
    return whole


def rise(matrix: Vector, minimum: Vector, weights: Vector) -> float:
    return float(0.5 * (weights - minimum) @ matrix @ (weights - minimum))


def test_the_inverse_fisher_diagonal_is_that_of_the_recursion_and_of_the_inverse() -> None:
    gradients = RANDOM.standard_normal((5, 8))
    damp = 0.01
    inverse = np.eye(8) / damp
    # The rank-one recursion of the paper (Singh and Alistarh 2020, eq. 6).
    for g in gradients:
        column = inverse @ g
        inverse -= np.outer(column, column) / (len(gradients) + g @ column)
    np.testing.assert_allclose(inverse, np.linalg.inv(fisher(gradients, damp)), rtol=1e-9)
    np.testing.assert_allclose(inverse_diagonal(gradients, damp), np.diag(inverse), rtol=1e-9)


def test_an_obs_score_is_exactly_the_rise_of_a_quadratic_loss() -> None:
    gradients, minimum, damp = RANDOM.standard_normal((4, 6)), RANDOM.standard_normal(6), 0.1
    matrix = fisher(gradients, damp)
    scores = obs({"w": minimum}, {"w": gradients}, damp, 0)["w"]
    for q in range(6):
        kept = np.arange(6) != q
        for update in (summed_update, joint_update):
            weights = update(minimum, kept, gradients, damp)
            assert weights[q] == 0
            assert math.isclose(rise(matrix, minimum, weights), scores[q], rel_tol=1e-9)
        # No other change of the remaining weights does better.
        moved = weights + 0.01 * RANDOM.standard_normal(6) * kept
        assert rise(matrix, minimum, moved) > scores[q]


def test_the_joint_update_is_the_constrained_minimum() -> None:
    gradients, minimum = RANDOM.standard_normal((4, 7)), RANDOM.standard_normal(7)
    kept = np.array([True, False, True, True, False, False, True])
    matrix = fisher(gradients, 0.05)
    expected = np.zeros(7)
    expected[kept] = minimum[kept] + np.linalg.solve(
        matrix[np.ix_(kept, kept)], matrix[np.ix_(kept, ~kept)] @ minimum[~kept]
    )
    found = joint_update(minimum, kept, gradients, 0.05)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=1e-12)
    summed = summed_update(minimum, kept, gradients, 0.05)
    assert rise(matrix, minimum, found) < rise(matrix, minimum, summed)


def test_with_a_diagonal_fisher_matrix_obs_is_obd_and_moves_nothing_else() -> None:
    gradients = np.diag([1.0, 2.0, 3.0, 4.0])
    weights = np.array([0.5, -1.0, 2.0, 0.1])
    h = np.diag(fisher(gradients, 0.1))
    np.testing.assert_allclose(obs({"w": weights}, {"w": gradients}, 0.1, 0)["w"], obd({"w": weights}, {"w": h})["w"])
    kept: BoolArray = np.array([True, True, False, True])
    np.testing.assert_allclose(summed_update(weights, kept, gradients, 0.1), weights * kept)


def test_blocks_of_the_fisher_matrix_are_inverted_by_themselves() -> None:
    gradients = {"a": RANDOM.standard_normal((3, 2, 3)), "b": RANDOM.standard_normal((3, 4))}
    weights = {"a": RANDOM.standard_normal((2, 3)), "b": RANDOM.standard_normal(4)}
    found = obs(weights, gradients, 0.2, 4)
    for name, begin, end in (("a", 0, 4), ("a", 4, 6), ("b", 0, 4)):
        part = gradients[name].reshape(3, -1)[:, begin:end]
        w = weights[name].reshape(-1)[begin:end]
        expected = w**2 / (2 * np.diag(np.linalg.inv(fisher(part, 0.2))))
        np.testing.assert_allclose(found[name].reshape(-1)[begin:end], expected, rtol=1e-9)


def test_negative_curvature_is_never_credited() -> None:
    scores = obd({"w": np.array([1.0, 1.0])}, {"w": np.array([-5.0, 0.5])}, 0.0)["w"]
    np.testing.assert_array_equal(scores, [0.0, 0.25])


def one_by_one(module: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> list[Vector]:
    found = []
    for x, y in zip(inputs, labels, strict=True):
        (g,) = torch.autograd.grad(F.cross_entropy(module(x[None]), y[None]), [next(module.parameters())])
        found.append(g.numpy().astype(np.float64))
    return found


def test_the_fisher_diagonal_squares_the_gradient_of_every_example() -> None:
    module, data = linear_network(6, 3), points()
    found = curvature(probe_of(module, data, samples=24, curvature="fisher"))["0.weight"]
    inputs, labels = next(data.batches("train", 24, seed=3))
    squares = np.mean([g**2 for g in one_by_one(module, inputs, labels)], axis=0)
    np.testing.assert_allclose(found, squares, rtol=1e-5)


def test_gauss_newton_and_hessian_agree_with_the_exact_hessian_of_a_linear_classifier() -> None:
    # For logits that are linear in the weights, the Gauss-Newton matrix is the Hessian.
    module, data = linear_network(6, 3), points()
    inputs, labels = next(data.batches("train", 24, seed=3))
    hessian = torch.autograd.functional.hessian(  # type: ignore[no-untyped-call]  # untyped in torch
        lambda w: F.cross_entropy(inputs @ w.T, labels), module[0].weight.detach()
    )
    exact = np.diag(hessian.reshape(18, 18).numpy()).reshape(3, 6)
    for kind, samples in (("gauss-newton", 24 * 60), ("hessian", 64 * 500)):
        found = curvature(probe_of(module, data, samples=samples, curvature=kind))["0.weight"]
        assert np.abs(found - exact).max() < 0.2 * exact.max()
        assert np.corrcoef(found.reshape(-1), exact.reshape(-1))[0, 1] > 0.95


def test_labels_are_drawn_from_the_softmax() -> None:
    logits = torch.log(torch.tensor([[0.2, 0.5, 0.3]])).expand(20_000, 3)
    shares = np.bincount(draw_labels(logits, 1, "labels").numpy(), minlength=3) / 20_000
    np.testing.assert_allclose(shares, [0.2, 0.5, 0.3], atol=0.015)


def test_gradient_samples_are_those_of_single_batches() -> None:
    module, data = linear_network(6, 3), points()
    found = gradient_samples(probe_of(module, data, samples=5, batch_size=1))["0.weight"]
    inputs, labels = next(data.batches("train", 24, seed=3))
    np.testing.assert_allclose(found, np.array(one_by_one(module, inputs, labels)[:5]), rtol=1e-4, atol=1e-7)


def gate_gradients(module: Any, inputs: torch.Tensor, labels: torch.Tensor, width: int) -> Vector:
    gate = torch.ones(width, requires_grad=True)
    hidden = torch.relu(module[0](inputs)) * gate
    (g,) = torch.autograd.grad(F.cross_entropy(module[2](hidden), labels), [gate])
    return g.numpy().astype(np.float64)


def test_the_relevance_of_a_unit_is_the_gradient_of_its_gate_in_and_out() -> None:
    module, data = linear_network(6, 5, 3), points()
    inputs, labels = next(data.batches("train", 24, seed=3))
    loss = F.cross_entropy(module(inputs), labels)
    w, v = module[0].weight, module[2].weight
    g, h = torch.autograd.grad(loss, [w, v])
    scores = relevance({"w": w.detach().numpy()}, {"w": g.numpy()})["w"]
    expected = -gate_gradients(module, inputs, labels, 5)
    np.testing.assert_allclose(scores.sum(axis=1), expected, rtol=1e-4, atol=1e-7)
    # What flows in flows out (synaptic conservation for a homogeneous activation without bias).
    np.testing.assert_allclose(-(h * v).sum(dim=0).detach().numpy(), expected, rtol=1e-4, atol=1e-7)
    assert (scores < 0).any()


def test_taylor_squares_the_gate_gradient_of_every_batch() -> None:
    module, data = linear_network(6, 5, 3), points()
    options: dict[str, Any] = {"batches": 3, "batch_size": 8, "mode": "eval"}
    found = taylor_terms(probe_of(module, data, structure="channel", **options))["0.weight"]
    batches = list(data.batches("train", 8, seed=3))
    expected = np.mean([gate_gradients(module, *batch, 5) ** 2 for batch in batches], axis=0)
    np.testing.assert_allclose(found.sum(axis=1), expected, rtol=1e-4, atol=1e-9)
    single = taylor_terms(probe_of(module, data, **options))["0.weight"]
    assert (single.sum(axis=1) - found.sum(axis=1)).max() > 0
    terms = []
    for inputs, labels in batches:
        (g,) = torch.autograd.grad(F.cross_entropy(module(inputs), labels), [module[0].weight])
        terms.append((g * module[0].weight.detach()).numpy() ** 2)
    np.testing.assert_allclose(single, np.mean(terms, axis=0), rtol=1e-4, atol=1e-10)


def test_second_order_taylor_terms_hold_the_full_hessian() -> None:
    module, data = linear_network(6, 3), points()
    inputs, labels = next(data.batches("train", 24, seed=3))
    weight = module[0].weight.detach()

    def loss(w: torch.Tensor) -> torch.Tensor:
        return F.cross_entropy(inputs @ w.T, labels)

    hessian = torch.autograd.functional.hessian(loss, weight)  # type: ignore[no-untyped-call]  # untyped in torch
    hessian = hessian.reshape(18, 18)
    (g,) = torch.autograd.grad(F.cross_entropy(module(inputs), labels), [module[0].weight])
    product = (hessian @ weight.reshape(-1)).reshape(3, 6)
    expected = (g * weight - 0.5 * weight * product).square().numpy()
    found = taylor_second_order_terms(probe_of(module, data, batches=1, batch_size=24, mode="eval"))["0.weight"]
    np.testing.assert_allclose(found, expected, rtol=1e-3, atol=1e-9)


def test_karnin_adds_up_the_path() -> None:
    module = linear_network(4, 2)
    weight = module[0].weight
    dynamics = UpdateSquares(module, ["0.weight"])
    optimiser = torch.optim.SGD(module.parameters(), lr=0.5)
    dynamics.attach(optimiser)
    path = [weight.detach().clone().numpy()]
    rates = (0.5, 0.25, 0.125)
    for step, rate in enumerate(rates):
        optimiser.param_groups[0]["lr"] = rate
        weight.grad = torch.full_like(weight, 0.1 * (step + 1))
        optimiser.step()
        dynamics.after_step(step)
        path.append(weight.detach().clone().numpy())
    expected = sum((b - a) ** 2 / rate for a, b, rate in zip(path, path[1:], rates, strict=False))
    squares = dynamics.recordings()["update-squares"]["0.weight"].numpy()
    np.testing.assert_allclose(squares, expected, rtol=1e-4)
    # On a straight path down a quadratic the sum estimates the loss of going back from w_f to 0.
    scores = accumulated_sensitivity({"w": path[-1]}, {"w": path[0]}, {"w": squares})["w"]
    np.testing.assert_allclose(scores, expected * path[-1] / (path[-1] - path[0]), rtol=1e-4)
    still = accumulated_sensitivity({"w": path[0]}, {"w": path[0]}, {"w": np.zeros((2, 4))})["w"]
    assert not still.any()


def test_kronecker_factors_give_the_exact_fisher_of_one_example() -> None:
    module, data = linear_network(6, 3), points(count=12)
    probe = probe_of(module, data, batches=1, batch_size=1, labels="data")
    factors = kronecker_factors(probe)
    inputs, labels = next(data.batches("train", 1, seed=3))
    (g,) = one_by_one(module, inputs[:1], labels[:1])
    whole = np.kron(factors["0.weight/S"], factors["0.weight/A"])
    np.testing.assert_allclose(whole, np.outer(g, g), rtol=1e-4, atol=1e-8)


def test_kronecker_factors_of_a_convolution_follow_its_own_axes() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(nn.Conv2d(2, 3, (2, 3), bias=False), nn.Flatten(), nn.Linear(24, 2))
    random = np.random.default_rng(1)
    images = random.standard_normal((8, 2, 3, 6)).astype(np.float32)
    data = make_dataset("images", images, np.arange(8) % 2, images, np.arange(8) % 2)
    factors = kronecker_factors(probe_of(module, data, batches=1, batch_size=8, labels="data"))
    inputs, _ = next(data.batches("train", 8, seed=3))
    patches = F.unfold(inputs, (2, 3)).transpose(1, 2).reshape(-1, 12)
    np.testing.assert_allclose(factors["0.weight/A"], (patches.T @ patches / 8).numpy(), rtol=1e-4)


def test_kronecker_obs_with_unit_factors_is_magnitude() -> None:
    weights = {"w": RANDOM.standard_normal((3, 4))}
    factors = {"w/A": np.eye(4), "w/S": np.eye(3)}
    np.testing.assert_allclose(kronecker_obs(weights, factors, 0.0)["w"], weights["w"] ** 2 / 2)
    np.testing.assert_allclose(kronecker_basis(weights, factors)["w"], weights["w"] ** 2 / 2)


def test_kronecker_obs_is_obs_of_the_whole_product() -> None:
    a, s = (m @ m.T + np.eye(len(m)) for m in (RANDOM.standard_normal((4, 4)), RANDOM.standard_normal((3, 3))))
    w = RANDOM.standard_normal((3, 4))
    inverse = np.diag(np.linalg.inv(np.kron(s, a))).reshape(3, 4)
    np.testing.assert_allclose(kronecker_obs({"w": w}, {"w/A": a, "w/S": s}, 0.0)["w"], w**2 / (2 * inverse))


def test_the_importance_of_the_eigenbasis_is_conserved() -> None:
    a, s = (m @ m.T for m in (RANDOM.standard_normal((4, 4)), RANDOM.standard_normal((3, 3))))
    w = RANDOM.standard_normal((3, 4))
    scores = kronecker_basis({"w": w}, {"w/A": a, "w/S": s})["w"]
    # In its eigenbasis the curvature is diagonal, so the coordinates' worth adds up to the whole quadratic form.
    assert math.isclose(scores.sum(), 0.5 * w.reshape(-1) @ np.kron(s, a) @ w.reshape(-1), rel_tol=1e-9)
    assert (scores >= 0).all()


@pytest.mark.parametrize("norm", NORMS)
def test_norms_of_units(norm: str) -> None:
    weight = RANDOM.standard_normal((4, 3, 2, 2)).astype(np.float32)
    (tensor,) = prunable_tensors(nn.Conv2d(3, 4, 2, bias=False))
    scores = magnitude({"weight": weight}, norm, {"weight": 0})["weight"]
    found = Channel().group_scores(scores, tensor)
    expected = torch.linalg.vector_norm(torch.from_numpy(weight).reshape(4, -1), ord=NORMS[norm], dim=1)
    np.testing.assert_allclose(found, expected.numpy(), rtol=1e-5)
    np.testing.assert_array_equal(magnitude({"weight": weight}, norm, {})["weight"], np.abs(weight))
