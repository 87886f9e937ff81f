"""What TorchScript's operators on lists, numbers and flags mean in Python; tensors go to PyTorch's own operators.

Numbers that a trace wrapped into tensors stay numbers here, so that a program keeps working for every batch size when
PyTorch traces it again.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from ...errors import ModelError


def _size(x: Tensor, axis: int | None = None) -> Any:
    return list(x.shape) if axis is None else x.shape[axis]


def _number(kind: type) -> Callable[[Any], Any]:
    def convert(value: Any) -> Any:
        if isinstance(value, Tensor):
            # While torch.jit traces, sizes are tensors: read, they would be baked in.
            return value if torch._C._is_tracing() else kind(value.item())
        # A size that is being traced symbolically would be fixed by a conversion.
        return kind(value) if isinstance(value, (bool, int, float)) else value

    return convert


def _divide(a: float, b: float, rounding_mode: str | None = None) -> float:
    if rounding_mode is None:
        return a / b
    return -(-a // b) if rounding_mode == "trunc" and (a < 0) != (b < 0) else a // b


def _raise(message: str, *rest: Any) -> None:
    raise ModelError(f"the TorchScript program raised: {str(message).splitlines()[0]}.")


_ALWAYS: dict[str, Callable[..., Any]] = {
    "aten::size": _size,
    "aten::dim": lambda x: x.dim(),
    "aten::len": len,
    "aten::list": list,
    "aten::Int": _number(int),
    "aten::IntImplicit": _number(int),
    "aten::ScalarImplicit": lambda value: value,
    "aten::Float": _number(float),
    "aten::FloatImplicit": _number(float),
    "aten::Bool": lambda value: bool(value),
    "aten::__is__": lambda a, b: a is b,
    "aten::__isnot__": lambda a, b: a is not b,
    "aten::__not__": operator.not_,
    "aten::append": lambda items, value: (items.append(value), items)[1],
    "aten::warn": lambda *_: None,
    "aten::format": lambda text, *values: text.format(*values),
    "prim::NumToTensor": lambda value: value,
    "prim::ListConstruct": lambda *values: list(values),
    "prim::TupleConstruct": lambda *values: values,
    "prim::DictConstruct": lambda *pairs: dict(zip(pairs[::2], pairs[1::2], strict=True)),
    "prim::ListUnpack": tuple,
    "prim::TupleUnpack": tuple,
    "prim::TupleIndex": operator.getitem,
    "prim::unchecked_cast": lambda value: value,
    "prim::Uninitialized": lambda: None,
    "prim::RaiseException": _raise,
    "prim::dtype": lambda x: x.dtype,
    "prim::device": lambda x: x.device,
    "prim::layout": lambda x: x.layout,
    "prim::is_cuda": lambda x: x.is_cuda,
    "prim::min": min,
    "prim::max": max,
    "prim::data": lambda x: x.data,
}
# PyTorch's numbers of its types, which the operators take and the functions of its Python face do not.
_TYPES = {
    0: torch.uint8,
    1: torch.int8,
    2: torch.int16,
    3: torch.int32,
    4: torch.int64,
    5: torch.float16,
    6: torch.float32,
    7: torch.float64,
    11: torch.bool,
    15: torch.bfloat16,
}
# Where no operand is a tensor.
_PLAIN: dict[str, Callable[..., Any]] = {
    "aten::add": operator.add,
    "aten::sub": operator.sub,
    "aten::mul": operator.mul,
    "aten::div": _divide,
    "aten::floordiv": operator.floordiv,
    "aten::floor_divide": operator.floordiv,
    "aten::remainder": operator.mod,
    "aten::neg": operator.neg,
    "aten::eq": operator.eq,
    "aten::ne": operator.ne,
    "aten::lt": operator.lt,
    "aten::le": operator.le,
    "aten::gt": operator.gt,
    "aten::ge": operator.ge,
    "aten::__and__": operator.and_,
    "aten::__or__": operator.or_,
    "aten::__getitem__": operator.getitem,
    "aten::__contains__": operator.contains,
    "aten::slice": lambda items, start, end, step: items[start:end:step],
}


def call(kind: str, overload: str, keywords: list[str | None], values: list[Any]) -> Any:
    """Carry out one operator.

    Args:
        kind: its name, as ``aten::relu``.
        overload: its form.
        keywords: for each value the name that it must be given by, or None.
        values: its operands.

    Raises:
        ModelError: an operator that nobody here knows.
    """
    if kind in _ALWAYS:
        return _ALWAYS[kind](*values)
    if kind in _PLAIN and not any(isinstance(value, Tensor) for value in values):
        rounding = _by_name(keywords, values) if kind == "aten::div" else {}
        return _PLAIN[kind](*_by_position(keywords, values), **rounding)
    space, _, name = kind.partition("::")
    try:
        packet = getattr(getattr(torch.ops, space), name)
        form = getattr(packet, overload or "default")
    except AttributeError as error:
        raise ModelError(f"the TorchScript program uses {kind}, which cannot be converted to a module.") from error
    if kind == "aten::_convolution":
        # The other arguments are hints for a GPU, which ONNX has no form of.
        return torch.ops.aten.convolution(*values[:9])
    if torch._C._is_tracing() and any(_holds_sizes(form, i, value) for i, value in enumerate(values)):
        # Only these keep a size that is being traced; operators would take its value of now.
        owner, rest = (values[0], 1) if isinstance(values[0], Tensor) else (torch, 0)
        named = {key: value for key, value in _by_name(keywords, values).items() if key != "layout"}
        if isinstance(named.get("dtype"), int):
            named["dtype"] = _TYPES[named["dtype"]]
        return getattr(owner, name)(*_by_position(keywords, values)[rest:], **named)
    # A trace counts a number among the tensors where it could be either.
    given = [
        torch.tensor(v) if _wants_tensor(form, i) and isinstance(v, int | float) else v for i, v in enumerate(values)
    ]
    return form(*_by_position(keywords, given), **_by_name(keywords, given))


def _by_position(keywords: list[str | None], values: list[Any]) -> list[Any]:
    return [value for value, keyword in zip(values, keywords, strict=True) if keyword is None]


def _by_name(keywords: list[str | None], values: list[Any]) -> dict[str, Any]:
    return {keyword: value for value, keyword in zip(values, keywords, strict=True) if keyword is not None}


def _holds_sizes(form: Any, index: int, value: Any) -> bool:
    wanted = str(form._schema.arguments[index].type)
    return wanted == "List[int]" and isinstance(value, list) and any(isinstance(part, Tensor) for part in value)


def _wants_tensor(form: Any, index: int) -> bool:
    return str(form._schema.arguments[index].type) == "Tensor"
