"""Bytes a weight: what methods of selection, freezing and shared structure claim to need, and what `packed` spends.

The claim is counted as the papers count it: a bit for each weight of a mask, ceil(log2 K) bits a choice, a bit a sign,
four bytes a number, and nothing for what a seed draws. The file is whole: header, manifest and hashes included. Masks,
signs and choices are drawn at random, which no code can make shorter than their entropy; trained ones rarely need more.
Every file is decoded and compared with its checkpoint. Sizes only, no times: a few seconds.
"""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from checkpoints import assembled
from record import arguments, write

from sparsepack.compressor.checkpoint import SparseTensor, handed_tensor, make_tensor
from sparsepack.compressor.parametrisations import Handover, basis, masks, offset, options, projection, signs
from sparsepack.exporters import export
from sparsepack.exporters.materialise import plain_checkpoint
from sparsepack.files import Array
from sparsepack.models.seeding.initialisers import weight_bound
from sparsepack.models.seeding.record import KEYED_PRODUCT, SeedRecord

LENET: dict[str, tuple[int, ...]] = {"fc1.weight": (300, 784), "fc2.weight": (100, 300), "fc3.weight": (10, 100)}
# The convolutions of Conv-6.
CONV: dict[str, tuple[int, ...]] = {
    f"conv{number}.weight": (after, before, 3, 3)
    for number, (before, after) in enumerate(((3, 64), (64, 64), (64, 128), (128, 128), (128, 256), (256, 256)), 1)
}
Rng = np.random.Generator
Make = Callable[[str, tuple[int, ...], Rng], SparseTensor]


def seed_of(name: str, shape: tuple[int, ...], initialiser: str) -> SeedRecord:
    """Return how a tensor of the benchmark is drawn."""
    fan_in = math.prod(shape[1:])
    return SeedRecord(KEYED_PRODUCT, 0, name, initialiser, weight_bound(initialiser, fan_in, 0))


def handed(
    name: str, shape: tuple[int, ...], handover: Handover, mask: Array | None, initialiser: str = "signed-constant"
) -> SparseTensor:
    """Return a tensor made of what a training would hand over."""
    record = {"role": "prunable", "seed": seed_of(name, shape, initialiser)}
    return handed_tensor(name, shape, "float32", handover, mask=mask, record=record)


def selected(density: float) -> Make:
    """Seeded weights under a random mask."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        record = {"parametrisation": "selected", "seed": seed_of(name, shape, "signed-constant"), "role": "prunable"}
        return make_tensor(name, np.zeros(shape, np.float32), mask=rng.random(shape) < density, record=record)

    return make


def frozen(density: float) -> Make:
    """A few trained weights, the others seeded."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        record = {"parametrisation": "frozen", "seed": seed_of(name, shape, "uniform"), "role": "prunable"}
        dense = (rng.normal(size=shape) * 0.05).astype(np.float32)
        return make_tensor(name, dense, mask=rng.random(shape) < density, record=record)

    return make


def scaled(density: float) -> Make:
    """The signs of the seed, one scale a layer."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        mask = rng.random(shape) < density
        return handed(name, shape, Handover("signs", signs.parts_of(mask, scale=np.float32(0.05))), mask, "uniform")

    return make


def signed(density: float) -> Make:
    """Stored signs, the magnitude of the seed."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        mask, negative = rng.random(shape) < density, rng.random(shape) < 0.5
        return handed(name, shape, Handover("signs", signs.parts_of(mask, negative)), mask)

    return make


def slots(count: int, density: float | None = None) -> Make:
    """A random choice among candidates, under a mask or for every weight."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        mask = None if density is None else rng.random(shape) < density
        parts = options.parts_of(rng.integers(0, count, shape), count, mask)
        return handed(name, shape, Handover("options", parts, count=count), mask, "uniform")

    return make


def tasks(count: int, density: float) -> Make:
    """Several random masks over one seeded tensor."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        drawn = [rng.random(shape) < density for _ in range(count)]
        return handed(name, shape, Handover("masks", masks.parts_of(drawn), count=count), drawn[0])

    return make


