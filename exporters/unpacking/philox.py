"""Philox4x32-10 as ONNX nodes: the words of many tensors from one run of the ten rounds.

Words are computed for all requests at once, as columns of blocks, so that a network pays for the rounds' nodes once.
Everything is uint64 with values below 2**32 (only unsigned types can be shifted, and 32 by 32 bits need 64).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx

from ...models.seeding.philox import KEY_STEPS, MULTIPLIERS, ROUNDS, stream_key
from .emitter import Emitter

_MASK = 0xFFFFFFFF
# A value of the graph, or a number that is known while the graph is written.
_Lane = str | int


@dataclass(frozen=True)
class Words:
    """A request: the first ``count`` words of the stream of one tensor.

    Attributes:
        seed: the record's.
        name: the record's.
        count: how many words.
    """

    seed: int
    name: str
    count: int

    @property
    def blocks(self) -> int:
        """The number of blocks that hold the words."""
        return -(-self.count // 4)


def emit_words(emitter: Emitter, prefix: str, requests: Sequence[Words]) -> str:
    """Add the nodes that draw the words of all requests, one after the other, each filled up to whole blocks.

    Args:
        emitter: what is added to.
        prefix: of every name.
        requests: at least one.

    Returns:
        the name of a uint32 value [4 * total blocks].
    """
    rounds = _Rounds(emitter, prefix)
    counter, keys = _counters(emitter, prefix, requests)
    lanes: list[_Lane] = [counter, 0, 0, 0]
    for number in range(ROUNDS):
        lanes = rounds.step(number, lanes, keys)
    columns = [
        emitter.node("Cast", [str(lane)], f"{prefix}:lane{index}", to=onnx.TensorProto.UINT32)
        for index, lane in enumerate(lanes)
    ]
    blocks = emitter.node("Concat", columns, f"{prefix}:blocks", axis=1)
    return emitter.reshape(blocks, (-1,), f"{prefix}:words")


def emit_pieces(emitter: Emitter, words: str, requests: Sequence[Words], names: Sequence[str]) -> None:
    """Cut what was made of :func:`emit_words` into one value a request, without the fill."""
    sizes = [4 * request.blocks for request in requests]
    whole = [
        name if size == request.count else f"{name}:filled"
        for name, size, request in zip(names, sizes, requests, strict=True)
    ]
    emitter.node("Split", [words, emitter.constant(np.array(sizes, np.int64))], whole, axis=0)
    for name, piece, request in zip(names, whole, requests, strict=True):
        if piece != name:
            begin, end = (emitter.constant(np.array([edge], np.int64)) for edge in (0, request.count))
            emitter.node("Slice", [piece, begin, end], name)


def _counters(emitter: Emitter, prefix: str, requests: Sequence[Words]) -> tuple[str, list[_Lane]]:
    """Return the low counter words, uint64 [blocks, 1], and both key words, each one number or uint64 [blocks, 1]."""
    sizes = np.array([request.blocks for request in requests], np.int64)
    offsets = np.cumsum(sizes) - sizes
    total = int(sizes.sum())
    edges = [emitter.constant(np.array(edge, np.int64)) for edge in (0, total, 1)]
    row = emitter.reshape(emitter.node("Range", edges, f"{prefix}:range"), (-1, 1), f"{prefix}:row")
    keys = np.array([stream_key(request.seed, request.name) for request in requests], np.uint64)
    which = ""
    if len(requests) > 1:
        # Which request a block belongs to: one more at each first block.
        zeros = emitter.zeros((total, 1), np.dtype(np.int64))
        starts = emitter.constant(offsets[1:].reshape(-1, 1))
        ones = emitter.zeros((len(requests) - 1, 1), np.dtype(np.int64), 1)
        steps = emitter.node("ScatterElements", [zeros, starts, ones], f"{prefix}:starts", axis=0)
        axis = emitter.constant(np.array(0, np.int64))
        which = emitter.node("CumSum", [steps, axis], f"{prefix}:which")

    def spread(numbers: np.ndarray, part: str) -> str:
        if np.unique(numbers).size == 1:
            return emitter.constant(numbers[:1].reshape(1, 1))
        return emitter.node("Gather", [emitter.constant(numbers), which], f"{prefix}:{part}", axis=0)

    index = emitter.node("Add", [row, spread(-offsets, "base")], f"{prefix}:index")
    counter = emitter.node("Cast", [index], f"{prefix}:counter", to=onnx.TensorProto.UINT64)
    halves: list[_Lane] = [
        int(keys[0, half]) if np.unique(keys[:, half]).size == 1 else spread(keys[:, half].copy(), f"key{half}")
        for half in (0, 1)
    ]
    return counter, halves


class _Rounds:
    """The arithmetic of a round; numbers that are known are computed at once."""

    def __init__(self, emitter: Emitter, prefix: str) -> None:
        self._emitter = emitter
        self._prefix = prefix
        self._count = 0

    def step(self, number: int, lanes: list[_Lane], keys: list[_Lane]) -> list[_Lane]:
        """Return the lanes after round ``number``."""
        k0, k1 = (self._and(self._add(key, number * step & _MASK)) for key, step in zip(keys, KEY_STEPS, strict=True))
        product0, product1 = self._times(lanes[0], MULTIPLIERS[0]), self._times(lanes[2], MULTIPLIERS[1])
        return [
            self._xor(self._xor(self._high(product1), lanes[1]), k0),
            self._and(product1),
            self._xor(self._xor(self._high(product0), lanes[3]), k1),
            self._and(product0),
        ]

    def _node(self, operator: str, lane: str, other: _Lane, **attributes: str) -> str:
        if isinstance(other, int):
            other = self._emitter.constant(np.array(other, np.uint64))
        self._count += 1
        return self._emitter.node(operator, [lane, other], f"{self._prefix}:{self._count}", **attributes)

    def _times(self, lane: _Lane, factor: int) -> _Lane:
        return lane * factor if isinstance(lane, int) else self._node("Mul", lane, factor)

    def _add(self, lane: _Lane, number: int) -> _Lane:
        if isinstance(lane, int):
            return lane + number
        return self._node("Add", lane, number) if number else lane

    def _and(self, lane: _Lane) -> _Lane:
        return lane & _MASK if isinstance(lane, int) else self._node("BitwiseAnd", lane, _MASK)

    def _high(self, lane: _Lane) -> _Lane:
        return lane >> 32 if isinstance(lane, int) else self._node("BitShift", lane, 32, direction="RIGHT")

    def _xor(self, one: _Lane, other: _Lane) -> _Lane:
        if isinstance(one, int) and isinstance(other, int):
            return one ^ other
        if isinstance(one, int):
            one, other = other, one
        return one if other == 0 else self._node("BitwiseXor", str(one), other)
