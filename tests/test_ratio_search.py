"""The search for densities by layer: its budget, a problem whose best answer is known, and a network."""

from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from hypothesis import given
from hypothesis import strategies as st
from probes import linear_network, points, probe_of

from sparsepack.compressor.ratio_search import Vector, search, within_budget
from sparsepack.compressor.transforms.ratio_search import ratio_search

SIZES = np.array([100.0, 400.0, 50.0, 250.0])


@given(
    st.lists(st.floats(-5, 5), min_size=4, max_size=4),
    st.floats(0.01, 0.99),
    st.floats(0.0, 1.0),
)
def test_every_candidate_meets_the_budget(offsets: list[float], density: float, floor: float) -> None:
    found = within_budget(np.array(offsets), SIZES, density, floor)
    assert abs(found @ SIZES - density * SIZES.sum()) < 1e-6 * SIZES.sum()
    assert (found >= floor * density).all()
    assert (found <= 1).all()


def test_a_known_optimum_is_found() -> None:
    target = within_budget(np.array([1.5, -1.0, 0.5, 0.0]), SIZES, 0.3, 0.1)

    def reward(densities: Vector) -> float:
        return -float(np.abs(densities - target).max())

    found = search(SIZES, 0.3, reward, candidates=600, floor=0.1, seed=1)
    assert np.abs(found - target).max() < 0.03
    assert reward(within_budget(np.zeros(4), SIZES, 0.3, 0.1)) < -0.2


def test_one_candidate_is_the_uniform_one() -> None:
    np.testing.assert_allclose(search(SIZES, 0.3, lambda d: 0.0, candidates=1, floor=0.2, seed=0), 0.3)


def test_a_network_keeps_the_best_densities_and_is_left_as_it_was() -> None:
    module, data = linear_network(6, 40, 3), points()
    before = [p.detach().clone() for p in module.parameters()]
    options: dict[str, Any] = {"candidates": 48, "samples": 24, "batch_size": 24, "floor": 0.1}
    outcome = ratio_search(probe_of(module, data, allocation="global", sparsity=0.8, **options))
    assert all(torch.equal(a, b) for a, b in zip(before, module.parameters(), strict=True))
    assert outcome.masks is not None
    assert sum(int(mask.sum()) for mask in outcome.masks.values()) == 72
    inputs, labels = next(data.batches("train", 24, seed=3))

    def loss(masks: list[torch.Tensor]) -> float:
        first, second = (w * mask for w, mask in zip(before, masks, strict=True))
        return F.cross_entropy(torch.relu(inputs @ first.T) @ second.T, labels).item()

    uniform = []
    for w in before:
        mask = torch.zeros(w.numel())
        mask[w.abs().flatten().argsort(descending=True)[: w.numel() // 5]] = 1
        uniform.append(mask.reshape(w.shape))
    assert loss([torch.from_numpy(mask).float() for mask in outcome.masks.values()]) < loss(uniform)
