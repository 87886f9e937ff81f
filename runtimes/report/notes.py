"""What the reader of a record must know: every distinct note once, with the artifacts that it is about."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

# A note names this many artifacts; how many more it is about is only counted.
_NAMES = 3


def notes(artifacts: Iterable[Mapping[str, Any]]) -> list[str]:
    """Return every distinct note once, with the artifacts it is about."""
    about: dict[str, list[str]] = {}
    for artifact in artifacts:
        name = artifact["artifact"]
        for note in artifact["notes"]:
            about.setdefault(note, []).append(name)
        for runtime, entry in artifact["latency"].items():
            if "unavailable" not in entry:
                about.setdefault(f"timed on {runtime}.", []).append(name)
            if "unavailable" in entry:
                about.setdefault(f"{runtime} did not run: {entry['unavailable']}.", []).append(name)
            else:
                if entry.get("self_check") is not None:
                    about.setdefault(f"{runtime}: {_self_check(entry['self_check'])}", []).append(name)
                for note in entry["notes"]:
                    about.setdefault(f"{runtime}: {note}", []).append(name)
                if entry["baseline_runtime"] not in (None, runtime):
                    other = f"{runtime}: speedup over the baseline on {entry['baseline_runtime']}."
                    about.setdefault(other, []).append(name)
    return [f"{note} [{_several(names)}]" for note, names in about.items()]


def _self_check(found: Mapping[str, Any]) -> str:
    low, high = found["low"], found["high"]
    text = f"against itself {found['ratio']:.3f}x ({low:.3f}-{high:.3f})"
    if low <= 1.0 <= high:
        return f"{text}, as it must be; differences below {100 * (high - low):.1f} % are noise here."
    return (
        f"{text}, which is not 1: something disturbs the machine in a pattern, or the time budget was too short to "
        "load it more than once; measure again when it is quieter, or longer (--time-budget)."
    )


def _several(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES])
    return shown if len(names) <= _NAMES else f"{shown} and {len(names) - _NAMES} more"
