"""Second-order scores: how much the loss rises when a weight goes, by a quadratic model of it around a minimum.

In: weights, and curvature. Out: the rise in loss that each weight stands for, never negative. Pure; float64 inside.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping

import numpy as np
import numpy.typing as npt

from ...errors import UnsupportedError
from ...files import Array

Matrix = npt.NDArray[np.float64]


def obd(weights: Mapping[str, Array], curvature: Mapping[str, Array], damp: float = 0.0) -> dict[str, Array]:
    """Return ``1/2 (h + damp) w**2`` with the diagonal ``h`` of the curvature (LeCun et al. 1990, eq. 5).

    A negative ``h``, which an exact Hessian away from a minimum may have, counts as zero: leaving a weight out is never
    credited with a lower loss.
    """
    return {
        name: 0.5 * (np.maximum(curvature[name], 0.0, dtype=np.float64) + damp) * np.square(w, dtype=np.float64)
        for name, w in weights.items()
    }


def obs(weights: Mapping[str, Array], samples: Mapping[str, Array], damp: float, block: int) -> dict[str, Array]:
    """Return ``w_q**2 / (2 [F^-1]_qq)`` (Hassibi and Stork 1993, eq. 5; blocks: Singh and Alistarh 2020).

    Args:
        weights: by tensor name; a masked weight is zero and so is its score.
        samples: gradients [N, *shape] by name: F = damp I + 1/N sum g g^T.
        damp: lambda > 0.
        block: weights that share a block of F, consecutive within their tensor; 0: one block for all tensors.
    """
    scores = {name: np.zeros(w.size) for name, w in weights.items()}
    for parts, gradients in blocks(samples, block):
        inverse = inverse_diagonal(gradients, damp)
        for (name, begin, end), values in zip(parts, _split(inverse, parts), strict=True):
            w = weights[name].reshape(-1)[begin:end].astype(np.float64)
            scores[name][begin:end] = np.square(w) / (2 * values)
    return {name: flat.reshape(weights[name].shape) for name, flat in scores.items()}


def inverse_diagonal(gradients: Matrix, damp: float) -> Matrix:
    """Return the diagonal of ``(damp I + 1/N G^T G)^-1`` without forming it: Woodbury, in the space of the N gradients.

    Args:
        gradients: [N, weights].
        damp: > 0.
    """
    half = np.linalg.solve(_factor(gradients, damp), gradients)
    diagonal: Matrix = np.maximum((1 - np.square(half).sum(axis=0)) / damp, np.finfo(np.float64).tiny)
    return diagonal


def inverse_times(gradients: Matrix, damp: float, vector: Matrix) -> Matrix:
    """Return ``(damp I + 1/N G^T G)^-1 vector``, likewise."""
    factor = _factor(gradients, damp)
    inner = np.linalg.solve(factor.T, np.linalg.solve(factor, gradients @ vector))
    product: Matrix = (vector - gradients.T @ inner) / damp
    return product


def _factor(gradients: Matrix, damp: float) -> Matrix:
    inner = gradients @ gradients.T
    inner[np.diag_indices_from(inner)] += damp * len(gradients)
    factor: Matrix = np.linalg.cholesky(inner).astype(np.float64, copy=False)
    return factor


Part = tuple[str, int, int]


def blocks(samples: Mapping[str, Array], block: int) -> Iterator[tuple[list[Part], Matrix]]:
    """Yield the blocks of a Fisher matrix: which stretches of which tensors, and their gradients [N, weights].

    Raises:
        UnsupportedError: there is no gradient at all.
    """
    if not samples:
        raise UnsupportedError("the loss depends on no prunable weight, so there is no curvature to rank by.")
    flat = {name: array.reshape(len(array), -1) for name, array in samples.items()}
    if block == 0:
        parts = [(name, 0, array.shape[1]) for name, array in flat.items()]
        yield parts, np.concatenate(list(flat.values()), axis=1).astype(np.float64)
        return
    for name, array in flat.items():
        for begin in range(0, array.shape[1], block):
            end = min(begin + block, array.shape[1])
            yield [(name, begin, end)], array[:, begin:end].astype(np.float64)


def _split(vector: Matrix, parts: list[Part]) -> list[Matrix]:
    return np.split(vector, np.cumsum([end - begin for _, begin, end in parts])[:-1])


def kronecker_obs(weights: Mapping[str, Array], factors: Mapping[str, Array], damp: float) -> dict[str, Array]:
    """Return ``w_ij**2 / (2 [A^-1]_jj [S^-1]_ii)`` (Zeng and Urtasun 2019, MLPrune), F being A (x) S.

    Args:
        weights: by tensor name, output units along axis 0.
        factors: ``NAME/A`` [inputs, inputs], the mean of a a^T, and ``NAME/S`` [outputs, outputs], that of s s^T.
        damp: added to both diagonals, as a share of their mean.
    """
    scores: dict[str, Array] = {}
    for name, w in weights.items():
        a, s = (np.diag(np.linalg.inv(damped(factors[f"{name}/{side}"], damp))) for side in "AS")
        rows = np.square(w.reshape(len(w), -1), dtype=np.float64)
        scores[name] = (rows / (2 * s[:, None] * a[None, :])).reshape(w.shape)
    return scores


def kronecker_basis(weights: Mapping[str, Array], factors: Mapping[str, Array]) -> dict[str, Array]:
    """Return EigenDamage's importance (Wang et al. 2019, eq. 9), given back to the weights that it comes from.

    In the eigenbasis of the Kronecker factors, W' = Q_S^T W Q_A, each coordinate is worth 1/2 W'**2 times its
    eigenvalues, because the curvature is diagonal there. Coordinate (a, b) is spread over the weights (i, j) by
    Q_S[i, a]**2 Q_A[j, b]**2, which add up to one: nothing of the total is lost.
    """
    scores: dict[str, Array] = {}
    for name, w in weights.items():
        (lambda_a, q_a), (lambda_s, q_s) = (
            np.linalg.eigh(factors[f"{name}/{side}"].astype(np.float64)) for side in "AS"
        )
        rotated = q_s.T @ w.reshape(len(w), -1).astype(np.float64) @ q_a
        worth = 0.5 * np.square(rotated) * np.outer(np.maximum(lambda_s, 0), np.maximum(lambda_a, 0))
        scores[name] = (np.square(q_s) @ worth @ np.square(q_a).T).reshape(w.shape)
    return scores


def damped(matrix: Array, damp: float) -> Matrix:
    """Return a covariance with ``damp`` times its mean diagonal (1 where that is zero) added to the diagonal."""
    result = matrix.astype(np.float64)
    mean = float(np.trace(result)) / len(result)
    result[np.diag_indices_from(result)] += damp * (mean if mean > 0 else 1.0)
    return result
