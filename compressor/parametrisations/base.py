"""What a parametrisation is: which arrays a tensor stores besides its mask, and how they make the dense tensor.

Everything is pure: a record, a mask and named arrays in, an array out. What a file claims is checked against the
record (:meth:`Parametrisation.problem`, then the specification of each part) before any of it is read.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

import numpy as np

from ...errors import FileFormatError
from ...files import Array, numpy_dtype
from ...models.seeding.record import SeedRecord
from ..mask import BoolArray
from ..tensor_record import TensorRecord

VALUES = "values"
Parts = Mapping[str, Array]


class PartSpec(NamedTuple):
    """The type and shape of one stored array."""

    dtype: str
    shape: tuple[int, ...]


def _nothing(record: TensorRecord) -> str | None:
    return None


def _anything(record: TensorRecord, parts: Parts) -> None:
    return None


@dataclass(frozen=True)
class Parametrisation:
    """One entry of the closed list.

    Attributes:
        name: what records call it.
        summary: what the tensor is made of, one line.
        mask: whether a mask stands beside the parts.
        variants: the sets of parts (besides ``values``) that a record may name, each in alphabetical order.
        zero_outside: whether every weight that the mask leaves out is zero.
        specify: record, number of kept weights -> the specification of every stored array, ``values`` included.
        decode: record, mask, parts -> the dense tensor, in the record's shape and dtype; the same bits everywhere.
        unseeded: those of the variants that decode without a seed.
        shared: parts that several tensors may have in common.
        exact: whether decoding only chooses and copies, so that it gives a trained tensor back bit for bit; otherwise
            it computes, and agrees with what a training computed to rounding.
        problem_of: what is wrong with a record beyond what :meth:`problem` checks; None for nothing.
        check: raises :class:`FileFormatError` when a stored array holds what it cannot hold.
    """

    name: str
    summary: str
    mask: Literal["required", "optional", "refused"]
    variants: tuple[tuple[str, ...], ...]
    zero_outside: bool
    specify: Callable[[TensorRecord, int], dict[str, PartSpec]]
    decode: Callable[[TensorRecord, BoolArray | None, Parts], Array]
    unseeded: tuple[tuple[str, ...], ...] = ()
    shared: tuple[str, ...] = ()
    exact: bool = True
    problem_of: Callable[[TensorRecord], str | None] = _nothing
    check: Callable[[TensorRecord, Parts], None] = _anything

    def problem(self, record: TensorRecord) -> str | None:
        """Return what is wrong with a record of this parametrisation, as half a sentence; None for nothing."""
        if self.mask == "required" and not record.masked:
            return f"is '{self.name}' but has no mask"
        if self.mask == "refused" and record.masked:
            return f"is '{self.name}' but has a mask"
        if record.parts not in self.variants:
            return f"is '{self.name}' and cannot store the parts ({', '.join(record.parts)})"
        if record.seed is None and record.parts not in self.unseeded:
            return f"is '{self.name}' but carries no seed record"
        if record.shares is not None and not set(self.shared) & set(record.parts):
            return f"is '{self.name}' and has nothing to share with '{record.shares}'"
        return self.problem_of(record)


@dataclass(frozen=True)
class Handover:
    """What a training hands over for one tensor in place of its weights.

    Attributes:
        parametrisation: an entry of the table.
        parts: arrays as the functions ``parts_of`` beside each parametrisation make them.
        seed: what the decoder draws from; None for the record that the network's initialisation left.
        count: see :class:`.tensor_record.TensorRecord`.
        task: see there.
        shares: see there; the tensor that owns the part hands it over too, with the same array.
    """

    parametrisation: str
    parts: Parts
    seed: SeedRecord | None = None
    count: int = 0
    task: int = 0
    shares: str | None = None

    def fields(self) -> dict[str, Any]:
        """Return what a record says of it, the seed left out."""
        return {
            "parametrisation": self.parametrisation,
            "parts": tuple(sorted(part for part in self.parts if part != VALUES)),
            "count": self.count,
            "task": self.task,
            "shares": self.shares,
        }


def size_of(record: TensorRecord) -> int:
    """Return the number of weights of the dense tensor."""
    return math.prod(record.shape)


def seed_of(record: TensorRecord) -> SeedRecord:
    """Return the seed record.

    Raises:
        FileFormatError: there is none.
    """
    if record.seed is None:
        raise FileFormatError(f"tensor '{record.name}' is '{record.parametrisation}' but carries no seed record.")
    return record.seed


def mask_of(record: TensorRecord, mask: BoolArray | None) -> BoolArray:
    """Return the mask.

    Raises:
        FileFormatError: there is none.
    """
    if mask is None:
        raise FileFormatError(f"tensor '{record.name}' is '{record.parametrisation}' but has no mask.")
    return mask


def placed(mask: BoolArray, values: Array, base: Array) -> Array:
    """Write kept values (row-major order) over ``base``, in place, and return it."""
    # The places first: writing through a mask takes several times as long.
    np.put(base, np.flatnonzero(mask), values)
    return base


def one_part(record: TensorRecord, parts: Parts, name: str) -> Array:
    """Return a part.

    Raises:
        FileFormatError: it is missing.
    """
    if name not in parts:
        what = "values" if name == VALUES else f"part '{name}'"
        raise FileFormatError(f"tensor '{record.name}' has no {what}.")
    return parts[name]


def arithmetic(record: TensorRecord) -> np.dtype[Any]:
    """Return the type that a decoder computes in: float64 for float64, float32 for everything else."""
    return np.dtype(np.float64 if record.dtype == "float64" else np.float32)


def narrowed(record: TensorRecord, dense: Array) -> Array:
    """Return an array in the record's shape and dtype."""
    result: Array = dense.reshape(record.shape).astype(numpy_dtype(record.dtype), copy=False)
    return result
