"""Scores at initialisation against closed forms, exact second derivatives and brute force."""

import itertools
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from pai_probes import CPU, perceptron, probe_of, scored, small_data
from scipy.optimize import linprog
from torch import nn

from sparsepack.compressor.evidence.hessian_gradient import balanced_batch
from sparsepack.compressor.methods import find_method
from sparsepack.compressor.pipeline import prune
from sparsepack.compressor.recipe import single_run
from sparsepack.compressor.schedule import exponential, ladder, linear
from sparsepack.compressor.scores import SCORES, ScoreInputs, saliency
from sparsepack.compressor.scores.cops import controlled, mixed
from sparsepack.compressor.scores.products import gradient_norm_preservation, grasp, loss_preservation
from sparsepack.compressor.selection import top_k
from sparsepack.compressor.smart_ratio import smart_ratio
from sparsepack.errors import UnsupportedError
from sparsepack.models.data import load_data, make_dataset
from sparsepack.models.seeding.initialise import initialise
from sparsepack.models.seeding.record import PHILOX


def test_synflow_of_two_linear_layers_is_the_closed_form() -> None:
    module = perceptron(4, 6, 3)
    first, second = (p.detach().abs().double().numpy() for p in module.parameters())
    found = scored("synflow", probe_of(module, None, (4,)))
    np.testing.assert_allclose(found["0.weight"], first * second.sum(axis=0)[:, None], rtol=1e-12)
    np.testing.assert_allclose(found["2.weight"], second * first.sum(axis=1)[None, :], rtol=1e-12)
    squares = scored("path-norm", probe_of(module, None, (4,)))
    np.testing.assert_allclose(squares["0.weight"], first**2 * (second**2).sum(axis=0)[:, None], rtol=1e-12)


def test_synaptic_flow_is_conserved_by_every_unit_and_every_layer() -> None:
    module = perceptron(5, 7, 6, 4)
    for name in ("synflow", "path-norm"):
        scores = [*scored(name, probe_of(module, None, (5,))).values()]
        totals = [float(s.sum()) for s in scores]
        np.testing.assert_allclose(totals, totals[0], rtol=1e-12)
        for before, after in itertools.pairwise(scores):
            np.testing.assert_allclose(before.sum(axis=1), after.sum(axis=0), rtol=1e-12)


def test_flow_passes_through_convolutions_and_norms_and_leaves_the_network_alone() -> None:
    torch.manual_seed(0)
    module = nn.Sequential(
        nn.Conv2d(2, 3, 3, bias=False),
        nn.BatchNorm2d(3, eps=0.0),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(12, 2, bias=False),
    )
    module.train()
    state = {name: tensor.clone() for name, tensor in module.state_dict().items()}
    scores = scored("synflow", probe_of(module, None, (2, 4, 4)))
    assert all(torch.equal(tensor, module.state_dict()[name]) for name, tensor in state.items())
    assert module.training
    totals = [float(s.sum()) for s in scores.values()]
    np.testing.assert_allclose(totals[0], totals[1], rtol=1e-12)
    parameters = dict(module.named_parameters())
    kernel = parameters["0.weight"].detach().abs().double().sum(dim=(1, 2, 3))
    last = parameters["4.weight"].detach().abs().double().reshape(2, 3, 4).sum(dim=(0, 2))
    # On ones every position of a channel has the sum of the channel's kernel.
    np.testing.assert_allclose(totals[0], float((kernel * last).sum()), rtol=1e-12)


def test_flow_survives_a_depth_that_leaves_float32() -> None:
    module = perceptron(*[300] * 40)
    with torch.no_grad():
        for parameter in module.parameters():
            parameter.fill_(1.0)
    scores = scored("synflow", probe_of(module, None, (300,)))
    assert all(np.isfinite(s).all() for s in scores.values())
    np.testing.assert_allclose(float(scores["0.weight"].sum()), 300.0**40, rtol=1e-9)


@pytest.mark.parametrize("name", ["synflow", "synflow-l2"])
def test_synflow_keeps_a_path_alive_down_to_one_weight_a_layer(tmp_path: Path, name: str) -> None:
    recipe = single_run(
        None, "lenet-300-100", method=name, data="none", sparsity=1 - 3 / 266_200, threads=1,
        init="kaiming-normal",
    )  # fmt: skip
    made = prune(recipe, tmp_path / "run")
    masks = [tensor.mask for tensor in made.tensors.values() if tensor.mask is not None]
    assert [int(mask.sum()) for mask in masks] == [1, 1, 1]
    # The three weights are one path.
    places = [np.argwhere(mask)[0] for mask in masks]
    assert places[0][0] == places[1][1] and places[1][0] == places[2][1]


