"""Seed records written short: what all of them share once per file, and per tensor only what cannot be derived.

A frozen tensor whose record follows from the file's seeding, its own name and its own shape costs no byte of its own.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Iterable

import msgspec

from ..models.seeding.initialisers import weight_bound
from ..models.seeding.record import REBUILDABLE, SeedRecord


class Seeding(msgspec.Struct, frozen=True, array_like=True, forbid_unknown_fields=True):
    """What the seed records of a file have in common; four elements of a JSON array, in this order.

    Attributes:
        generator: of the seed records.
        initialiser: of the seed records.
        seed: the run's.
        parametrisation: of masked tensors.
    """

    generator: str
    initialiser: str
    seed: int
    parametrisation: str


class SeedException(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """Where a tensor's seed record differs from what the file and the tensor's name and shape imply."""

    generator: str | None = None
    seed: int | None = None
    name: str | None = None
    initialiser: str | None = None
    bound: float | None = None


def common_seeding(seeds: Iterable[tuple[SeedRecord, str]]) -> Seeding | None:
    """Return what most seed records and their tensors' parametrisations share (the first of equals); None for none."""
    counted = Counter(Seeding(seed.generator, seed.initialiser, seed.seed, text) for seed, text in seeds)
    return counted.most_common(1)[0][0] if counted else None


def exceptions(
    seeding: Seeding, name: str, shape: tuple[int, ...], output_axis: int, seed: SeedRecord
) -> SeedException:
    """Return where ``seed`` differs from what the file and the tensor imply; :func:`with_exceptions` undoes it."""
    implied = _implied(seeding, name, shape, output_axis, seed.initialiser)
    differing = {
        field: getattr(seed, field)
        for field in ("generator", "seed", "name", "bound")
        # repr tells -0.0 from 0.0
        if repr(getattr(seed, field)) != repr(getattr(implied, field))
    }
    if seed.initialiser != seeding.initialiser:
        differing["initialiser"] = seed.initialiser
    return SeedException(**differing)


def with_exceptions(
    seeding: Seeding, name: str, shape: tuple[int, ...], output_axis: int, changes: SeedException
) -> SeedRecord:
    """Return the seed record of a tensor.

    Args:
        seeding: the file's.
        name: the tensor's name.
        shape: its dense shape.
        output_axis: the axis of its output units; its inputs are all other weights of one unit.
        changes: where it differs from what these imply.
    """
    implied = _implied(seeding, name, shape, output_axis, changes.initialiser or seeding.initialiser)
    explicit = {field: value for field, value in msgspec.to_builtins(changes).items() if value is not None}
    return msgspec.structs.replace(implied, **explicit)


def _implied(seeding: Seeding, name: str, shape: tuple[int, ...], output_axis: int, initialiser: str) -> SeedRecord:
    units = shape[output_axis] if shape else 1
    fan_in = math.prod(shape) // units if units else 0
    bound = weight_bound(initialiser, fan_in, 0) if initialiser in REBUILDABLE else 0.0
    return SeedRecord(seeding.generator, seeding.seed, name, initialiser, bound)
