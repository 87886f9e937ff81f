"""Runs that differ by their seed alone, put together: means with their 95 % interval (Student's t)."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .rows import fastest
from .units import digits, human_bytes, percent

COLUMNS = ("artifact", "seeds", "bytes", "accuracy", "ms")
LEGEND = "means over runs that differ by their seed alone, with their 95 % interval; named after the first of them"


@dataclass(frozen=True)
class Mean:
    """A mean over seeds.

    Attributes:
        value: the mean.
        half: half the width of its 95 % interval; None for a single value.
    """

    value: float
    half: float | None


@dataclass(frozen=True)
class Group:
    """What the artifacts of one format have in common over the seeds.

    Attributes:
        name: of the first run and the format.
        seeds: how many runs.
        bytes: of the file.
        accuracy: a share; None where it was not measured everywhere.
        median_ms: of the fastest runtime; None where one did not run.
    """

    name: str
    seeds: int
    bytes: Mean
    accuracy: Mean | None
    median_ms: Mean | None


def mean(values: Sequence[float]) -> Mean:
    """Return the mean and half the width of its 95 % interval.

    Args:
        values: at least one.
    """
    average = math.fsum(values) / len(values)
    if len(values) == 1:
        return Mean(average, None)
    from scipy.stats import t

    spread = math.sqrt(math.fsum((value - average) ** 2 for value in values) / (len(values) - 1))
    return Mean(average, float(t.ppf(0.975, len(values) - 1)) * spread / math.sqrt(len(values)))


def over_seeds(artifacts: Sequence[Mapping[str, Any]], groups: Mapping[str, str]) -> list[Group]:
    """Return the groups of at least two artifacts, in the record's order.

    Args:
        artifacts: of a record; they are called ``RUN/FILE``.
        groups: by run, the name of its group.
    """
    found: dict[str, list[Mapping[str, Any]]] = {}
    for artifact in artifacts:
        run, _, kind = artifact["artifact"].rpartition("/")
        if run in groups:
            found.setdefault(f"{groups[run]}/{kind}", []).append(artifact)
    return [_group(name, members) for name, members in found.items() if len(members) > 1]


def cells(group: Group) -> tuple[str, str, str, str, str]:
    """Return a group as people read it, in the order of :data:`COLUMNS`."""
    return (
        group.name,
        str(group.seeds),
        _shown(group.bytes, human_bytes),
        _shown(group.accuracy, percent),
        _shown(group.median_ms, digits),
    )


def _shown(value: Mean | None, show: Callable[[float], str]) -> str:
    if value is None:
        return "-"
    return show(value.value) if value.half is None else f"{show(value.value)} ± {show(value.half)}"


def _group(name: str, members: Sequence[Mapping[str, Any]]) -> Group:
    accuracies = [member["accuracy"]["value"] for member in members if member["accuracy"]]
    times = [entry["median_ms"] for member in members if (entry := fastest(member)) is not None]
    whole = len(members)
    return Group(
        name,
        whole,
        mean([member["storage"]["bytes"] for member in members]),
        mean(accuracies) if len(accuracies) == whole else None,
        mean(times) if len(times) == whole else None,
    )
