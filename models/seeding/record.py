"""The seed record: everything that is needed to draw one tensor again, on any machine, bit for bit."""

from __future__ import annotations

import msgspec

PHILOX = "philox4x32-10"
KEYED_PRODUCT = "keyed-product"
GENERATORS = (PHILOX, KEYED_PRODUCT)

# The initialisers that rebuild bit for bit in numpy, torch and an ONNX graph; only these may stay in a file as a seed.
REBUILDABLE = ("uniform", "signed-constant", "constant")
# A fixed matrix in the place of random numbers; no network is drawn with it, but a file may say that a tensor is it.
HADAMARD = "hadamard"


class SeedRecord(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """How to draw one float32 tensor again (design: seeded initialisation).

    Attributes:
        generator: ``philox4x32-10`` or ``keyed-product``.
        seed: the run's seed, 0 <= seed < 2**32.
        name: the parameter's name when it was drawn; its CRC-32 is half of the key.
        initialiser: one of :data:`REBUILDABLE`, or :data:`HADAMARD`.
        bound: half-width of ``uniform``, magnitude of ``signed-constant`` and ``hadamard``, value of ``constant``; a
            float32 value.
    """

    generator: str
    seed: int
    name: str
    initialiser: str
    bound: float
