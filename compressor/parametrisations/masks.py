"""``masks``: several masks over one tensor, one a task; the tensor is seeded, or stored once for all of them.

Source: SupSup (Wortsman et al. 2020). The record names the task that computes; another task's network is the same file
with another number there.
"""

from __future__ import annotations

import numpy as np

from ...files import Array, numpy_dtype
from ...models.seeding.rebuild import rebuild
from ..mask import BoolArray, pack_bits
from ..tensor_record import TensorRecord
from .base import Parametrisation, Parts, PartSpec, mask_of, one_part, seed_of, size_of

MASKS, INITIAL = "masks", "initial"
MOST_TASKS = 4096


def parts_of(masks: list[BoolArray], initial: Array | None = None) -> dict[str, Array]:
    """Return the parts of a tensor.

    Args:
        masks: one for each task, bool, dense shape.
        initial: the tensor under the masks, dense; None: the seed draws it.
    """
    parts: dict[str, Array] = {MASKS: np.stack([pack_bits(mask) for mask in masks])}
    if initial is not None:
        parts[INITIAL] = np.ascontiguousarray(initial)
    return parts


def _specify(record: TensorRecord, kept: int) -> dict[str, PartSpec]:
    known = {
        MASKS: PartSpec("uint8", (record.count, (size_of(record) + 7) // 8)),
        INITIAL: PartSpec(record.dtype, record.shape),
    }
    return {part: known[part] for part in record.parts}


def _decode(record: TensorRecord, mask: BoolArray | None, parts: Parts) -> Array:
    kept = mask_of(record, mask)
    if INITIAL in record.parts:
        dense = one_part(record, parts, INITIAL).reshape(record.shape).copy()
    else:
        dense = rebuild(seed_of(record), record.shape).astype(numpy_dtype(record.dtype), copy=False)
    dense[~kept] = 0
    return dense


def _problem(record: TensorRecord) -> str | None:
    if not 1 <= record.count <= MOST_TASKS:
        return f"has masks for {record.count} tasks; there are 1 to {MOST_TASKS}"
    if not 0 <= record.task < record.count:
        return f"computes task {record.task}, and has masks for {record.count} tasks (the first is 0)"
    return None


ONE_A_TASK = Parametrisation(
    name="masks",
    summary="one mask a task over one seeded tensor; zero outside the mask of the task that computes",
    mask="required",
    variants=((MASKS,), (INITIAL, MASKS)),
    unseeded=((INITIAL, MASKS),),
    zero_outside=True,
    specify=_specify,
    decode=_decode,
    problem_of=_problem,
)