def exact_hessian_gradient(module: nn.Sequential, inputs: torch.Tensor, labels: torch.Tensor, t: float) -> torch.Tensor:
    """Hg by the full Hessian of both halves, as a flat vector."""
    parameters = dict(module.named_parameters())
    shapes = [p.shape for p in parameters.values()]
    flat = torch.cat([p.detach().flatten() for p in parameters.values()])

    def loss(vector: torch.Tensor) -> torch.Tensor:
        parts = torch.split(vector, [math.prod(shape) for shape in shapes])
        values = {n: part.reshape(shape) for n, part, shape in zip(parameters, parts, shapes, strict=True)}
        total = vector.new_zeros(())
        for start in (0, 1):
            outputs = torch.func.functional_call(module, values, (inputs[start::2],))
            total = total + F.cross_entropy(outputs / t, labels[start::2])
        return total

    gradient = torch.func.grad(loss)(flat)
    # Reverse over reverse: the forward mode of torch.func.hessian loads something deprecated.
    hessian = torch.func.jacrev(torch.func.grad(loss))(flat)
    product: torch.Tensor = hessian @ gradient
    return product


@pytest.mark.parametrize("temperature", [1.0, 200.0])
def test_grasp_and_its_absolute_value_against_the_full_hessian(temperature: float) -> None:
    module = perceptron(5, 6, 3).double()
    data = small_data()
    options = {"examples_per_class": 4, "temperature": temperature, "mode": "train"}
    probe = probe_of(module, data, (5,), **options)
    single = make_dataset("d", data.train_inputs, data.train_labels, data.test_inputs, data.test_labels)
    inputs, labels = balanced_batch(single, 4, 1, 0, CPU)
    assert torch.bincount(labels).tolist() == [4, 4, 4]
    probe.module.float()
    exact = exact_hessian_gradient(perceptron(5, 6, 3).double(), inputs.double(), labels, temperature).numpy()
    weights = np.concatenate([w.reshape(-1) for w in probe.weights().values()]).astype(np.float64)
    expected = weights * exact / np.abs(weights * exact).sum()
    found = np.concatenate([s.reshape(-1) for s in scored("grasp", probe).values()])
    np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-5)
    absolute = np.concatenate([s.reshape(-1) for s in scored("gradient-norm-preservation", probe).values()])
    np.testing.assert_allclose(absolute, np.abs(found), rtol=1e-6)
    assert probe.flops == 0  # nothing is counted where the multiply-adds are not known


def test_hessian_gradient_product_of_a_quadratic_is_exact_and_its_order_keeps_the_gradient() -> None:
    # L = w A w / 2 - b w: H = A, g = A w - b.
    rng = np.random.default_rng(3)
    root = rng.standard_normal((12, 12))
    a, b, w = root @ root.T, rng.standard_normal(12), rng.standard_normal(12)
    weights, products = {"w": w}, {"w": a @ (a @ w - b)}
    scores = grasp(weights, products)["w"]
    np.testing.assert_allclose(scores, (w * products["w"]) / np.abs(w * products["w"]).sum(), rtol=1e-6)
    # To first order, removing q changes the squared norm by -2 w_q (Hg)_q.
    q = int(np.argmax(np.abs(scores)))
    small = 1e-6

    def norm(vector: np.ndarray) -> float:
        return float(np.sum((a @ vector - b) ** 2))

    step = w - small * np.eye(12)[q] * w[q]
    assert (norm(step) - norm(w)) / small == pytest.approx(-2 * w[q] * products["w"][q], rel=1e-3)

    def after(order: np.ndarray) -> float:
        return norm(np.where(np.isin(np.arange(12), order[:6]), w * (1 - 1e-3), w))

    ascending = np.argsort(scores)
    assert after(ascending) > after(ascending[::-1])


