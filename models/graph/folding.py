"""Evaluate single operators on constants: shape arithmetic, and weights that are moved before they are used.

A closed table in numpy, because the reference implementation of ONNX refuses zero-dimensional values here and there
and takes a millisecond a node. An operator that is missing only leaves a value unknown.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt
import onnx

Array = npt.NDArray[Any]
Attributes = Mapping[str, Any]


def evaluate(op: str, attributes: Attributes, operands: Sequence[Array | None]) -> list[Array] | None:
    """Return the outputs of an operator on constants, or None when it is not in the table.

    Args:
        op: operator type of the default domain.
        attributes: its attributes as Python values.
        operands: its inputs; None for an absent optional one.
    """
    function = _TABLE.get(op)
    if function is None or not operands or operands[0] is None:
        return None
    result = function(attributes, *operands)
    return [np.asarray(value) for value in (result if isinstance(result, list) else [result])]


def _ints(attributes: Attributes, key: str, given: Array | None) -> list[int] | None:
    if given is not None:
        return [int(value) for value in given.reshape(-1)]
    return [int(value) for value in attributes[key]] if key in attributes else None


def _squeeze(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
    found = _ints(attributes, "axes", axes)
    return np.squeeze(x) if found is None else np.squeeze(x, tuple(found))


def _unsqueeze(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
    return np.expand_dims(x, tuple(_ints(attributes, "axes", axes) or ()))


def _reshape(attributes: Attributes, x: Array, target: Array) -> Array:
    zero = attributes.get("allowzero", 0)
    extents = [x.shape[k] if t == 0 and not zero else int(t) for k, t in enumerate(target.tolist())]
    return x.reshape(extents)


def _flatten(attributes: Attributes, x: Array) -> Array:
    axis = attributes.get("axis", 1)
    return x.reshape(int(np.prod(x.shape[:axis], dtype=np.int64)), -1)


def _slice(
    attributes: Attributes,
    x: Array,
    starts: Array | None = None,
    ends: Array | None = None,
    axes: Array | None = None,
    steps: Array | None = None,
) -> Array:
    first, last = _ints(attributes, "starts", starts) or [], _ints(attributes, "ends", ends) or []
    along = _ints(attributes, "axes", axes) or list(range(len(first)))
    strides = _ints({}, "", steps) or [1] * len(first)
    window = [slice(None)] * x.ndim
    for axis, start, end, step in zip(along, first, last, strides, strict=True):
        window[axis] = slice(start, None if step < 0 and end < -x.shape[axis] else end, step)
    return x[tuple(window)]


def _split(attributes: Attributes, x: Array, sizes: Array | None = None) -> list[Array]:
    axis = attributes.get("axis", 0)
    given = _ints(attributes, "split", sizes)
    if given is None:
        count = attributes["num_outputs"]
        step = -(-x.shape[axis] // count)
        return [x.take(range(k * step, min((k + 1) * step, x.shape[axis])), axis) for k in range(count)]
    return np.split(x, np.cumsum(given)[:-1], axis)


def _divide(_: Attributes, x: Array, y: Array) -> Array:
    if x.dtype.kind in "iu":
        # ONNX truncates towards zero where numpy rounds down.
        quotient = np.abs(x) // np.maximum(np.abs(y), 1)
        return np.asarray(quotient * np.sign(x) * np.sign(y), x.dtype)
    return np.asarray(x / y, x.dtype)


def _cast(attributes: Attributes, x: Array) -> Array:
    return x.astype(onnx.helper.tensor_dtype_to_np_dtype(attributes["to"]))


def _filled(attributes: Attributes, shape: Array) -> Array:
    value = attributes.get("value")
    fill = np.zeros(1, np.float32) if value is None else onnx.numpy_helper.to_array(value)
    return np.full(shape.tolist(), fill[0], fill.dtype)


def _expand(_: Attributes, x: Array, shape: Array) -> Array:
    return np.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(shape.tolist())))


def _reduce(function: Callable[..., Any]) -> Callable[..., Array]:
    def reduced(attributes: Attributes, x: Array, axes: Array | None = None) -> Array:
        found = _ints(attributes, "axes", axes)
        keep = bool(attributes.get("keepdims", 1))
        return np.asarray(function(x, axis=None if found is None else tuple(found), keepdims=keep), x.dtype)

    return reduced


def _plain(function: Callable[..., Any]) -> Callable[..., Array]:
    return lambda _, *operands: np.asarray(function(*operands))


_TABLE: dict[str, Callable[..., Any]] = {
    "Identity": _plain(lambda x: x),
    "Squeeze": _squeeze,
    "Unsqueeze": _unsqueeze,
    "Reshape": _reshape,
    "Flatten": _flatten,
    "Transpose": lambda a, x: x.transpose(a.get("perm", range(x.ndim)[::-1])),
    "Concat": lambda a, *xs: np.concatenate(xs, a["axis"]),
    "Gather": lambda a, x, i: x.take(i.astype(np.int64), a.get("axis", 0)),
    "Slice": _slice,
    "Split": _split,
    "Cast": _cast,
    "ConstantOfShape": _filled,
    "Expand": _expand,
    "Tile": lambda _, x, repeats: np.tile(x, repeats.tolist()),
    "Range": lambda _, start, limit, delta: np.arange(start, limit, delta).astype(start.dtype),
    "Add": _plain(np.add),
    "Sub": _plain(np.subtract),
    "Mul": _plain(np.multiply),
    "Div": _divide,
    "Mod": _plain(np.mod),
    "Pow": lambda _, x, y: np.power(x, y).astype(x.dtype),
    "Max": _plain(lambda *xs: reduce(np.maximum, xs)),
    "Min": _plain(lambda *xs: reduce(np.minimum, xs)),
    "Neg": _plain(np.negative),
    "Abs": _plain(np.abs),
    "Floor": _plain(np.floor),
    "Ceil": _plain(np.ceil),
    "Sqrt": _plain(np.sqrt),
    "Reciprocal": _plain(np.reciprocal),
    "Not": _plain(np.logical_not),
    "And": _plain(np.logical_and),
    "Or": _plain(np.logical_or),
    "Equal": _plain(np.equal),
    "Less": _plain(np.less),
    "LessOrEqual": _plain(np.less_equal),
    "Greater": _plain(np.greater),
    "GreaterOrEqual": _plain(np.greater_equal),
    "Where": _plain(np.where),
    "ReduceProd": _reduce(np.prod),
    "ReduceSum": _reduce(np.sum),
    "ReduceMax": _reduce(np.max),
    "ReduceMin": _reduce(np.min),
}
