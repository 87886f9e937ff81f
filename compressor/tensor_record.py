"""One tensor of a network as a checkpoint describes it: shape, hash, and how it is put together."""

from __future__ import annotations

import sys

import msgspec

from ..models.seeding.record import SeedRecord


class TensorRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """One tensor of the network as the checkpoint describes it.

    Attributes:
        name: its state_dict (or ONNX initializer) name.
        shape: its dense shape.
        dtype: its dense dtype (``float32``, ``bfloat16`` ...).
        sha256: of the decoded dense tensor's little-endian bytes.
        role: ``prunable`` (a weight that a method may mask), ``parameter`` or ``buffer``.
        parametrisation: one of :data:`.parametrisations.PARAMETRISATIONS`.
        masked: whether a mask is stored; an unmasked tensor is stored whole.
        structure: what the mask was selected as: ``element``, ``N:M``, ``block:RxC``, ``channel`` or ``input-channel``.
        output_axis: the axis of the output units (0 for torch's Linear and Conv, 1 for ONNX's MatMul [K, N]).
        seed: how to draw the tensor again as it was before training; None when no seed does.
        alias_of: the tensor that this one shares its storage with (tied weights); nothing of its own is stored.
        parts: what is stored besides mask and values, as its parametrisation names it, in alphabetical order.
        count: of candidates (``options``), of tasks (``masks``) or of coordinates (``projection``); else 0.
        task: of ``masks``: which task's mask computes, from 0.
        shares: the tensor whose part this one uses too (``basis``, ``projection``); it stores none of its own.
    """

    name: str
    shape: tuple[int, ...]
    dtype: str
    sha256: str
    role: str = "parameter"
    parametrisation: str = "identity"
    masked: bool = False
    structure: str = "element"
    output_axis: int = 0
    seed: SeedRecord | None = None
    alias_of: str | None = None
    parts: tuple[str, ...] = ()
    count: int = 0
    task: int = 0
    shares: str | None = None

    def __post_init__(self) -> None:
        """Make equal records equal bytes: a default is left out only when it is the very object, not an equal one."""
        for field_name in ("dtype", "role", "parametrisation", "structure"):
            msgspec.structs.force_setattr(self, field_name, sys.intern(getattr(self, field_name)))
