"""Parity: how far a network's outputs are from the reference's, in units of how much the reference reacts to its input.

A plain absolute or relative bound would pass a network that ignores its input; dividing by the standard deviation of
the reference output across inputs does not, and a reference that hardly reacts is called degenerate instead of equal.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from ...errors import UnsupportedError
from ...files import Array
from ..base import Session
from .record import Parity
from .running import run_all

# The bound everywhere: an order above what float32 rounding gives in a network of a hundred layers.
BOUND = 1e-4
MINIMUM_INPUTS = 16
# Below this share of the output's size, what is left of the deviation is float32 rounding.
_DEGENERATE = 1e-6


@dataclass(frozen=True)
class Comparison:
    """Two outputs compared; ``error`` is None when the reference's outputs do not depend on its inputs."""

    error: float | None
    max_abs_error: float
    argmax_agreement: float
    inputs: int

    def record(self, runtime: str) -> Parity:
        """Return the record's block."""
        return Parity(self.error, self.max_abs_error, self.argmax_agreement, self.inputs, runtime)


def spread(reference: Array) -> float:
    """Return the standard deviation of an output across inputs.

    Args:
        reference: outputs, shape [inputs, ...]; every element's deviation is taken around its own mean over the inputs,
            so that constant differences between outputs (a class that always scores high) do not count.
    """
    wide = reference.astype(np.float64)
    return float(np.sqrt(np.mean((wide - wide.mean(axis=0)) ** 2)))


def compare(reference: Array, output: Array) -> Comparison:
    """Compare two networks' outputs on the same inputs.

    Args:
        reference: shape [inputs, ...], inputs >= 16.
        output: the same shape.

    Raises:
        UnsupportedError: other shapes, too few inputs, or outputs that are not finite.
    """
    if reference.shape != output.shape:
        raise UnsupportedError(
            f"outputs of shape {output.shape} cannot be compared with reference outputs of shape {reference.shape}."
        )
    if len(reference) < MINIMUM_INPUTS:
        raise UnsupportedError(f"parity needs at least {MINIMUM_INPUTS} inputs, not {len(reference)}.")
    for name, array in (("the reference's outputs", reference), ("the outputs", output)):
        if not np.isfinite(array).all():
            raise UnsupportedError(f"{name} hold NaN or infinity.")
    worst = float(np.max(np.abs(reference.astype(np.float64) - output.astype(np.float64))))
    deviation = spread(reference)
    degenerate = deviation <= _DEGENERATE * float(np.max(np.abs(reference)))
    rows = len(reference)
    agreement = np.mean(reference.reshape(rows, -1).argmax(axis=1) == output.reshape(rows, -1).argmax(axis=1))
    return Comparison(None if degenerate else worst / deviation, worst, float(agreement), rows)


def parity(reference: Session, session: Session, inputs: Sequence[Array]) -> Comparison:
    """Run both on the same inputs and compare; see :func:`compare`."""
    return compare(run_all(reference, inputs), run_all(session, inputs))