def test_lubana_and_dick_are_snip_and_grasp_where_magnitudes_are_one() -> None:
    rng = np.random.default_rng(0)
    weights = {"w": np.where(rng.random((4, 5)) < 0.5, -1.0, 1.0)}
    direction = {"w": rng.standard_normal((4, 5))}
    np.testing.assert_allclose(loss_preservation(weights, direction)["w"], saliency(weights, direction)["w"])
    np.testing.assert_allclose(
        gradient_norm_preservation(weights, direction)["w"], np.abs(grasp(weights, direction)["w"])
    )
    doubled = {"w": weights["w"] * np.array([[2.0], [1.0], [1.0], [1.0]])}
    ratio = loss_preservation(doubled, direction)["w"] / loss_preservation(weights, direction)["w"]
    np.testing.assert_allclose(ratio[0] / ratio[1], 4.0, rtol=1e-5)


def test_a_unit_is_worth_what_its_weights_do_to_the_norm_together() -> None:
    weights = {"w": np.array([[1.0, 2.0], [1.0, 1.0]]), "free": np.array([-0.5])}
    products = {"w": np.array([[3.0, -1.5], [1.0, 0.5]]), "free": np.array([1.0])}
    # By rows 3 - 3 and 1 + 0.5, by columns 3 + 1 and -3 + 0.5; a weight without a unit stands for itself.
    for axis, sums in ((0, [0.0, 1.5]), (1, [4.0, 2.5])):
        found = gradient_norm_preservation(weights, products, {"w": axis})
        np.testing.assert_allclose(found["w"].sum(axis=1 - axis), np.array(sums) / (sum(sums) + 0.5), rtol=1e-6)
        np.testing.assert_allclose(found["free"], 0.5 / (sum(sums) + 0.5), rtol=1e-6)


def test_normalisation_while_scoring_is_that_of_the_authors_code() -> None:
    modes = {
        "eval": ("snip", "snip-it", "snap-it", "cnip-it"),
        "train": ("iterative-snip", "force", "grasp", "prospr"),
    }
    for mode, names in modes.items():
        assert {name: find_method(name).defaults["mode"] for name in names} == dict.fromkeys(names, mode)


def two_scores(size: int = 12) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    rng = np.random.default_rng(7)
    first, second = np.abs(rng.standard_normal(size)), rng.standard_normal(size)
    return {"w": first / first.sum()}, {"w": second / np.abs(second).sum()}


def keep(k: int) -> Any:
    return lambda scores: {"w": top_k([scores["w"]], k)[0]}


def test_cops_lies_between_snip_and_grasp() -> None:
    first, second = two_scores(200)
    select = keep(60)
    sums = []
    for mix in np.linspace(0, 1, 21):
        mask = select(mixed(first, second, float(mix)))["w"]
        sums.append((first["w"][mask].sum(), second["w"][mask].sum()))
    assert all(a[0] <= b[0] + 1e-7 and a[1] >= b[1] - 1e-7 for a, b in itertools.pairwise(sums))
    np.testing.assert_array_equal(select(mixed(first, second, 1.0))["w"], select(first)["w"])
    np.testing.assert_array_equal(select(mixed(first, second, 0.0))["w"], select(second)["w"])


@pytest.mark.parametrize("share", [0.5, 0.8, 0.95, 1.0])
def test_cops_is_within_a_swap_of_the_linear_programme(share: float) -> None:
    first, second = two_scores()
    select, kept = keep(5), 5
    level = share * second["w"][select(second)["w"]].sum()
    mask = select(controlled(first, second, share, select))["w"]
    assert mask.sum() == kept
    assert second["w"][mask].sum() >= level - 1e-7
    relaxed = linprog(
        -first["w"], A_ub=[-second["w"]], b_ub=[-level], A_eq=[np.ones(12)], b_eq=[kept], bounds=(0, 1), method="highs"
    )
    assert relaxed.fun is not None
    gap = -relaxed.fun - first["w"][mask].sum()
    assert -1e-7 <= gap <= first["w"].max() + 1e-7


def test_schedules_of_rounds() -> None:
    # Verdenius et al.: 98 % in seven steps.
    np.testing.assert_allclose(ladder(0.98, 7), [0.5, 0.74, 0.86, 0.92, 0.95, 0.965, 0.98])
    assert ladder(0.4, 7) == [0.4]
    assert ladder(0.9, 1) == [0.9]
    np.testing.assert_allclose(linear(0.9, 3), [0.3, 0.6, 0.9])
    kept = [1 - level for level in exponential(0.99, 4)]
    np.testing.assert_allclose([b / a for a, b in itertools.pairwise([1.0, *kept])], 0.01**0.25)


