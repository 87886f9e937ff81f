"""One tensor in memory, taken apart: what a checkpoint stores of it, and how that is made and put together."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import msgspec
import numpy as np

from ..errors import HashMismatchError, UnsupportedError
from ..files import Array, numpy_dtype, sha256_array
from .mask import BoolArray, unpack_bits
from .parametrisations import PARAMETRISATIONS, VALUES, Handover, Parts
from .parametrisations.masks import MASKS
from .tensor_record import TensorRecord


@dataclass(frozen=True)
class SparseTensor:
    """One tensor in memory: its record, its mask (None when unmasked) and what is stored of it.

    ``values`` is the dense tensor when unmasked, the kept values in row-major order (1-D) for ``identity`` and for
    ``frozen`` with a seed, every value (dense shape) for ``frozen`` without one, and None for ``selected`` and others
    that store no values of their own. ``parts`` holds the arrays that ``record.parts`` names, also a shared one.
    """

    record: TensorRecord
    mask: BoolArray | None
    values: Array | None
    parts: Parts = field(default_factory=dict)

    @property
    def kept(self) -> int:
        """The number of entries that the mask keeps (all of them when there is no mask)."""
        if self.mask is None:
            return int(np.prod(self.record.shape, dtype=np.int64))
        return int(np.count_nonzero(self.mask))

    def dense(self) -> Array:
        """Return the tensor as the network computes with it, in its dense shape and dtype."""
        return dense_tensor(self.record, self.mask, self.values, self.parts)

    def verify(self) -> None:
        """Raise :class:`HashMismatchError` when the decoded tensor is not the one that was written."""
        check_hash(self.record, self.dense())


def dense_tensor(
    record: TensorRecord, mask: BoolArray | None, values: Array | None, parts: Parts | None = None
) -> Array:
    """Put mask, values, parts and seed together as the record's parametrisation says.

    Args:
        record: shape, dtype, parametrisation and seed.
        mask: bool, in the dense shape, or None.
        values: as :class:`SparseTensor` describes.
        parts: the arrays that the record names.
    """
    stored = {**(parts or {}), **({} if values is None else {VALUES: values})}
    return PARAMETRISATIONS[record.parametrisation].decode(record, mask, stored)


def check_hash(record: TensorRecord, dense: Array) -> None:
    """Raise :class:`HashMismatchError` unless ``dense`` has the bytes that the record promises."""
    if sha256_array(dense) != record.sha256:
        raise HashMismatchError(
            f"tensor '{record.name}' decodes to other bytes than were written (SHA-256 differs); the file is corrupt."
        )


def make_tensor(
    name: str, dense: Array, *, mask: BoolArray | None = None, record: Mapping[str, Any] | None = None
) -> SparseTensor:
    """Build a :class:`SparseTensor` from a dense array: the one place where a tensor becomes mask and values.

    Args:
        name: the tensor's name.
        dense: the tensor as the network computes with it; entries outside the mask are ignored and replaced by what
            the parametrisation puts there.
        mask: bool array in the same shape, or None.
        record: further :class:`TensorRecord` fields (role, parametrisation, structure, output_axis, seed); of the
            parametrisations those that need nothing but values: ``identity``, ``frozen``, ``selected``.
    """
    fields: dict[str, Any] = {"name": name, "shape": tuple(dense.shape), "dtype": dense.dtype.name, **(record or {})}
    draft = TensorRecord(**fields, sha256="", masked=mask is not None)
    values: Array | None = np.ascontiguousarray(dense)
    if mask is not None:
        if draft.parametrisation == "selected":
            values = None
        elif draft.parametrisation != "frozen" or draft.seed is not None:
            values = dense[mask]
    return _hashed(draft, mask, values, {})


def handed_tensor(
    name: str,
    shape: tuple[int, ...],
    dtype: str,
    handover: Handover,
    *,
    mask: BoolArray | None = None,
    record: Mapping[str, Any] | None = None,
) -> SparseTensor:
    """Build a :class:`SparseTensor` from what a training hands over; see :class:`.parametrisations.Handover`.

    Args:
        name: the tensor's name.
        shape: its dense shape.
        dtype: its dense dtype.
        handover: its parametrisation and parts.
        mask: bool array in the same shape, or None.
        record: further :class:`TensorRecord` fields (role, structure, output_axis, seed).

    Raises:
        UnsupportedError: the parts do not fit the tensor, or cannot be stored.
    """
    fields = {**(record or {}), **handover.fields()}
    if handover.seed is not None:
        fields["seed"] = handover.seed
    elif fields["parts"] in PARAMETRISATIONS[handover.parametrisation].unseeded:
        fields["seed"] = None
    draft = TensorRecord(name=name, shape=tuple(shape), dtype=dtype, sha256="", masked=mask is not None, **fields)
    kind = PARAMETRISATIONS[draft.parametrisation]
    problem = kind.problem(draft)
    if problem:
        raise UnsupportedError(f"tensor '{name}' cannot be stored: it {problem}.")
    if MASKS in draft.parts:
        mask = unpack_bits(handover.parts[MASKS].reshape(draft.count, -1)[draft.task], draft.shape)
    kept = math.prod(shape) if mask is None else int(np.count_nonzero(mask))
    parts: dict[str, Array] = {}
    for part, spec in kind.specify(draft, kept).items():
        found = handover.parts.get(part)
        if found is None:
            raise UnsupportedError(f"tensor '{name}' cannot be stored: it has no {part}.")
        if found.dtype != numpy_dtype(spec.dtype) or found.size != math.prod(spec.shape):
            raise UnsupportedError(
                f"tensor '{name}' cannot be stored: its {part} should be {math.prod(spec.shape)} of {spec.dtype}, "
                f"and are {found.size} of {found.dtype}."
            )
        parts[part] = found.reshape(spec.shape)
    kind.check(draft, parts)
    return _hashed(draft, mask, parts.pop(VALUES, None), parts)


def _hashed(draft: TensorRecord, mask: BoolArray | None, values: Array | None, parts: Parts) -> SparseTensor:
    digest = sha256_array(dense_tensor(draft, mask, values, parts))
    return SparseTensor(msgspec.structs.replace(draft, sha256=digest), mask, values, parts)
