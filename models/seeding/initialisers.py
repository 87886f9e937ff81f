"""The six initialisers: what a weight tensor is drawn from, and the record that draws it again.

Each has one number, its bound (:func:`weight_bound`):

    name             distribution                                 rebuilt from a seed
    uniform          U(-1/sqrt(fan_in), 1/sqrt(fan_in))           yes (the framework's default bounds)
    signed-constant  +-sqrt(2/fan_in), equally likely             yes (Ramanujan et al. 2020)
    constant         sqrt(2/fan_in)                               yes (no symmetry is broken: for masks with own scores)
    kaiming-normal   N(0, 2/fan_in)                               no  (He et al. 2015)
    xavier-normal    N(0, 2/(fan_in + fan_out))                   no  (Glorot and Bengio 2010)
    orthogonal       orthonormal rows or columns, gain 1          no  (Saxe et al. 2014)

The first three have simple arithmetic that numpy, torch and an ONNX graph round alike.
"""

from __future__ import annotations

import math

import numpy as np

from ...errors import UnsupportedError, unknown_name
from .normals import normals, orthogonal
from .philox import check_seed
from .rebuild import FloatArray, rebuild
from .record import GENERATORS, PHILOX, REBUILDABLE, SeedRecord

INITIALISERS = ("uniform", "signed-constant", "constant", "kaiming-normal", "xavier-normal", "orthogonal")


def float32(value: float) -> float:
    """Return ``value`` rounded to the nearest float32, as a Python number."""
    return float(np.float32(value))


def weight_bound(initialiser: str, fan_in: int, fan_out: int) -> float:
    """Return the one number of an initialiser for a weight of the given fans.

    Half-width of ``uniform``, magnitude of the two constants, standard deviation of the two normals (a float32 value in
    each case); 1.0, the gain, for ``orthogonal``. A weight without inputs has bound zero.
    """
    if initialiser == "orthogonal":
        return 1.0
    if initialiser == "xavier-normal":
        return float32(math.sqrt(2.0 / (fan_in + fan_out))) if fan_in + fan_out else 0.0
    if fan_in == 0:
        return 0.0
    return float32(1.0 / math.sqrt(fan_in) if initialiser == "uniform" else math.sqrt(2.0 / fan_in))


def draw(
    initialiser: str, shape: tuple[int, ...], fan_in: int, fan_out: int, seed: int, name: str, generator: str = PHILOX
) -> tuple[FloatArray, SeedRecord | None]:
    """Draw one weight tensor.

    Args:
        initialiser: one of :data:`INITIALISERS`.
        shape: the tensor's shape, output units first.
        fan_in: inputs of one output unit.
        fan_out: outputs that one input unit reaches.
        seed: the run's seed, 0 <= seed < 2**32.
        name: the parameter's name.
        generator: what draws ``uniform`` and ``signed-constant``; the normal ones always use Philox words.

    Returns:
        the float32 tensor, and its record, or None when no seed rebuilds it.

    Raises:
        UnknownNameError: no such initialiser or generator.
        UsageError: the seed is out of range.
    """
    return draw_with(
        initialiser, weight_bound(check_initialiser(initialiser), fan_in, fan_out), shape, seed, name, generator
    )


def draw_with(
    initialiser: str, bound: float, shape: tuple[int, ...], seed: int, name: str, generator: str = PHILOX
) -> tuple[FloatArray, SeedRecord | None]:
    """Draw one tensor with a given bound (standard deviation for the normals), as :func:`draw` does with its own."""
    check_initialiser(initialiser)
    check_generator(generator)
    seed = check_seed(seed)
    if initialiser in REBUILDABLE:
        record = SeedRecord(generator=generator, seed=seed, name=name, initialiser=initialiser, bound=float32(bound))
        return rebuild(record, shape), record
    if initialiser == "orthogonal":
        return orthogonal(seed, name, shape), None
    return normals(seed, name, math.prod(shape), bound).reshape(shape), None


def check_initialiser(name: str) -> str:
    """Return ``name``, or raise :class:`UnknownNameError` when it is no initialiser."""
    if name not in INITIALISERS:
        raise unknown_name("initialiser", name, INITIALISERS)
    return name


def check_generator(name: str) -> str:
    """Return ``name``, or raise :class:`UnknownNameError` when it is no generator."""
    if name not in GENERATORS:
        raise unknown_name("generator", name, GENERATORS)
    return name


def require_rebuildable(initialiser: str) -> None:
    """Refuse an initialiser that cannot stay in a file as a seed (frozen parts and selected weights need one).

    Raises:
        UnsupportedError: with the reason.
    """
    if check_initialiser(initialiser) not in REBUILDABLE:
        raise UnsupportedError(
            f"the initialiser '{initialiser}' goes through float64 functions whose last bit differs between machines, "
            f"so no seed rebuilds it exactly; a seeded part needs one of {', '.join(REBUILDABLE)}."
        )
