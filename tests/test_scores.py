"""Scores against autograd, closed forms and published layer densities."""

import math
import statistics

import numpy as np
import pytest
import torch
from torch import nn

from sparsepack.compressor.allocation import allocate
from sparsepack.compressor.evidence import EVIDENCE
from sparsepack.compressor.methods import METHODS
from sparsepack.compressor.scores import SCORES, ScoreInputs, find_score, magnitude, random, saliency
from sparsepack.compressor.selection import select
from sparsepack.compressor.space import make_space
from sparsepack.compressor.structure import Element
from sparsepack.errors import UnknownNameError, UnsupportedError
from sparsepack.files import Array
from sparsepack.models.prunable import PrunableTensor
from sparsepack.models.seeding.philox import words


def test_magnitude() -> None:
    scores = magnitude({"w": np.array([[-2.0, 0.5], [-0.0, 3.0]], np.float32)})
    assert scores["w"].tolist() == [[2.0, 0.5], [0.0, 3.0]]
    assert scores["w"].dtype == np.float32


def vgg_16() -> dict[str, tuple[int, ...]]:
    widths = [64, 64, 128, 128, 256, 256, 256, 512, 512, 512, 512, 512, 512]
    shapes: dict[str, tuple[int, ...]] = {}
    inputs = 3
    for number, width in enumerate(widths, start=1):
        shapes[f"conv{number}"] = (width, inputs, 3, 3)
        inputs = width
    shapes["fc"] = (100, 512)
    return shapes


@pytest.mark.parametrize(
    ("compression", "published"),
    [
        (10, [0.888, 0.5154, 0.5154, 0.3576, 0.3576, *[0.1932] * 3, *[0.0658] * 5, 0.5397]),
        (100, [0.802, 0.246, 0.246, 0.101, 0.101, *[0.0204] * 3, *[0.0010] * 5, 0.274]),
    ],
)
def test_global_magnitude_at_a_normal_initialisation_follows_the_erfc_law(
    compression: int, published: list[float]
) -> None:
    shapes = vgg_16()
    fans = {name: math.prod(shape[1:]) for name, shape in shapes.items()}
    rng = np.random.default_rng(0)
    weights = {
        name: rng.standard_normal(shape, dtype=np.float32) * np.float32(math.sqrt(2 / fans[name]))
        for name, shape in shapes.items()
    }
    space = make_space([PrunableTensor(n, s, "conv", 0, fans[n], 0) for n, s in shapes.items()], Element())
    assert space.total == 14_761_664
    quota = allocate("global", space, Element(), 1 - 1 / compression)
    masks = select(magnitude(weights), quota, Element(), space)
    assert sum(int(mask.sum()) for mask in masks.values()) == quota

    def kept_at(threshold: float) -> float:
        return sum(mask.size * math.erfc(threshold / math.sqrt(4 / fans[name])) for name, mask in masks.items())

    low, high = 0.0, 1.0
    for _ in range(60):
        middle = (low + high) / 2
        low, high = (middle, high) if kept_at(middle) > space.total / compression else (low, middle)
    for (name, mask), density in zip(masks.items(), published, strict=True):
        law = math.erfc(low / math.sqrt(4 / fans[name]))
        assert law == pytest.approx(density, abs=6e-4 if density > 0.01 else 6e-5)
        # Four standard deviations of a binomial share.
        assert mask.mean() == pytest.approx(law, abs=4 * math.sqrt(law * (1 - law) / mask.size))


class Gated(nn.Module):
    """Two layers whose weights pass gates c; at c = 1 the gates' gradients are what SNIP defines."""

    def __init__(self) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(4)
        self.weights = nn.ParameterDict(
            {
                "a": nn.Parameter(torch.randn(7, 5, generator=generator, dtype=torch.float64)),
                "b": nn.Parameter(torch.randn(3, 7, generator=generator, dtype=torch.float64)),
            }
        )
        self.gates = nn.ParameterDict({name: nn.Parameter(torch.ones_like(w)) for name, w in self.weights.items()})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(x @ (self.weights["a"] * self.gates["a"]).T)
        outputs: torch.Tensor = hidden @ (self.weights["b"] * self.gates["b"]).T
        return outputs


def gradients_of(model: Gated, scale: float = 1.0) -> tuple[dict[str, np.ndarray], dict[str, np.ndarray]]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(16, 5, generator=generator, dtype=torch.float64)
    y = torch.randint(0, 3, (16,), generator=generator)
    model.zero_grad()
    torch.autograd.backward(scale * nn.functional.cross_entropy(model(x), y))
    weights = {name: p.grad.numpy().copy() for name, p in model.weights.items() if p.grad is not None}
    gates = {name: p.grad.numpy().copy() for name, p in model.gates.items() if p.grad is not None}
    return weights, gates


def test_saliency_is_the_gradient_of_a_gate() -> None:
    model = Gated()
    gradients, gates = gradients_of(model)
    scores = saliency({name: w.detach().numpy() for name, w in model.weights.items()}, gradients)
    total = sum(np.abs(gate).sum() for gate in gates.values())
    for name, gate in gates.items():
        np.testing.assert_allclose(scores[name], np.abs(gate) / total, rtol=1e-6)
        assert scores[name].dtype == np.float32
    assert sum(float(s.sum(dtype=np.float64)) for s in scores.values()) == pytest.approx(1, rel=1e-6)


