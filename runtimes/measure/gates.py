"""Requirements on a measurement: ``storage.size_ratio>=8`` in, met, not met or undecided out.

An expression is a path into an artifact's record, a comparison and a number; it is parsed by hand and nothing in it
is ever evaluated. A speedup is compared with its whole interval: when the interval straddles the bound the noise leaves
the requirement open, which is an answer of its own.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, get_args, get_origin

import msgspec

from ...errors import UsageError, near_miss, unknown_name
from .. import RUNTIMES
from .record import NO_COMPARISON, Accuracy, Latency, Parity, RequirementResult, Storage, Training

_EXPRESSION = re.compile(
    r"\s*(?P<path>[A-Za-z_]\w*(?:\[[^\[\]]*\])?(?:\.[A-Za-z_]\w*)*)\s*(?P<operator>>=|<=|==|<|>)\s*(?P<bound>\S+)\s*"
)
_SECTIONS: dict[str, type[msgspec.Struct]] = {
    "storage": Storage,
    "latency": Latency,
    "accuracy": Accuracy,
    "parity": Parity,
    "training": Training,
}
_NAME_ONE = "name one (--runtime), or require it of another artifact alone (run, format in a recipe)"
_NOT_MEASURED = {
    "latency": f"no runtime ran it; {_NAME_ONE}",
    "accuracy": "accuracy was not measured; give data with a test split (--data)",
    "parity": "parity was not measured (the artifact's notes say why)",
    "training": "the training cost is not known for this artifact",
}
_NEED_BASELINE = ("speedup", "speedup_low", "speedup_high", "baseline", "drop", "baseline_bytes", "growth")
# The one quantity with an interval: both sides are timed, so noise decides.
_INTERVALS = {"speedup": ("speedup_low", "speedup_high")}


def _numeric_leaves(struct: type[msgspec.Struct], prefix: tuple[str, ...]) -> Iterable[tuple[str, ...]]:
    for item in msgspec.structs.fields(struct):
        if get_origin(item.type) in (list, dict, tuple):
            continue
        for kind in get_args(item.type) or (item.type,):
            if kind in (int, float):
                yield (*prefix, item.encode_name)
                break
            if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
                yield from _numeric_leaves(kind, (*prefix, item.encode_name))


PATHS: tuple[tuple[str, ...], ...] = tuple(
    path for section, struct in _SECTIONS.items() for path in _numeric_leaves(struct, (section,))
)


@dataclass(frozen=True)
class Requirement:
    """One parsed requirement: the number at ``path`` compared with ``bound``.

    ``runtime`` names the runtime of a latency path; None stands for the only one that was measured.
    """

    expression: str
    path: tuple[str, ...]
    runtime: str | None
    operator: str
    bound: float


def parse(expression: str) -> Requirement:
    """Parse one requirement.

    Raises:
        UsageError: no such field or runtime (the near miss is suggested), or no comparison with a finite number.
    """
    match = _EXPRESSION.fullmatch(expression)
    bound = _number(match["bound"]) if match else None
    if match is None or bound is None:
        raise UsageError(
            f"cannot read the requirement '{expression}'; write FIELD, one of >= <= > < ==, and a number, "
            "as in 'storage.size_ratio>=8' or 'latency[onnxruntime-cpu].speedup>=1.5'."
        )
    written, _, rest = match["path"].partition("[")
    runtime: str | None = None
    if rest:
        runtime, _, tail = rest.partition("]")
        written += tail
        if written.split(".")[0] != "latency":
            raise UsageError(f"'{match['path']}' in '{expression}': only latency is kept per runtime.")
        if runtime not in RUNTIMES:
            raise unknown_name("runtime", runtime, RUNTIMES)
    return Requirement(expression.strip(), _find(written, expression), runtime, match["operator"], bound)


def _number(text: str) -> float | None:
    try:
        value = float(text)
    except ValueError:
        return None
    return value if math.isfinite(value) else None


def _find(written: str, expression: str) -> tuple[str, ...]:
    """Return the full path that ``written`` stands for: itself, or the only path that ends in it."""
    parts = tuple(written.split("."))
    found = [path for path in PATHS if path[-len(parts) :] == parts]
    exact = [path for path in found if path == parts]
    if exact or len(found) == 1:
        return (exact or found)[0]
    if found:
        listed = ", ".join(".".join(path) for path in found)
        raise UsageError(f"'{written}' in the requirement '{expression}' could be any of {listed}; write it in full.")
    names = [".".join(path) for path in PATHS]
    hint = near_miss(written, names) or near_miss(written, [path[-1] for path in PATHS])
    raise UsageError(f"unknown field '{written}' in the requirement '{expression}'.{hint} Fields: {', '.join(names)}.")


def judge(requirement: Requirement, artifact: Mapping[str, Any]) -> RequirementResult:
    """Hold one artifact's record (plain data) against a requirement."""
    section = artifact[requirement.path[0]]
    if requirement.path[0] == "latency":
        section, missing = _latency_of(requirement, section)
        if section is None:
            return _result(requirement, artifact, None, None, missing)
    if section is None:
        return _result(requirement, artifact, None, None, _why_not_measured(requirement.path[0], artifact))
    holder, leaf = section, requirement.path[-1]
    for name in requirement.path[1:-1]:
        holder = holder[name]
    value = holder[leaf]
    if value is None:
        return _result(requirement, artifact, None, None, _missing_value(requirement, artifact))
    if leaf in _INTERVALS:
        low, high = (holder[name] for name in _INTERVALS[leaf])
        if low is not None and high is not None:
            return _result(requirement, artifact, value, *_decide(requirement, low, high))
    return _result(requirement, artifact, value, _compare(requirement.operator, value, requirement.bound), None)


