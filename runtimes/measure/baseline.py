"""An earlier measurement record as the baseline: its numbers stand, nothing of it runs again.

An artifact is the better baseline, because only what runs now can be paired with what runs now; a record compares with
last week's build, whose artifact may be gone.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ...errors import FileFormatError, UsageError
from .record import SCHEMA, Accuracy, Latency
from .statistics import Interval


def is_record(path: Path) -> bool:
    """Return whether a baseline is meant as a measurement record: by its suffix, as the command line documents."""
    return path.suffix == ".json"


class _Earlier(msgspec.Struct):
    """What is needed of one artifact's earlier record."""

    artifact: str
    accuracy: Accuracy | None
    latency: dict[str, dict[str, Any]]

    def timing(self, runtime: str) -> Latency | None:
        entry = self.latency.get(runtime)
        return None if entry is None or "unavailable" in entry else msgspec.convert(entry, Latency)


class RecordBaseline:
    """An earlier measurement record; an artifact is compared with the one of the same name in it."""

    def __init__(self, path: Path) -> None:
        """Read the record.

        Raises:
            FileFormatError: it cannot be read or is no measurement record of this version.
        """
        self.path = path
        try:
            fields = json.loads(path.read_bytes())
        except OSError as error:
            raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
        except ValueError as error:
            raise FileFormatError(f"{path} is no measurement record: it is not JSON ({error}).") from error
        schema = fields.get("schema") if isinstance(fields, dict) else None
        if schema != SCHEMA:
            raise FileFormatError(f"{path} is no measurement record of schema {SCHEMA} (its schema: {schema}).")
        try:
            entries = msgspec.convert(fields.get("artifacts"), list[_Earlier])
            for entry in entries:
                for runtime in entry.latency:
                    entry.timing(runtime)
        except msgspec.ValidationError as error:
            raise FileFormatError(f"{path} is a damaged measurement record: {error}.") from error
        self._entries = {entry.artifact: entry for entry in entries}

    def _entry(self, artifact: str) -> _Earlier:
        if artifact in self._entries:
            return self._entries[artifact]
        if len(self._entries) == 1:
            return next(iter(self._entries.values()))
        raise UsageError(
            f"{self.path} holds no artifact '{artifact}' to compare with; it holds {', '.join(self._entries)}."
        )

    def accuracy(self, artifact: str) -> float | None:
        """Return the earlier accuracy of the artifact of that name (or of the only one), None when not measured.

        Raises:
            UsageError: the record holds several artifacts and none of that name.
        """
        accuracy = self._entry(artifact).accuracy
        return accuracy.value if accuracy else None

    def speedup(self, artifact: str, runtime: str, now: Latency) -> Interval | None:
        """Return the earlier time over this one, or None when that runtime was not measured then.

        Nothing was paired, so the interval is the widest that the two runs' own spreads allow: p10 over p90 to p90
        over p10.

        Raises:
            UsageError: the record holds several artifacts and none of that name.
        """
        then = self._entry(artifact).timing(runtime)
        if then is None:
            return None
        return Interval(then.median_ms / now.median_ms, then.p10_ms / now.p90_ms, then.p90_ms / now.p10_ms)