def test_smart_ratios_of_the_paper() -> None:
    # Six layers of one size: 42, 30, 20, 12, 6, 2.
    found = smart_ratio(["conv"] * 6, [1000] * 6, 0.9, vgg=False)
    np.testing.assert_allclose(found, np.array([42, 30, 20, 12, 6, 2]) * 0.6 / 112)
    squared = smart_ratio(["conv"] * 6, [1000] * 6, 0.95, vgg=True)
    raw = np.array([42, 30 / 4, 20 / 9, 12 / 16, 6 / 25, 2 / 36])
    np.testing.assert_allclose(squared, raw * 0.3 / raw.sum())


def test_smart_ratios_keep_the_budget_and_pour_what_is_too_much_into_the_next_layer() -> None:
    kinds, sizes = ["conv"] * 5 + ["linear"], [100, 1000, 2000, 4000, 8000, 500]
    for sparsity in (0.0, 0.3, 0.5, 0.9, 0.98):
        for vgg in (False, True):
            found = smart_ratio(kinds, sizes, sparsity, vgg=vgg)
            assert sum(d * n for d, n in zip(found, sizes, strict=True)) == pytest.approx((1 - sparsity) * sum(sizes))
            assert all(0 <= d <= 1 + 1e-12 for d in found)
            assert all(a >= b - 1e-12 for a, b in itertools.pairwise(found[:5]))
            if 0 < sparsity <= 0.9 and sparsity >= 0.3:
                assert found[5] == pytest.approx(0.3)
    # Large classifiers, for which the paper has no rule, keep the overall density.
    assert smart_ratio(["conv", "linear"], [100, 10_000], 0.9, vgg=False) == pytest.approx([0.1, 0.1])
    assert smart_ratio(["linear"] * 2, [100, 100], 0.5, vgg=False) == pytest.approx([0.75, 0.25])


def test_a_weight_that_force_removed_returns_and_one_that_iterative_snip_removed_does_not(tmp_path: Path) -> None:
    masks = {}
    for name in ("snip", "iterative-snip", "force"):
        for rounds in (1, 12):
            if name == "snip" and rounds > 1:
                continue
            options = {} if name == "snip" else {"rounds": rounds}
            recipe = single_run(
                None, "lenet-300-100", method=name, data="digits", sparsity=0.99, epochs=0, threads=1,
                init="kaiming-normal", **options,
            )  # fmt: skip
            made = prune(recipe, tmp_path / f"{name}-{rounds}")
            masks[name, rounds] = np.concatenate(
                [t.mask.reshape(-1) for t in made.tensors.values() if t.mask is not None]
            )
            assert masks[name, rounds].sum() == masks["snip", 1].sum()
    # One round is SNIP.
    for name in ("iterative-snip", "force"):
        np.testing.assert_array_equal(masks[name, 1], masks["snip", 1])
        assert not np.array_equal(masks[name, 12], masks["snip", 1])
    assert not np.array_equal(masks["iterative-snip", 12], masks["force", 12])


def test_force_scores_a_removed_weight_by_its_first_value() -> None:
    given = ScoreInputs(
        {"w": np.array([0.0, 2.0, 1.0])},
        {"initial-weights": {"w": np.array([3.0, 2.0, 1.0])}, "gradients": {"w": np.array([1.0, 1.0, 1.0])}},
    )
    np.testing.assert_allclose(SCORES["force"].compute(given)["w"], [0.5, 1 / 3, 1 / 6])
    # The same scores of the masked weights would never let it back.
    assert SCORES["gradient"].compute(given)["w"][0] == 0


def test_scores_without_a_signal_are_an_error() -> None:
    with pytest.raises(UnsupportedError, match="no gradient reaches 'w'"):
        grasp({"w": np.ones(2)}, {})
    with pytest.raises(UnsupportedError, match="every weight is zero"):
        loss_preservation({"w": np.ones(2)}, {"w": np.zeros(2)})


def test_the_evidence_of_a_network_on_digits_is_the_same_twice() -> None:
    data = load_data("digits")
    assert data is not None
    module = perceptron(64, 8, 10)
    wrapped = nn.Sequential(nn.Flatten(), module)
    initialise(wrapped, "kaiming-normal", 0, PHILOX)
    options = {"examples_per_class": 3, "temperature": 200.0, "mode": "train"}
    first, second = (scored("grasp", probe_of(wrapped, data, (1, 8, 8), **options)) for _ in range(2))
    for name in first:
        np.testing.assert_array_equal(first[name], second[name])
