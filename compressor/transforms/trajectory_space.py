"""Projection of weights on the space that a training moves in: the first weights that it passed span it.

Zhang et al. 2021 ("Validating the Lottery Ticket Hypothesis with Inertial Manifold Theory"): the dynamics of training
lie near a space of few dimensions, which a few epochs show; survivors start from their early values projected on it,
f2(w) = P P^T (w - mean) + mean.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np

from ...files import Array
from ..training.tape import step_label
from ..training.trajectory import LABEL
from . import Outcome

if TYPE_CHECKING:
    from ..evidence.probe import Probe

# Directions whose variance is this small a part of the largest are rounding errors of others.
_NEGLIGIBLE = 1e-12


def trajectory_space(probe: Probe) -> Outcome:
    """Project the early weights of the space on the option ``rank`` first directions of the recorded trajectory."""
    early = probe.recorded(step_label(probe.options["rewind_step"]))
    return Outcome(weights=project(probe.recorded(LABEL), early, probe.options["rank"]))


def project(rows: Mapping[str, Array], weights: Mapping[str, Array], rank: int) -> dict[str, Array]:
    """Return the point of the affine space that is nearest to ``weights``.

    All tensors are one vector. The space goes through the mean of the rows, along the ``rank`` directions of largest
    variance: with C the centred rows and V, L the first eigenvectors and eigenvalues of the small matrix C C^T, it is
    mean + C^T V L^-1 V^T C (w - mean).

    Args:
        rows: by name, [moments, *shape].
        weights: by name, [*shape].
        rank: of the space; never more than the rows span.

    Returns:
        the same names, in the dtypes of ``weights``.
    """
    means = {name: row.mean(axis=0, dtype=np.float64) for name, row in rows.items()}
    centred = {name: (row - means[name]).reshape(len(row), -1) for name, row in rows.items()}
    gram = np.sum([part @ part.T for part in centred.values()], axis=0)
    values, vectors = np.linalg.eigh(gram)
    first = np.argsort(-values, kind="stable")[:rank]
    first = first[values[first] > _NEGLIGIBLE * max(float(values.max()), 0.0)]
    values, vectors = values[first], vectors[:, first]
    along = np.sum([centred[name] @ (weights[name] - means[name]).reshape(-1) for name in centred], axis=0)
    coordinates = vectors @ ((vectors.T @ along) / values)
    return {
        name: (means[name] + (coordinates @ centred[name]).reshape(means[name].shape)).astype(weights[name].dtype)
        for name in centred
    }