def _latency_of(requirement: Requirement, latency: Mapping[str, Any]) -> tuple[Mapping[str, Any] | None, str]:
    measured = [name for name, entry in latency.items() if "unavailable" not in entry]
    if requirement.runtime is not None:
        if requirement.runtime in measured:
            return latency[requirement.runtime], ""
        entry = latency.get(requirement.runtime)
        return None, entry["unavailable"] if entry else f"{requirement.runtime} was not asked to run it; {_NAME_ONE}"
    if len(measured) == 1:
        return latency[measured[0]], ""
    if measured:
        # Known only now, when everything was measured: an answer of its own, and the report stays.
        return None, (
            f"it does not say on which runtime, and {' and '.join(measured)} were measured; "
            f"write 'latency[{measured[0]}].{requirement.path[-1]}'"
        )
    return None, _NOT_MEASURED["latency"]


def _why_not_measured(section: str, artifact: Mapping[str, Any]) -> str:
    return _noted(f"no {section}: ", artifact) or _NOT_MEASURED[section]


def _noted(beginning: str, artifact: Mapping[str, Any]) -> str | None:
    """Return what follows in the artifact's note that begins so, or None when there is none."""
    found = (note for note in artifact.get("notes", ()) if note.startswith(beginning))
    return next((note.removeprefix(beginning).removesuffix(".") for note in found), None)


def _missing_value(requirement: Requirement, artifact: Mapping[str, Any]) -> str:
    if requirement.path[-1] in _NEED_BASELINE:
        return _noted(NO_COMPARISON, artifact) or "there is no baseline to compare with; give --baseline"
    return f"{'.'.join(requirement.path)} could not be measured (the artifact's notes say why)"


def _decide(requirement: Requirement, low: float, high: float) -> tuple[bool | None, str | None]:
    """Compare an interval with the bound: decided only when all of it lies on one side."""
    at_low, at_high = (_compare(requirement.operator, end, requirement.bound) for end in (low, high))
    straddles = low <= requirement.bound <= high if requirement.operator == "==" else at_low != at_high
    if straddles:
        return None, f"the 95 % interval {low:.3f} to {high:.3f} straddles {requirement.bound:g}: inconclusive"
    return at_low, None


def _compare(operator: str, value: float, bound: float) -> bool:
    match operator:
        case ">=":
            return value >= bound
        case "<=":
            return value <= bound
        case ">":
            return value > bound
        case "<":
            return value < bound
        case _:
            return value == bound


def _result(
    requirement: Requirement, artifact: Mapping[str, Any], value: float | None, met: bool | None, reason: str | None
) -> RequirementResult:
    return RequirementResult(requirement.expression, artifact["artifact"], value, met, reason)


def judge_all(requirements: Sequence[Requirement], artifacts: Sequence[Mapping[str, Any]]) -> list[RequirementResult]:
    """Hold every artifact against every requirement, in that order."""
    return [judge(requirement, artifact) for requirement in requirements for artifact in artifacts]


def verdict(record: Mapping[str, Any], allow_inconclusive: bool = False) -> bool:
    """Return whether every run of a record (plain data) gave its artifacts and every requirement is met.

    A requirement whose value was measured but lies within the noise passes only with ``allow_inconclusive``; one whose
    value is missing never passes.
    """
    return not record["failed"] and all(
        entry["met"] is True or (allow_inconclusive and entry["met"] is None and entry["value"] is not None)
        for entry in record["requirements"]
    )
