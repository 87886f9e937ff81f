"""Wanda: weights by inputs, |w_ij| * ||x_j||_2, compared within each output unit (Sun et al. 2024)."""

from __future__ import annotations

import numpy as np
import torch

from ...files import Array
from ...models.tensors import to_numpy
from ..mask import BoolArray
from ..selection import n_of_m, top_k
from ..structure import NofM


def wanda(
    rows: torch.Tensor, squares: torch.Tensor, keep: int, form: NofM | None
) -> tuple[torch.Tensor, BoolArray, str | None]:
    """Choose the weights of one layer.

    Args:
        rows: weights [units, inputs].
        squares: sum of x_j**2 over the calibration data, [inputs].
        keep: weights that stay.
        form: N:M, or None for single weights.

    Returns:
        the weights with the others at zero, the mask, and nothing to tell.
    """
    metric = to_numpy(rows.abs() * squares.sqrt())
    mask = n_of_m_rows(metric, form) if form else best_of_each_row(metric, keep)
    return rows * torch.from_numpy(mask).to(rows.device), mask, None


def n_of_m_rows(metric: Array, form: NofM) -> BoolArray:
    """Keep N of every M consecutive entries of each row."""
    return n_of_m(metric.reshape(-1, form.m), form.n).reshape(metric.shape)


def best_of_each_row(metric: Array, keep: int) -> BoolArray:
    """Keep ``keep`` entries in all, as many of every row: where that does not divide, some rows keep one more.

    The rows with one more are those whose next entry is largest.
    """
    each, more = divmod(keep, len(metric))
    order = np.argsort(-metric, axis=1, kind="stable")
    mask = np.zeros(metric.shape, np.bool_)
    np.put_along_axis(mask, order[:, :each], True, axis=1)
    if more:
        following = order[:, each : each + 1]
        (chosen,) = top_k([np.take_along_axis(metric, following, axis=1).reshape(-1)], more)
        mask[np.flatnonzero(chosen), following[chosen, 0]] = True
    return mask
