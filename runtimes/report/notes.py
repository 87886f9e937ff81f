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
                for note in entry["notes"]:
                    about.setdefault(f"{runtime}: {note}", []).append(name)
                if entry["baseline_runtime"] not in (None, runtime):
                    other = f"{runtime}: speedup over the baseline on {entry['baseline_runtime']}."
                    about.setdefault(other, []).append(name)
    return [f"{note} [{_several(names)}]" for note, names in about.items()]


def _several(names: list[str]) -> str:
    shown = ", ".join(names[:_NAMES])
    return shown if len(names) <= _NAMES else f"{shown} and {len(names) - _NAMES} more"
