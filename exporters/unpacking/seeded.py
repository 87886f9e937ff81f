"""Seeded weights that a graph draws again, bit for bit what ``models.seeding.rebuild`` draws.

    keyed-product   row keys * column keys (int32, wrapping), Cast, * scale: three operators of full size
    philox4x32-10   the words of all tensors from one run of Philox over every weight
    constant        one ConstantOfShape

The keys of the product are stored, four bytes each: 0.13 bytes a kept weight of a ResNet-50 at 90 %. Drawing them in
the graph would need Philox and with it 64-bit integers, which not every runtime computes in 64 bits.
Tensors are registered first (:meth:`SeededPool.add`), because what is drawn in common stands before them in the graph.
"""

from __future__ import annotations

import math

import numpy as np
import onnx

from ...files import Array
from ...models.seeding.keyed_product import column_keys, matrix_shape, row_keys
from ...models.seeding.philox import words
from ...models.seeding.record import KEYED_PRODUCT, PHILOX, SeedRecord
from .emitter import Emitter
from .philox import Words, emit_pieces, emit_words

ROWS, COLUMNS = ":rows", ":columns"
# Peak of ONNX Runtime while it loads a network with a tenth of its weights trained, in bytes a weight, measured by
# benchmarks/onnx_unpack.py: all weights at once, because it keeps what it folded until the whole graph is done.
KEYED_PRODUCT_BYTES = 35
PHILOX_BYTES = 284
_CONSTANT_BYTES = 16
_POOL = "unpack:weights"
# Words of the first tensor that the graph compares with stored ones.
_CHECKED = 64


class SeededPool:
    """Everything that the graph of one network draws from seeds; what is drawn in common is added by :meth:`emit`."""

    def __init__(self) -> None:
        self._words: list[tuple[str, Words]] = []
        self._sure = ""

    def add(self, name: str, record: SeedRecord, shape: tuple[int, ...]) -> None:
        """Register the tensor ``name``; :meth:`emit_weights` draws it after :meth:`emit`."""
        if record.initialiser != "constant" and record.generator == PHILOX:
            self._words.append((name + ":drawn", Words(record.seed, record.name, math.prod(shape))))

    def emit(self, emitter: Emitter) -> None:
        """Add what all registered tensors share: one run of Philox."""
        if not self._words:
            return
        names, requests = zip(*self._words, strict=True)
        drawn = emit_words(emitter, _POOL, requests)
        self._sure = _emit_check(emitter, drawn, requests[0])
        shift = emitter.constant(np.array(8, np.uint32))
        high = emitter.node("BitShift", [drawn, shift], f"{_POOL}:high", direction="RIGHT")
        floats = emitter.node("Cast", [high], f"{_POOL}:floats", to=onnx.TensorProto.FLOAT)
        # Exact: both numbers have at most 24 bits.
        middle = emitter.constant(np.array(2**23, np.float32))
        emit_pieces(emitter, emitter.node("Sub", [floats, middle], f"{_POOL}:centred"), requests, names)

    def emit_weights(self, emitter: Emitter, name: str, record: SeedRecord, shape: tuple[int, ...]) -> str:
        """Add the nodes that make the tensor; return its name, float32 in the dense shape."""
        bound = np.float32(record.bound)
        if record.initialiser == "constant":
            return emitter.zeros(shape, np.dtype(np.float32), float(bound))
        if record.generator == PHILOX:
            numbers = emitter.reshape(name + ":drawn", shape, name + ":numbers")
            scale, sure = bound * np.float32(2.0**-23), self._sure
        else:
            keys = [emitter.initializer(name + suffix, array) for suffix, array in _keys(record, shape).items()]
            product = emitter.node("Mul", keys, name + ":product")
            numbers = emitter.node("Cast", [product], name + ":numbers", to=onnx.TensorProto.FLOAT)
            scale, sure = bound * np.float32(2.0**-31), ""

        def constant(value: np.float32, part: str) -> str:
            number = emitter.constant(np.array(value, np.float32))
            return emitter.node("Div", [number, sure], name + part) if sure else number

        if record.initialiser == "signed-constant":
            negative = emitter.node("Less", [numbers, emitter.constant(np.array(0, np.float32))], name + ":negative")
            ends = [constant(-bound, ":below"), constant(bound, ":above")]
            return emitter.node("Where", [negative, *ends], name + ":seeded")
        return emitter.node("Mul", [numbers, constant(scale, ":bound")], name + ":seeded")


def _keys(record: SeedRecord, shape: tuple[int, ...]) -> dict[str, Array]:
    """Return row keys [rows, 1, ...] and column keys [1, ...] as int32, so that their product has the dense shape."""
    rows, columns = matrix_shape(shape)
    inner = [1] * (len(shape) - 1)
    return {
        ROWS: row_keys(record.seed, record.name, rows).view(np.int32).reshape([*shape[:1], *inner]),
        COLUMNS: column_keys(record.seed, record.name, columns).view(np.int32).reshape([1, *shape[1:]][: len(shape)]),
    }


def key_bytes(record: SeedRecord, shape: tuple[int, ...]) -> int:
    """Return what a seeded tensor stores for itself: the keys of the product, four bytes each."""
    if record.initialiser == "constant" or record.generator != KEYED_PRODUCT:
        return 0
    return 4 * sum(matrix_shape(shape))


def folding_bytes(record: SeedRecord, shape: tuple[int, ...]) -> int:
    """Return the predicted memory that ONNX Runtime needs while it folds the seeded tensor."""
    rate = {KEYED_PRODUCT: KEYED_PRODUCT_BYTES, PHILOX: PHILOX_BYTES}[record.generator]
    return math.prod(shape) * (_CONSTANT_BYTES if record.initialiser == "constant" else rate)


def _emit_check(emitter: Emitter, drawn: str, request: Words) -> str:
    """Return the name of a float that is 1 when the graph draws the right words, and 0 when it does not.

    Some runtimes compute 64-bit integers in 32 bits without a word; dividing by this makes their weights infinite.
    """
    count = min(_CHECKED, request.count)
    expected = words(request.seed, request.name, 0, count)
    begin, end = (emitter.constant(np.array([edge], np.int64)) for edge in (0, count))
    first = emitter.node("Slice", [drawn, begin, end], f"{_POOL}:first")
    equal = emitter.node("Equal", [first, emitter.constant(expected)], f"{_POOL}:equal")
    ones = emitter.node("Cast", [equal], f"{_POOL}:ones", to=onnx.TensorProto.FLOAT)
    return emitter.node("ReduceMin", [ones], f"{_POOL}:sure", keepdims=0)