def test_saliency_does_not_depend_on_the_scale_of_the_loss() -> None:
    model = Gated()
    weights = {name: w.detach().numpy() for name, w in model.weights.items()}
    small, large = (saliency(weights, gradients_of(model, scale)[0]) for scale in (1e-30, 1e6))
    for name in weights:
        np.testing.assert_allclose(small[name], large[name], rtol=1e-6)


def test_saliency_of_one_linear_neuron() -> None:
    # d/dw_j of the mean of (w x - y)^2 is 2 E[(w x - y) x_j].
    rng = np.random.default_rng(8)
    x, y, w = rng.standard_normal((50, 4)), rng.standard_normal(50), rng.standard_normal((1, 4))
    residual = x @ w[0] - y
    expected = np.abs(w[0] * 2 * (residual[:, None] * x).mean(axis=0))
    weight = torch.tensor(w, requires_grad=True)
    torch.autograd.backward(nn.functional.mse_loss((torch.from_numpy(x) @ weight.T).squeeze(1), torch.from_numpy(y)))
    assert weight.grad is not None
    scores = saliency({"w": w}, {"w": weight.grad.numpy()})
    np.testing.assert_allclose(scores["w"][0], expected / expected.sum(), rtol=1e-6)


def test_products_below_float32_still_rank() -> None:
    weights = {"w": np.array([[1e-30, 2e-30, 3e-30]], np.float32)}
    gradients = {"w": np.array([[1e-30, 1e-30, -1e-30]], np.float32)}
    np.testing.assert_allclose(saliency(weights, gradients)["w"], [[1 / 6, 2 / 6, 3 / 6]], rtol=1e-6)


def test_saliency_without_a_gradient_is_an_error() -> None:
    weights = {"a": np.ones((2, 2)), "b": np.ones((2, 2))}
    with pytest.raises(UnsupportedError, match="no gradient reaches 'b'"):
        saliency(weights, {"a": np.ones((2, 2))})
    with pytest.raises(UnsupportedError, match=r"the gradient of 'b' has shape \(4,\)"):
        saliency(weights, {"a": np.ones((2, 2)), "b": np.ones(4)})
    with pytest.raises(UnsupportedError, match="the loss does not depend on any prunable weight"):
        saliency(weights, {"a": np.zeros((2, 2)), "b": np.zeros((2, 2))})


def test_random_scores_are_uniform_and_come_from_the_seed_alone() -> None:
    shapes = {"a": (200, 300), "b": (50, 7)}
    scores = random(shapes, seed=3)
    again = random({"a": shapes["a"]}, seed=3)
    np.testing.assert_array_equal(scores["a"], again["a"])
    values = scores["a"].reshape(-1)
    assert values.dtype == np.float32
    assert values.min() >= 0 and values.max() < 1
    deviation = statistics.NormalDist().inv_cdf(0.9999) / math.sqrt(values.size)
    assert values.mean() == pytest.approx(0.5, abs=deviation * math.sqrt(1 / 12))
    assert np.square(values).mean() == pytest.approx(1 / 3, abs=deviation * math.sqrt(4 / 45))


def test_random_scores_differ_by_seed_draw_and_name_and_share_no_word_with_the_weights() -> None:
    first = random({"a": (4, 16)}, seed=3)["a"].reshape(-1)
    draws = [
        random({"a": (4, 16)}, seed=4)["a"],
        random({"a": (4, 16)}, seed=3, draw=1)["a"],
        random({"b": (4, 16)}, seed=3)["b"],
        (words(3, "a", 0, 64) >> 8) * 2.0**-24,
    ]
    for other in draws:
        assert np.count_nonzero(first == other.reshape(-1)) == 0


def test_random_masks_under_global_allocation_are_spread_evenly() -> None:
    # Each layer's count is hypergeometric; four standard deviations.
    shapes = {"a": (300, 784), "b": (100, 300), "c": (10, 100)}
    space = make_space([PrunableTensor(n, s, "linear", 0, s[1], s[0]) for n, s in shapes.items()], Element())
    total, kept = space.total, 26_620
    masks = select(random(shapes, seed=0), kept, Element(), space)
    for name, shape in shapes.items():
        size = math.prod(shape)
        variance = kept * (size / total) * (1 - size / total) * (total - kept) / (total - 1)
        assert abs(int(masks[name].sum()) - kept * size / total) < 4 * math.sqrt(variance)


def test_the_table_takes_what_it_says() -> None:
    weights = {"w": np.array([[1.0, -2.0], [3.0, -4.0]], np.float32)}
    found: dict[str, dict[str, Array]] = {kind: {"w": np.full((2, 2), 0.5, np.float32)} for kind in EVIDENCE}
    for factors in (found[kind] for kind in EVIDENCE if kind.startswith("kronecker")):
        factors |= {"w/A": np.eye(2), "w/S": np.eye(2)}
    found["unit-gates"] = {"w": np.full(2, 0.5, np.float32)}
    options = {option.name: option.default for method in METHODS.values() for option in method.options}
    inputs = ScoreInputs(
        weights, found, seed=1, draw=2, options=options, select=lambda scores: {"w": scores["w"] > scores["w"].mean()}
    )
    for name, score in SCORES.items():
        bare = ScoreInputs(weights, seed=1, draw=2, options=options)
        result = score.compute(inputs if score.evidence else bare)
        assert result["w"].shape == (2, 2), name
    np.testing.assert_array_equal(SCORES["random"].compute(inputs)["w"], random({"w": (2, 2)}, 1, 2)["w"])
    assert find_score("magnitude") is SCORES["magnitude"]
    with pytest.raises(UnknownNameError, match=r"unknown score 'magnitud'\. Did you mean 'magnitude'"):
        find_score("magnitud")
