"""Parity: the measure itself against hand-made outputs, and its power to find a network with one layer zeroed."""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from sparsepack.errors import UnsupportedError
from sparsepack.runtimes.measure.parity import BOUND, compare, parity, spread
from sparsepack.runtimes.measure.running import run_all

FloatArray = NDArray[np.floating[Any]]


class Chain:
    """A small fully connected network in numpy; ``fixed_batch`` as a session has it."""

    notes: tuple[str, ...] = ()

    def __init__(self, weights: Sequence[FloatArray], fixed_batch: int | None = None) -> None:
        self.weights = weights
        self.fixed_batch = fixed_batch
        self.batches: list[int] = []

    def run(self, *inputs: FloatArray) -> FloatArray:
        (x,) = inputs
        self.batches.append(len(x))
        for weight in self.weights[:-1]:
            x = np.maximum(x @ weight.T, 0)
        return x @ self.weights[-1].T


def network() -> list[FloatArray]:
    generator = np.random.default_rng(0)
    return [generator.standard_normal(shape).astype(np.float32) for shape in ((20, 8), (20, 20), (20, 20), (5, 20))]


def inputs(count: int = 32) -> tuple[FloatArray]:
    return (np.random.default_rng(1).standard_normal((count, 8)).astype(np.float32),)


def test_a_known_comparison() -> None:
    # Two outputs, 16 inputs: +1 and -1 around a mean of 10, so that the standard deviation is exactly 1.
    reference = np.full((16, 2), 10.0) + np.tile([[1.0], [-1.0]], (8, 2))
    output = reference.copy()
    output[3, 1] += 0.25
    found = compare(reference, output)
    assert found.max_abs_error == 0.25
    assert found.error == pytest.approx(0.25)
    assert found.argmax_agreement == 15 / 16
    assert found.inputs == 16


def test_constant_differences_between_outputs_do_not_count_as_reaction_to_the_input() -> None:
    reference = np.tile(np.array([[0.0, 1000.0, -1000.0]]), (16, 1))
    reference[:, 0] = np.arange(16) / 10
    assert spread(reference) == pytest.approx(np.sqrt(np.var(np.arange(16) / 10) / 3))


def test_the_same_network_passes_and_rounding_passes() -> None:
    weights = network()
    assert parity(Chain(weights), Chain(weights), inputs()).error == 0.0
    doubled = [weight.astype(np.float64) for weight in weights]
    error = parity(Chain(weights), Chain(doubled), inputs()).error
    assert error is not None
    assert 0 < error < BOUND


@pytest.mark.parametrize("layer", range(4))
def test_a_network_with_one_layer_zeroed_fails(layer: int) -> None:
    weights = network()
    damaged = [weight * (index != layer) for index, weight in enumerate(weights)]
    found = parity(Chain(weights), Chain(damaged), inputs())
    assert found.error is not None
    assert found.error > 1.0


def test_one_wrong_weight_in_a_thousand_fails() -> None:
    weights = network()
    damaged = [weight.copy() for weight in weights]
    damaged[1].flat[17] *= -1
    error = parity(Chain(weights), Chain(damaged), inputs()).error
    assert error is not None
    assert error > BOUND


def test_a_reference_that_ignores_its_input_is_degenerate_not_equal() -> None:
    constant = np.tile(np.array([[1.0, 2.0, 3.0]]), (32, 1))
    found = compare(constant, constant)
    assert found.error is None
    assert found.max_abs_error == 0.0
    # What float32 rounding leaves of a constant is no reaction to the input either.
    jitter = constant * (1 + 1e-7 * np.random.default_rng(0).standard_normal(constant.shape))
    assert compare(jitter, constant).error is None


@pytest.mark.parametrize(
    ("reference", "output", "message"),
    [
        (np.zeros((16, 3)), np.zeros((16, 4)), r"shape \(16, 4\) cannot be compared"),
        (np.zeros((15, 3)), np.zeros((15, 3)), "at least 16 inputs, not 15"),
        (np.zeros((16, 3)), np.full((16, 3), np.nan), "the outputs hold NaN"),
        (np.full((16, 3), np.inf), np.zeros((16, 3)), "the reference's outputs hold NaN or infinity"),
    ],
)
def test_what_cannot_be_compared(reference: NDArray[np.float64], output: NDArray[np.float64], message: str) -> None:
    with pytest.raises(UnsupportedError, match=message):
        compare(reference, output)


@pytest.mark.parametrize("count", [1, 7, 8, 9, 40])
def test_a_network_of_fixed_batch_size_gets_only_that_size(count: int) -> None:
    fixed, free = Chain(network(), fixed_batch=8), Chain(network())
    arrays = inputs(count)
    np.testing.assert_allclose(run_all(fixed, arrays), run_all(free, arrays), rtol=1e-4, atol=1e-4)
    assert set(fixed.batches) == {8}


def test_examples_are_run_in_batches() -> None:
    network_ = Chain(network())
    assert run_all(network_, inputs(10), batch=4).shape == (10, 5)
    assert network_.batches == [4, 4, 2]