def filters(density: float) -> Make:
    """Coefficients under a random mask, an orthonormal basis a layer."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        mask = rng.random(shape) < density
        coefficients = (rng.normal(size=shape) * 0.05).astype(np.float32)
        size = math.prod(shape[2:])
        basis_filters = np.linalg.qr(rng.normal(size=(size, size)))[0].astype(np.float32)
        return handed(name, shape, Handover("basis", basis.parts_of(coefficients, basis_filters, mask)), mask)

    return make


def cosines(density: float) -> Make:
    """Sparse values beside a cosine transform."""

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        mask = rng.random(shape) < density
        sparse = (rng.normal(size=shape) * 0.05).astype(np.float32)
        return handed(name, shape, Handover("offset", offset.parts_of(sparse, mask, np.float32(1))), mask)

    return make


def coordinates(dimension: int) -> Make:
    """One short vector for all layers."""
    shared = (np.random.default_rng(1).normal(size=dimension) * 0.01).astype(np.float32)

    def make(name: str, shape: tuple[int, ...], rng: Rng) -> SparseTensor:
        owner = None if name == "fc1.weight" else "fc1.weight"
        handover = Handover("projection", projection.parts_of(shared), count=dimension, shares=owner)
        return handed(name, shape, handover, None, "uniform")

    return make


# Method, network, what the paper stores, bytes by its count (weights, layers; a bit of mask is 0.125), how a tensor is
# made.
ROWS: list[tuple[str, dict[str, tuple[int, ...]], str, Callable[[int, int], float], Make]] = [
    ("edge-popup, supermask, 50 %", LENET, "mask", lambda n, _: n / 8, selected(0.5)),
    ("edge-popup, supermask, 95 %", LENET, "mask", lambda n, _: n / 8, selected(0.05)),
    ("FreezeNet, 99 %", LENET, "mask, kept values", lambda n, _: n / 8 + 0.01 * n * 4, frozen(0.01)),
    ("biprop, 50 %", LENET, "mask, a scale a layer", lambda n, k: n / 8 + 4 * k, scaled(0.5)),
    ("signed supermask, 96 %", LENET, "mask, signs", lambda n, _: n / 8 + 0.04 * n / 8, signed(0.04)),
    ("Peek-a-Boo, 70 %", LENET, "mask, signs", lambda n, _: n / 8 + 0.3 * n / 8, signed(0.3)),
    ("slot machines, K = 8", LENET, "3 bits a weight", lambda n, _: 3 * n / 8, slots(8)),
    ("slot machines, K = 64", LENET, "6 bits a weight", lambda n, _: 6 * n / 8, slots(64)),
    ("IteRand, 50 %, 16 draws", LENET, "mask, 4 bits", lambda n, _: n / 8 + 0.5 * n * 4 / 8, slots(16, 0.5)),
    ("SupSup, 10 tasks, 90 %", LENET, "10 masks", lambda n, _: 10 * n / 8, tasks(10, 0.1)),
    (
        "interspace, 90 %",
        CONV,
        "mask, values, 81 numbers a layer",
        lambda n, k: n / 8 + 0.4 * n + 324 * k,
        filters(0.1),
    ),
    (
        "DCT plus sparse, 99 %",
        LENET,
        "mask, values, a scale a layer",
        lambda n, k: n / 8 + 0.04 * n + 4 * k,
        cosines(0.01),
    ),
    ("intrinsic dimension, d = 750", LENET, "750 numbers", lambda n, _: 3000.0, coordinates(750)),
]


def measured(shapes: dict[str, tuple[int, ...]], make: Make, folder: Path) -> dict[str, Any]:
    """Write a network's weights, once with parts and once as the values that come of them."""
    rng = np.random.default_rng(0)
    checkpoint = assembled(*(make(name, shape, rng) for name, shape in shapes.items()), recipe={}, training=None)
    artifact = export(checkpoint, "packed", folder / "parts", force=True)
    dense = checkpoint.dense_state()
    for name, array in artifact.tensors().items():
        if array.tobytes() != dense[name].tobytes():
            raise SystemExit(f"'{name}' decodes to other bytes than its checkpoint.")
    values = export(plain_checkpoint(checkpoint, ("identity",)), "packed", folder / "values", force=True)
    rows = artifact.rows()
    return {
        "file_bytes": artifact.size,
        "stream_bytes": sum(row.bytes for row in rows),
        "bound_bytes": round(sum(row.bound_bytes for row in rows)),
        "as_values_bytes": values.size,
        "weights": sum(math.prod(shape) for shape in shapes.values()),
    }


def main() -> None:
    """Measure every row and write the record."""
    options_given = arguments(__doc__)
    found: list[dict[str, Any]] = []
    with tempfile.TemporaryDirectory() as folder:
        for method, shapes, stored, claim, make in ROWS:
            figures = measured(shapes, make, Path(folder))
            claimed = claim(figures["weights"], len(shapes))
            found.append({"method": method, "stores": stored, "claimed_bytes": round(claimed), **figures})
    write(options_given.json, {"rows": found})


if __name__ == "__main__":
    main()
