"""The same random words and the same rebuilt tensors in torch, on any device, without a copy from the host.

Bit for bit equal to :mod:`.philox` and :mod:`.rebuild`: integer operations wrap alike, and every weight is made by one
exact cast and one multiplication.
"""

from __future__ import annotations

import math

import torch

from .keyed_product import column_keys, matrix_shape, row_keys
from .philox import KEY_STEPS, MULTIPLIERS, ROUNDS, stream_key
from .rebuild import check_record
from .record import PHILOX, REBUILDABLE, SeedRecord

_LOW = 0xFFFFFFFF


def words(seed: int, name: str, start: int, count: int, device: torch.device | str = "cpu") -> torch.Tensor:
    """Return words ``start`` to ``start + count`` of the tensor ``name``, as int64 [count] with values below 2**32."""
    key = stream_key(seed, name)
    if start < 0 or count < 0 or start + count > 2**62:
        raise ValueError(f"words {start} to {start + count} are outside what this generator draws.")
    first, last = start >> 2, (start + count + 3) >> 2
    block = torch.arange(first, last, dtype=torch.int64, device=device)
    zero = torch.zeros_like(block)
    lanes = (block & _LOW, block >> 32, zero, zero)
    k0, k1 = key
    for _ in range(ROUNDS):
        # A product of two 32-bit numbers needs the 64th bit; int64 wraps into the sign, and the mask after the
        # arithmetic shift gives the high half all the same.
        product0, product1 = lanes[0] * MULTIPLIERS[0], lanes[2] * MULTIPLIERS[1]
        lanes = (
            ((product1 >> 32) & _LOW) ^ lanes[1] ^ k0,
            product1 & _LOW,
            ((product0 >> 32) & _LOW) ^ lanes[3] ^ k1,
            product0 & _LOW,
        )
        k0, k1 = (k0 + KEY_STEPS[0]) & _LOW, (k1 + KEY_STEPS[1]) & _LOW
    return torch.stack(lanes, dim=1).reshape(-1)[start - first * 4 : start - first * 4 + count]


def rebuild(record: SeedRecord, shape: tuple[int, ...], device: torch.device | str = "cpu") -> torch.Tensor:
    """Draw a whole float32 tensor again on ``device``.

    Raises:
        FileFormatError: the record is malformed or from a later release.
    """
    check_record(record, REBUILDABLE)
    bound = torch.tensor(record.bound, dtype=torch.float32, device=device)
    if record.initialiser == "constant":
        return bound.expand(shape).clone()
    if record.generator == PHILOX:
        drawn = (words(record.seed, record.name, 0, math.prod(shape), device) >> 8) - 2**23
        scale = bound * 2.0**-23
    else:
        rows, columns = matrix_shape(shape)
        # Signed views of the keys: int32 products wrap in two's complement as uint32 products do.
        by_row, by_column = (
            torch.from_numpy(keys.view("int32")).to(device)
            for keys in (row_keys(record.seed, record.name, rows), column_keys(record.seed, record.name, columns))
        )
        drawn = by_row[:, None] * by_column[None, :]
        scale = bound * 2.0**-31
    if record.initialiser == "signed-constant":
        return torch.where(drawn >= 0, bound, -bound).reshape(shape)
    return (drawn.to(torch.float32) * scale).reshape(shape)
