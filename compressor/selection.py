"""Selection: scores and a quota become masks that keep exactly as many weights as the quota says.

Guaranteed: the kept entries are those of highest score; among equal scores the one that comes first is kept (tensors in
the space's order, then row-major position); the same input gives the same masks on any machine. A NaN is refused.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import UnsupportedError, UsageError
from ..files import Array
from .allocation import Quota
from .mask import BoolArray
from .structure import Element, NofM, Structure
from .threshold import CHUNK, common_dtype, kth_largest, sortable

if TYPE_CHECKING:
    from .space import Space


def select(
    scores: Mapping[str, Array],
    quota: Quota,
    structure: Structure,
    space: Space,
    *,
    keep_alive: bool = False,
    within: Mapping[str, BoolArray] | None = None,
) -> dict[str, BoolArray]:
    """Choose the weights that stay.

    Args:
        scores: element scores by tensor name, each in its tensor's shape; higher = keep; float32, or any float.
        quota: weights to keep, in the whole space (int: tensors compete) or by tensor name, as
            :func:`~.allocation.allocate` returns it. A structure whose groups cannot add up to the quota keeps fewer
            weights, never more: groups are taken in descending order of score, each if it still fits, so that less is
            missing than the smallest group that was left out. For N:M the quota is given by the structure and is only
            checked.
        structure: what is kept together. Groups of different tensors compete by score per weight.
        space: the tensors and their order.
        keep_alive: every tensor keeps at least its best entry or group; the count stays exact, the weakest of the
            others make room.
        within: masks of an earlier round, in the tensors' shapes: only what they keep can be kept.

    Returns:
        Bool masks by name in the space's order and the tensors' shapes, True where the weight stays.

    Raises:
        UnsupportedError: a score is NaN.
        UsageError: the quota cannot be met.
    """
    for tensor in space.tensors:
        _check_scores(tensor.name, scores[tensor.name], tensor.shape)
    if isinstance(structure, NofM):
        return _select_blocks(scores, quota, structure, space, within)
    if isinstance(structure, Element):
        flat = [scores[name].reshape(-1) for name in space.names]
        allowed = None if within is None else [within[name].reshape(-1) for name in space.names]
        chosen = _select_elements(flat, quota, space, keep_alive, allowed)
    else:
        chosen = _select_groups(scores, quota, structure, space, keep_alive, within)
    return {t.name: structure.expand(mask, t) for t, mask in zip(space.tensors, chosen, strict=True)}


def top_k(scores: Sequence[Array], k: int, within: Sequence[BoolArray] | None = None) -> list[BoolArray]:
    """Keep the ``k`` largest of all scores together; equal scores are kept in order.

    Args:
        scores: 1-D arrays without NaN.
        k: how many to keep over all arrays, 0 <= k <= the number of candidates.
        within: which entries are candidates, one bool array for each; None: all.

    Returns:
        One bool array for each array of scores.
    """
    if k == 0:
        return [np.zeros(array.size, np.bool_) for array in scores]
    cut = kth_largest(scores, k, within)
    # In the common precision: narrower arrays would round the threshold of a wider one.
    value = common_dtype(scores).type(cut.value)
    ties = k - cut.greater
    masks = []
    for number, array in enumerate(scores):
        mask: BoolArray = array >= value if ties == cut.equal else array > value
        if within is not None:
            mask &= within[number]
        masks.append(mask)
    if ties < cut.equal:
        _keep_first_ties(scores, masks, value, ties, within)
    return masks


def n_of_m(scores: Array, n: int, within: BoolArray | None = None) -> BoolArray:
    """Keep the ``n`` largest of every row; equal scores are kept in order.

    Args:
        scores: [blocks, M], without NaN.
        n: how many to keep in each row; a row with fewer candidates keeps them all.
        within: candidates, in the same shape; None: all.

    Returns:
        A bool array [blocks, M].
    """
    blocks, m = scores.shape
    mask = np.empty((blocks, m), np.bool_)
    dtype = common_dtype([scores])
    rows = max(1, CHUNK // m)
    for start in range(0, blocks, rows):
        part = slice(start, start + rows)
        keys = sortable(np.ascontiguousarray(scores[part].T), dtype)
        if within is not None:
            keys *= within[part].T
        # The rank of a place is the number of places that beat it; counting pairs beats sorting many short rows.
        rank = np.zeros(keys.shape, np.int16)
        for later in range(1, m):
            for earlier in range(later):
                beaten = keys[later] > keys[earlier]
                rank[earlier] += beaten
                rank[later] += ~beaten
        mask[part] = (rank < n).T
    if within is not None:
        mask &= within
    return mask


def _check_scores(name: str, scores: Array, shape: tuple[int, ...]) -> None:
    if scores.shape != shape:
        raise UnsupportedError(f"scores of '{name}' have shape {scores.shape}; its weights have shape {shape}.")
    # numpy's minimum of anything and a NaN is NaN: one pass, no temporary array. bfloat16's minimum skips NaN.
    by_minimum = scores.dtype.kind == "f" and scores.size > 0
    if np.isnan(scores.min()) if by_minimum else np.isnan(scores).any():
        place = int(np.isnan(scores).reshape(-1).argmax())
        raise UnsupportedError(
            f"the score of weight {place} of '{name}' is not a number (NaN), so nothing can be ranked; look for a NaN "
            f"or an infinity in its weights or gradients."
        )


def _select_elements(
    flat: list[Array],
    quota: Quota,
    space: Space,
    keep_alive: bool,
    within: list[BoolArray] | None,
) -> list[BoolArray]:
    candidates = [array.size if within is None else int(np.count_nonzero(within[i])) for i, array in enumerate(flat)]
    if isinstance(quota, int):
        _check_quota(quota, sum(candidates), "the space")
        return _keep_alive_top_k(flat, quota, within) if keep_alive else top_k(flat, quota, within)
    masks = []
    for i, tensor in enumerate(space.tensors):
        k = quota[tensor.name]
        _check_quota(k, candidates[i], f"'{tensor.name}'")
        masks += top_k([flat[i]], k, None if within is None else [within[i]])
    return masks


def _keep_alive_top_k(flat: list[Array], k: int, within: list[BoolArray] | None) -> list[BoolArray]:
    """Like :func:`top_k`, but a tensor that would come out empty keeps its first best candidate."""
    alive = range(len(flat)) if within is None else [i for i, mask in enumerate(within) if mask.any()]
    if k < len(alive):
        raise UsageError(f"keeping every layer alive needs at least {len(alive)} weights, the sparsity leaves {k}.")
    poor: set[int] = set()
    while True:
        # Making room for the poor can empty a tensor that had just enough; it joins them and the rest are cut again.
        rich = [i for i in range(len(flat)) if i not in poor]
        part = None if within is None else [within[i] for i in rich]
        masks = dict(zip(rich, top_k([flat[i] for i in rich], k - len(poor), part), strict=True))
        emptied = {i for i in rich if i in alive and not masks[i].any()}
        if not emptied:
            break
        poor |= emptied
    for i in poor:
        (masks[i],) = top_k([flat[i]], 1, None if within is None else [within[i]])
    return [masks[i] for i in range(len(flat))]


def _select_groups(
    scores: Mapping[str, Array],
    quota: Quota,
    structure: Structure,
    space: Space,
    keep_alive: bool,
    within: Mapping[str, BoolArray] | None,
) -> list[BoolArray]:
    pooled = isinstance(quota, int)
    ranked = [structure.group_scores(scores[t.name], t, normalise=pooled) for t in space.tensors]
    sizes = [structure.groups(t).size for t in space.tensors]
    allowed = [
        np.ones(ranked[i].size, np.bool_) if within is None else structure.group_scores(within[t.name], t) > 0
        for i, t in enumerate(space.tensors)
    ]
    if not isinstance(quota, int):
        budgets = [quota[name] for name in space.names]
        for i, name in enumerate(space.names):
            _check_quota(budgets[i], sizes[i] * int(np.count_nonzero(allowed[i])), f"'{name}'")
        return [top_k([ranked[i]], budgets[i] // sizes[i], [allowed[i]])[0] for i in range(len(ranked))]
    _check_quota(quota, sum(s * int(np.count_nonzero(a)) for s, a in zip(sizes, allowed, strict=True)), "the space")
    chosen = [np.zeros(array.size, np.bool_) for array in ranked]
    if keep_alive:
        for i, array in enumerate(ranked):
            if allowed[i].any():
                (chosen[i],) = top_k([array], 1, [allowed[i]])
                quota -= sizes[i]
        if quota < 0:
            raise UsageError(
                f"keeping every layer alive needs {-quota} more weights than the sparsity leaves (one group a layer)."
            )
    if len(set(sizes)) == 1:
        # As many as fit are the best ones.
        left = [a & ~taken for a, taken in zip(allowed, chosen, strict=True)]
        fitting = min(quota // sizes[0], sum(int(np.count_nonzero(mask)) for mask in left))
        return [taken | more for taken, more in zip(chosen, top_k(ranked, fitting, left), strict=True)]
    _fill(chosen, ranked, sizes, allowed, quota)
    return chosen


def _fill(chosen: list[BoolArray], ranked: list[Array], sizes: list[int], allowed: list[BoolArray], quota: int) -> None:
    """Take groups in descending order of score, each if it still fits into ``quota`` weights; changes ``chosen``."""
    joined = np.concatenate(ranked)
    tensor = np.repeat(np.arange(len(ranked)), [array.size for array in ranked])
    first = np.cumsum([0, *(array.size for array in ranked[:-1])])
    # 0.0 + makes -0.0 and 0.0 one value; the stable sort then keeps equal scores in order.
    for position in np.argsort(-(0.0 + joined), kind="stable"):
        i = int(tensor[position])
        place = int(position - first[i])
        if sizes[i] <= quota and allowed[i][place] and not chosen[i][place]:
            chosen[i][place] = True
            quota -= sizes[i]


def _select_blocks(
    scores: Mapping[str, Array],
    quota: Quota,
    structure: NofM,
    space: Space,
    within: Mapping[str, BoolArray] | None,
) -> dict[str, BoolArray]:
    masks = {}
    for t in space.tensors:
        fixed = structure.n * structure.groups(t).count
        if not isinstance(quota, int) and quota[t.name] != fixed:
            raise UsageError(f"'{t.name}' under {structure.text} keeps {fixed} weights, not {quota[t.name]}.")
        blocks = structure.group_scores(scores[t.name], t)
        inside = None if within is None else structure.group_scores(within[t.name], t)
        masks[t.name] = structure.expand(n_of_m(blocks, structure.n, inside), t)
    return masks


def _check_quota(k: int, candidates: int, where: str) -> None:
    if not 0 <= k <= candidates:
        raise UsageError(f"cannot keep {k} weights of {where}: {candidates} are candidates.")


def _keep_first_ties(
    scores: Sequence[Array],
    masks: Sequence[BoolArray],
    value: np.floating[Any],
    ties: int,
    within: Sequence[BoolArray] | None,
) -> None:
    for number, array in enumerate(scores):
        for start in range(0, array.size, CHUNK):
            part = slice(start, start + CHUNK)
            equal = array[part] == value
            if within is not None:
                equal &= within[number][part]
            places = np.flatnonzero(equal)[:ties]
            masks[number][part][places] = True
            ties -= places.size
            if ties == 0:
                return
