"""The shape of a recipe: unknown keys, wrong types and values out of range, each named by its path.

In: plain data as YAML gives it. Out: typed settings, or a :class:`RecipeError` such as ``unknown key 'sparsty' at
runs[0]. Did you mean 'sparsity'?``.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from typing import Any, TypeVar

import msgspec

from ..errors import RecipeError, near_miss, unknown_name
from .settings import DEVICES, OPTIMISERS, PRECISIONS, RATE_SCHEDULES, TrainSettings

_Struct = TypeVar("_Struct", bound=msgspec.Struct)

# msgspec speaks JSON; users write YAML.
_WORDS = {
    "object": "a mapping",
    "array": "a list",
    "str": "text",
    "int": "a whole number",
    "float": "a number",
    "bool": "true or false",
    "null": "null",
}

# Field -> (lowest, highest, whether the lowest itself is allowed, whether the highest is).
_RANGES: dict[str, tuple[float, float, bool, bool]] = {
    "learning_rate": (0, math.inf, False, False),
    "momentum": (0, 1, True, False),
    "weight_decay": (0, math.inf, True, False),
    "epochs": (0, math.inf, True, False),
    "batch_size": (1, math.inf, True, False),
    "warmup_epochs": (0, math.inf, True, False),
    "gamma": (0, 1, False, True),
    "label_smoothing": (0, 1, True, False),
}


def build(kind: type[_Struct], value: Any, path: str) -> _Struct:
    """Convert plain data to a settings struct.

    Args:
        kind: the struct.
        value: what stands at ``path``.
        path: ``runs[0].train``; empty for the recipe itself.

    Raises:
        RecipeError: not a mapping, an unknown or missing key, or a value of the wrong type.
    """
    where = path or "the recipe"
    if not isinstance(value, Mapping):
        raise RecipeError(f"{where} must be a mapping of keys to values, not {_described(value)}.")
    known = kind.__struct_fields__
    for key in value:
        if key not in known:
            place = f"at {path}" if path else "in the recipe"
            raise RecipeError(
                f"unknown key '{key}' {place}.{near_miss(str(key), known)} Known there: {', '.join(known)}."
            )
    try:
        return msgspec.convert(value, kind)
    except msgspec.ValidationError as error:
        raise RecipeError(_readable(str(error), path)) from error


def check_train(settings: TrainSettings, path: str) -> TrainSettings:
    """Return the settings, or refuse names that are in no table and numbers out of range.

    Raises:
        UnknownNameError: an optimiser, rate schedule or precision that does not exist.
        RecipeError: a number out of its range.
    """
    for field, table in (
        ("optimiser", OPTIMISERS),
        ("rate_schedule", RATE_SCHEDULES),
        ("precision", PRECISIONS),
    ):
        choose_from(field.replace("_", " "), getattr(settings, field), table)
    for field, bounds in _RANGES.items():
        check_range(getattr(settings, field), bounds, f"{path}.{field}")
    for milestone in settings.milestones:
        check_range(milestone, (0, math.inf, True, False), f"{path}.milestones")
    return settings


def choose_from(kind: str, name: str, table: tuple[str, ...]) -> None:
    """Raise :class:`UnknownNameError` unless ``name`` is in the table."""
    if name not in table:
        raise unknown_name(kind, name, table)


def check_device(name: str) -> None:
    """Raise :class:`UnknownNameError` unless ``name`` is a device that training can run on."""
    choose_from("device", name, DEVICES)


def check_range(value: float, bounds: tuple[float, float, bool, bool], path: str) -> None:
    """Raise :class:`RecipeError` unless ``value`` lies between the bounds.

    Args:
        value: what the recipe says.
        bounds: lowest, highest, whether the lowest itself is allowed, whether the highest is.
        path: named in the message.
    """
    low, high, with_low, with_high = bounds
    inside = (low < value or (with_low and value == low)) and (value < high or (with_high and value == high))
    if not inside:
        if math.isinf(high):
            wanted = f"{'at least' if with_low else 'more than'} {low:.10g}"
        else:
            wanted = f"in {'[' if with_low else '('}{low:.10g}, {high:.10g}{']' if with_high else ')'}"
        raise RecipeError(f"{path} is {value}; it must be {wanted}.")


def _described(value: Any) -> str:
    return "empty" if value is None else f"a {type(value).__name__}"


def _readable(message: str, path: str) -> str:
    """Turn msgspec's sentence into ours: ``runs[0].seed: expected a whole number, got text``."""
    what, _, inner = message.partition(" - at `$")
    what = re.sub(
        r"`([a-z |]+)`",
        lambda types: " or ".join(_WORDS.get(word, f"'{word}'") for word in types[1].split(" | ")),
        what.replace("Object missing required field ", "missing key "),
    ).replace("`", "'")
    where = (path + inner.rstrip("`")).lstrip(".") or "the recipe"
    return f"{where}: {what[0].lower()}{what[1:]}."
