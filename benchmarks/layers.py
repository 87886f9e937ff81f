"""The layers that benchmarks of single layers measure, and measuring them piece by piece into a table on disk."""

from __future__ import annotations

import itertools
import random
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from sparsepack.models.layer_costs import CostTable, LayerShape
from sparsepack.runtimes.tune import conditions, measure_layers

_PIECE = 8
# Larger layers would take most of the time and say nothing new.
_MOST_MACS = 3e8


def convolution(
    channels: tuple[int, int],
    size: int,
    kernel: int,
    *,
    stride: int = 1,
    dilation: int = 1,
    group: int = 1,
    batch: int = 1,
    axes: int = 2,
) -> LayerShape:
    """Return a convolution that keeps its size (divided by the stride)."""
    pad = dilation * (kernel // 2)
    weight = (channels[1], channels[0] // group, *[kernel] * axes)
    given = ((stride,) * axes, (pad,) * 2 * axes, (dilation,) * axes)
    return LayerShape("Conv", (batch, channels[0], *[size] * axes), weight, *given, group=group)


def linear(tokens: tuple[int, ...], inputs: int, outputs: int) -> LayerShape:
    """Return a linear layer as PyTorch's are lowered: a Gemm for [batch, inputs], else a MatMul."""
    if len(tokens) == 1:
        return LayerShape("Gemm", (*tokens, inputs), (outputs, inputs), transposed=True)
    return LayerShape("MatMul", (*tokens, inputs), (inputs, outputs))


def lefts(count: int = 24, seed: int = 0) -> list[LayerShape]:
    """Return that many shapes of a MatMul with its weight on the left; :func:`grid` stays as it is."""
    rng = random.Random(seed)  # noqa: S311 - a sample of shapes, nothing secret
    widths = (32, 64, 128, 196, 256, 384, 512, 768, 1024)
    shapes: dict[LayerShape, None] = {}
    while len(shapes) < count:
        batch = rng.choice(((), (1,), (8,), (2, 4)))
        inputs, outputs, columns = rng.choice(widths), rng.choice(widths), rng.choice((8, 49, 64, 196, 384, 500, 1024))
        shape = LayerShape("MatMul", (*batch, inputs, columns), (outputs, inputs), transposed=True, left=True)
        if shape.macs <= _MOST_MACS:
            shapes[shape] = None
    return list(shapes)


def grid(count: int = 200, seed: int = 0) -> list[LayerShape]:
    """Return that many layer shapes: the kinds that networks are made of, in sizes drawn from the usual ones."""
    rng = random.Random(seed)  # noqa: S311 - a sample of shapes, nothing secret
    kinds = [_pointwise, _square, _strided, _odd, _sequence, _linear]
    shapes: dict[LayerShape, None] = {}
    for kind in itertools.cycle(kinds):
        shape = kind(rng)
        if shape.macs <= _MOST_MACS:
            shapes[shape] = None
        if len(shapes) == count:
            return list(shapes)
    return []


_CHANNELS = (16, 24, 32, 48, 64, 96, 128, 192, 256, 384, 512)
_SIZES = (7, 8, 14, 16, 28, 32, 56, 112)


def _pair(rng: random.Random) -> tuple[int, int]:
    return rng.choice(_CHANNELS), rng.choice(_CHANNELS)


def _pointwise(rng: random.Random) -> LayerShape:
    wide = (rng.choice((*_CHANNELS, 1024, 2048)), rng.choice((*_CHANNELS, 1024, 2048)))
    return convolution(wide, rng.choice(_SIZES), 1, batch=rng.choice((1, 1, 8)))


def _square(rng: random.Random) -> LayerShape:
    return convolution(_pair(rng), rng.choice(_SIZES), 3, batch=rng.choice((1, 1, 8)))


def _strided(rng: random.Random) -> LayerShape:
    return convolution(_pair(rng), rng.choice((14, 28, 56, 112)), rng.choice((1, 3)), stride=2)


def _odd(rng: random.Random) -> LayerShape:
    channels = rng.choice(_CHANNELS)
    return rng.choice(
        (
            lambda: convolution((3, channels), rng.choice((32, 112, 224)), rng.choice((3, 7)), stride=2),
            lambda: convolution(_pair(rng), rng.choice(_SIZES), 5),
            lambda: convolution((channels, channels), rng.choice(_SIZES), 3, group=channels),
            lambda: convolution((channels, 2 * channels), rng.choice(_SIZES), 3, group=8),
            lambda: convolution(_pair(rng), rng.choice((14, 28, 56)), 3, dilation=2),
        )
    )()


def _sequence(rng: random.Random) -> LayerShape:
    return convolution(_pair(rng), rng.choice((100, 400, 1600)), rng.choice((1, 3, 5)), axes=1)


def _linear(rng: random.Random) -> LayerShape:
    tokens = rng.choice(((1,), (8,), (64,), (1, 16), (1, 128), (1, 512), (4, 128)))
    widths = (128, 256, 384, 512, 768, 1024, 1536, 2048, 3072, 4096)
    return linear(tokens, rng.choice(widths), rng.choice(widths))


def measured(
    path: Path, shapes: Sequence[LayerShape], sparsities: Sequence[float], *, threads: int, minutes: float, fresh: bool
) -> CostTable | None:
    """Measure shapes dense and at every sparsity, a piece at a time, each piece kept on disk.

    Args:
        path: of the table; what it holds already is not measured again.
        shapes: dense forms.
        sparsities: of the sparse forms.
        threads: of a run.
        minutes: after which no further piece begins.
        fresh: forget what the table holds.

    Returns:
        The whole table, or None when time ran out (the same command goes on from there).
    """
    here = conditions(threads)
    table = CostTable(here) if fresh or not path.exists() else CostTable.load(path)
    table.require(here, path)
    end = time.monotonic() + 60 * minutes
    for piece in _pieces(shapes, table, sparsities):
        if time.monotonic() > end:
            print(f"{len(table.costs)} layers measured; the same command goes on from there.", file=sys.stderr)
            return None
        table = measure_layers(piece, threads=threads, known=table)
        table.save(path)
    return table


def _pieces(shapes: Sequence[LayerShape], table: CostTable, sparsities: Sequence[float]) -> Iterator[list[LayerShape]]:
    wanted = [[shape, *(shape.sparse(1 - sparsity) for sparsity in sparsities)] for shape in shapes]
    open_ = [forms for forms in wanted if any(table.find(form) is None for form in forms)]
    for start in range(0, len(open_), _PIECE):
        yield [form for forms in open_[start : start + _PIECE] for form in forms]
