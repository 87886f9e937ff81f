"""One tensor of each parametrisation, made by the functions that trainings hand over with."""

from collections.abc import Callable
from typing import Any

import numpy as np

from sparsepack.compressor.checkpoint import SparseTensor, handed_tensor, make_tensor
from sparsepack.compressor.parametrisations import Handover, basis, masks, offset, options, projection, signs
from sparsepack.files import Array, numpy_dtype
from sparsepack.models.seeding.record import KEYED_PRODUCT, PHILOX, SeedRecord

Make = Callable[..., tuple[Handover, Any]]


def seed_for(name: str, generator: str = KEYED_PRODUCT, initialiser: str = "uniform") -> SeedRecord:
    return SeedRecord(generator, 7, name, initialiser, 0.25)


def _signs(dense: Array, mask: Array, part: str) -> Handover:
    scale = np.array(0.125, dense.dtype) if "scale" in part else None
    return Handover("signs", signs.parts_of(mask, dense < 0 if "signs" in part else None, scale))


def _options(dense: Array, mask: Array, count: int, masked: bool) -> Handover:
    choices = np.random.default_rng(3).integers(0, count, dense.shape)
    return Handover("options", options.parts_of(choices, count, mask if masked else None), count=count)


def _masks(dense: Array, mask: Array, stored: bool) -> Handover:
    other = np.random.default_rng(4).random(mask.shape) < 0.5
    initial = dense if stored else None
    return Handover("masks", masks.parts_of([other, mask, ~mask], initial), count=3, task=1)


def _basis(dense: Array, mask: Array) -> Handover:
    size = int(np.prod(dense.shape[2:]))
    filters = np.random.default_rng(5).normal(size=(size, size)).astype(dense.dtype)
    return Handover("basis", basis.parts_of(dense, filters, mask))


def _offset(dense: Array, mask: Array) -> Handover:
    return Handover("offset", offset.parts_of(dense, mask, np.array(0.75, dense.dtype)))


def _projection(dense: Array, mask: Array, stored: bool) -> Handover:
    coordinates = np.random.default_rng(6).normal(size=5).astype(np.float32)
    return Handover("projection", projection.parts_of(coordinates, dense if stored else None), count=5)


# Name -> how it is handed over, and whether a mask stands beside it.
HANDED: dict[str, tuple[Callable[[Array, Array], Handover], bool]] = {
    "signs": (lambda dense, mask: _signs(dense, mask, "signs"), True),
    "signs-scale": (lambda dense, mask: _signs(dense, mask, "scale"), True),
    "signs-both": (lambda dense, mask: _signs(dense, mask, "signs scale"), True),
    "options": (lambda dense, mask: _options(dense, mask, 6, True), True),
    "options-whole": (lambda dense, mask: _options(dense, mask, 300, False), False),
    "masks": (lambda dense, mask: _masks(dense, mask, False), True),
    "masks-stored": (lambda dense, mask: _masks(dense, mask, True), True),
    "basis": (_basis, True),
    "offset": (_offset, True),
    "projection": (lambda dense, mask: _projection(dense, mask, False), False),
    "projection-stored": (lambda dense, mask: _projection(dense, mask, True), False),
}


def fits(kind: str, shape: tuple[int, ...], dtype: str) -> bool:
    """A basis is of filters, a projection of float32."""
    if kind == "basis":
        return len(shape) > 2
    return not kind.startswith("projection") or dtype == "float32"


def handed(
    kind: str,
    shape: tuple[int, ...] = (4, 3, 2, 2),
    *,
    name: str = "weight",
    dtype: str = "float32",
    density: float = 0.5,
    generator: str = PHILOX,
    number: int = 0,
) -> SparseTensor:
    """A tensor of this kind; :data:`HANDED` names them."""
    rng = np.random.default_rng(number)
    dense: Array = rng.normal(size=shape).astype(numpy_dtype(dtype))
    mask = np.asarray(rng.random(shape) < density)
    make, masked = HANDED[kind]
    fields = {"role": "prunable", "seed": seed_for(name, generator)}
    return handed_tensor(name, shape, dtype, make(dense, mask), mask=mask if masked else None, record=fields)


def every_kind(shape: tuple[int, ...] = (4, 3, 2, 2)) -> list[SparseTensor]:
    """A tensor of each kind under its own name, and one that shares the basis of another."""
    made = [handed(kind, shape, name=kind, generator=KEYED_PRODUCT) for kind in HANDED]
    (filters,) = (tensor.parts["basis"] for tensor in made if tensor.record.name == "basis")
    coefficients = np.random.default_rng(8).normal(size=shape).astype(np.float32)
    shared = Handover("basis", basis.parts_of(coefficients, filters), shares="basis")
    return [*made, handed_tensor("shares", coefficients.shape, "float32", shared)]


def plain_bias(name: str = "bias", size: int = 4) -> SparseTensor:
    """A tensor stored whole, as it surrounds the others."""
    return make_tensor(name, np.arange(size, dtype=np.float32))
