"""Element-by-element operators: what they join must be removed together."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import onnx
from scipy.special import erf

from ..effects import Values, same, unknown, zero_stays
from ..trace import Node, Trace


def _multiply(left: Values, right: Values) -> Values:
    # Zero times anything finite is zero: that is what makes a masked channel dead.
    return np.where((left == 0) | (right == 0), 0.0, left * right)


def _divide(left: Values, right: Values) -> Values:
    quotient = np.divide(left, right, out=np.full(np.broadcast(left, right).shape, np.nan), where=right != 0)
    return np.where((left == 0) & ~(right == 0), 0.0, quotient)


def _where(condition: Values, left: Values, right: Values) -> Values:
    chosen = np.where(condition != 0, left, right)
    return np.where((left == right) | ~np.isnan(condition), np.where(left == right, left, chosen), np.nan)


def _sigmoid(x: Values) -> Values:
    return 1.0 / (1.0 + np.exp(-np.clip(x, -700, 700)))


def _sum(*operands: Values) -> Values:
    total = operands[0]
    for operand in operands[1:]:
        total = total + operand
    return total


def _power(left: Values, right: Values) -> Values:
    value = np.power(left, right)
    # numpy calls anything to the power 0, and 1 to any power, a number; a varying operand is still not constant here.
    return np.where(np.isnan(left) | np.isnan(right) | ~np.isfinite(value), np.nan, value)


def _finite(function: Callable[[Values], Values]) -> Callable[[Values], Values]:
    def guarded(x: Values) -> Values:
        value = function(x)
        return np.where(np.isfinite(value), value, np.nan)

    return guarded


_FUNCTIONS: dict[str, Callable[..., Values]] = {
    "Add": np.add,
    "Sub": np.subtract,
    "Mul": _multiply,
    "Div": _divide,
    "Sum": _sum,
    "Max": lambda *xs: _fold(np.maximum, xs),
    "Min": lambda *xs: _fold(np.minimum, xs),
    "Pow": _power,
    "Where": _where,
    "PRelu": lambda x, slope: np.where(x == 0, 0.0, np.where(x > 0, x, x * slope)),
    "Relu": lambda x: np.maximum(x, 0.0),
    "Sigmoid": _sigmoid,
    "Tanh": np.tanh,
    "Erf": erf,
    "Sqrt": _finite(np.sqrt),
    "Exp": _finite(np.exp),
    "Log": _finite(np.log),
    "Reciprocal": _finite(np.reciprocal),
    "Neg": np.negative,
    "Abs": np.abs,
    "Softplus": lambda x: np.logaddexp(x, 0.0),
    "Softsign": lambda x: x / (1.0 + np.abs(x)),
    "HardSwish": lambda x: x * np.clip(x / 6.0 + 0.5, 0.0, 1.0),
    "Mish": lambda x: x * np.tanh(np.logaddexp(x, 0.0)),
    "Sin": np.sin,
    "Cos": np.cos,
    "Floor": np.floor,
    "Ceil": np.ceil,
    "Round": np.round,
    "Sign": np.sign,
    "Identity": same,
    "Dropout": same,
    "Cast": same,
}
# Followed for what they couple; their values are of no use to find dead channels.
_COUPLING_ONLY = (
    *("And", "Or", "Xor", "Not", "Equal", "Greater", "Less", "GreaterOrEqual", "LessOrEqual", "Mod", "CastLike"),
    *("IsNaN", "IsInf", "Sinh", "Cosh", "Tan", "Asin", "Acos", "Atan", "Asinh", "Acosh", "Atanh", "BitShift"),
)


def _fold(function: Callable[[Values, Values], Values], operands: tuple[Values, ...]) -> Values:
    result = operands[0]
    for operand in operands[1:]:
        result = function(result, operand)
    return result


def _attribute_function(node: Node) -> Callable[..., Values] | None:
    """Return the function of an activation whose shape an attribute sets."""
    alpha, beta = (float(node.attributes.get(key, _DEFAULTS.get((node.op, key), 0.0))) for key in ("alpha", "beta"))
    gamma = float(node.attributes.get("gamma", _DEFAULTS.get((node.op, "gamma"), 0.0)))
    negative: dict[str, Callable[[Values], Values]] = {
        "LeakyRelu": lambda x: alpha * x,
        "Elu": lambda x: alpha * np.expm1(np.minimum(x, 0)),
        "Selu": lambda x: gamma * alpha * np.expm1(np.minimum(x, 0)),
        "Celu": lambda x: alpha * np.expm1(np.minimum(x, 0) / alpha),
        "ThresholdedRelu": np.zeros_like,
    }
    if node.op in negative:
        bend = alpha if node.op == "ThresholdedRelu" else 0.0
        slope = gamma if node.op == "Selu" else 1.0
        # NaN compares false and would take the negative branch's value; adding it back keeps "not constant".
        return lambda x: np.where(x > bend, slope * x, negative[node.op](x)) + 0.0 * x
    if node.op == "HardSigmoid":
        return lambda x: np.clip(alpha * x + beta, 0.0, 1.0)
    if node.op == "Gelu":
        if node.attributes.get("approximate", b"none") == b"tanh":
            return lambda x: 0.5 * x * (1.0 + np.tanh(np.sqrt(2.0 / np.pi) * (x + 0.044715 * x**3)))
        return lambda x: 0.5 * x * (1.0 + erf(x / np.sqrt(2.0)))
    if node.op == "Swish":
        return lambda x: x * _sigmoid(alpha * x)
    return None


_DEFAULTS = {
    ("LeakyRelu", "alpha"): 0.01,
    ("Elu", "alpha"): 1.0,
    ("Celu", "alpha"): 1.0,
    ("Selu", "alpha"): 1.6732631921768188,
    ("Selu", "gamma"): 1.0507010221481323,
    ("ThresholdedRelu", "alpha"): 1.0,
    ("HardSigmoid", "alpha"): 0.2,
    ("HardSigmoid", "beta"): 0.5,
    ("Swish", "alpha"): 1.0,
}
_WITH_ATTRIBUTES = (
    *("LeakyRelu", "Elu", "Selu", "Celu", "ThresholdedRelu"),
    *("HardSigmoid", "Gelu", "Swish"),
)


def pointwise(trace: Trace, node: Node) -> None:
    """Follow an element-by-element operator with any number of broadcast operands."""
    function = _FUNCTIONS.get(node.op) or _attribute_function(node) or unknown
    names = [name for name in node.inputs if name]
    if node.op == "Dropout":
        names = names[:1]
    if node.op == "CastLike":
        # The second operand lends its type, not its values: its extents are free.
        trace.asked.add(names[1])
        names, function = names[:1], zero_stays
    if node.op == "Cast":
        # Whole numbers would be truncated; only zero is sure to survive any cast.
        kind = onnx.helper.tensor_dtype_to_np_dtype(node.attributes["to"]).kind
        function = same if kind in "fV" else zero_stays
    trace.elementwise(node, names, node.outputs[0], function)


def clip(trace: Trace, node: Node) -> None:
    """Follow Clip: its bounds are single numbers, in attributes (before opset 11) or inputs."""
    bounds = []
    for position, key, default in ((1, "min", -np.inf), (2, "max", np.inf)):
        name = node.input(position)
        bounds.append(trace.uniform(name) if name else float(node.attributes.get(key, default)))
    trace.elementwise(node, node.inputs[:1], node.outputs[0], lambda x: np.clip(x, bounds[0], bounds[1]))


RULES = dict.fromkeys((*_FUNCTIONS, *_COUPLING_ONLY, *_WITH_ATTRIBUTES), pointwise) | {"Clip": clip}
