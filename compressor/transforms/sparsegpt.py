"""SparseGPT: optimal brain surgery of one layer, all rows sharing one sequence of inverse Hessians.

For a linear layer the squared error of its output has the Hessian H = X^T X in every row's weights. Columns are visited
from left to right; a column's removed weights are made up for by the columns to its right, the only ones that still
may change, so that one Cholesky factor of H^-1 serves all steps and rows (Frantar and Alistarh 2023, algorithm 1).
"""

from __future__ import annotations

import torch

from ...errors import UnsupportedError
from ...models.tensors import to_numpy
from ..mask import BoolArray
from ..selection import n_of_m, top_k
from ..structure import NofM

_LARGEST_DAMP = 1e3


def sparsegpt(
    rows: torch.Tensor, hessian: torch.Tensor, keep: int, form: NofM | None, *, damp: float, block: int
) -> tuple[torch.Tensor, BoolArray, str | None]:
    """Prune and update the weights of one layer.

    Args:
        rows: weights [units, inputs], float32.
        hessian: X^T X, [inputs, inputs].
        keep: weights that stay, in all.
        form: N:M, or None: then the mask of each block of columns is chosen at once, over all rows.
        damp: share of the mean diagonal that is added to the diagonal.
        block: columns whose updates are gathered before the rest of the matrix sees them.

    Returns:
        the new weights, the mask, and a sentence where the Hessian had to be damped more than asked.
    """
    inputs = rows.shape[1]
    w = rows.clone()
    factor, dead, note = inverse_factor(hessian, damp)
    # An input that was always zero says nothing about its weights, and they do nothing.
    w[:, dead] = 0
    mask = torch.zeros(rows.shape, dtype=torch.bool, device=rows.device)
    if form is not None:
        # A block may not end inside a group.
        block = max(form.m, block - block % form.m)
    gone = 0
    for begin in range(0, inputs, block):
        end = min(begin + block, inputs)
        part, upper = w[:, begin:end].clone(), factor[begin:end, begin:end]
        pivots = upper.diagonal()
        errors = torch.zeros_like(part)
        if form is None:
            # Rounded from the front, so that the blocks add up to the exact count.
            count = (rows.numel() - keep) * end // inputs - gone
            gone += count
            mask[:, begin:end] = _largest(part.square() / pivots.square(), part.numel() - count)
        for column in range(end - begin):
            place = begin + column
            if form is not None and column % form.m == 0:
                group = slice(column, column + form.m)
                scores = to_numpy(part[:, group].square() / pivots[group].square())
                mask[:, place : place + form.m] = torch.from_numpy(n_of_m(scores, form.n)).to(mask.device)
            values = part[:, column]
            error = values.masked_fill(mask[:, place], 0.0) / pivots[column]
            if column + 1 < end - begin:
                part[:, column + 1 :].addr_(error, upper[column, column + 1 :], alpha=-1.0)
            errors[:, column] = error
        w[:, begin:end] = part
        if end < inputs:
            w[:, end:].addmm_(errors, factor[begin:end, end:], alpha=-1.0)
    w.masked_fill_(~mask, 0.0)
    return w, to_numpy(mask), note


def inverse_factor(hessian: torch.Tensor, damp: float) -> tuple[torch.Tensor, torch.Tensor, str | None]:
    """Return the upper Cholesky factor of the inverse of the damped Hessian, and which inputs were always zero.

    Where the Hessian is not positive definite, which fewer calibration rows than inputs make sure of and rounding can
    bring about, the damping is raised tenfold until it is; the third result then says so.
    """
    matrix = hessian.clone()
    diagonal = matrix.diagonal()
    dead = diagonal == 0
    mean = float(diagonal.mean()) or 1.0
    diagonal[dead] = mean
    used = damp
    while True:
        trial = matrix.clone()
        trial.diagonal().add_(used * mean)
        lower, failed = torch.linalg.cholesky_ex(trial)
        if not int(failed):
            upper, failed = torch.linalg.cholesky_ex(torch.cholesky_inverse(lower), upper=True)
        if not int(failed) and bool(torch.isfinite(upper).all()):
            break
        if used >= _LARGEST_DAMP:
            raise UnsupportedError(
                "the inputs of a layer are not finite on the calibration data, so no damping helps; look at the data."
            )
        used = max(10 * used, 1e-6)
    if used == damp:
        return upper, dead, None
    note = (
        f"the Hessian of its inputs is not positive definite with a damping of {damp:g}; {used:g} of its mean diagonal "
        "was added instead. More calibration samples make it so."
    )
    return upper, dead, note


def _largest(scores: torch.Tensor, keep: int) -> torch.Tensor:
    (mask,) = top_k([to_numpy(scores).reshape(-1)], keep)
    return torch.from_numpy(mask.reshape(tuple(scores.shape))).to(scores.device)
