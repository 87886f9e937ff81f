"""An earlier measurement record as the baseline: its numbers stand, nothing of it runs again.

An artifact is the better baseline, because only what runs now can be paired with what runs now; a record compares with
last week's build, whose artifact may be gone.
"""

from __future__ import annotations

from pathlib import Path

import msgspec

from ...errors import UsageError
from .reading import LooseArtifact, read_record, timing
from .record import Latency
from .statistics import Interval


def is_record(path: Path) -> bool:
    """Return whether a baseline is meant as a measurement record: by its suffix, as the command line documents."""
    return path.suffix == ".json"


class RecordBaseline:
    """An earlier measurement record; an artifact is compared with the one of the same name in it."""

    def __init__(self, path: Path) -> None:
        """Read the record.

        Raises:
            FileFormatError: it cannot be read or is no measurement record of this version.
        """
        self.path = path
        artifacts = msgspec.convert(read_record(path)["artifacts"], list[LooseArtifact])
        self._entries = {artifact.artifact: artifact for artifact in artifacts}

    def entry(self, artifact: str) -> LooseArtifact:
        """Return the earlier record of the artifact of that name, or of the only one.

        Raises:
            UsageError: the record holds several artifacts and none of that name.
        """
        if artifact in self._entries:
            return self._entries[artifact]
        if len(self._entries) == 1:
            return next(iter(self._entries.values()))
        raise UsageError(
            f"{self.path} holds no artifact '{artifact}' to compare with; it holds {', '.join(self._entries)}."
        )

    def accuracy(self, artifact: str) -> float | None:
        """Return the earlier accuracy of the artifact, None when not measured; raises as :meth:`entry`."""
        accuracy = self.entry(artifact).accuracy
        return accuracy.value if accuracy else None

    def speedup(self, artifact: str, runtime: str, now: Latency) -> Interval | None:
        """Return the earlier time over this one, or None when that runtime was not measured then.

        Nothing was paired, so the interval is the widest that the two runs' own spreads allow: p10 over p90 to p90
        over p10. Raises as :meth:`entry`.
        """
        then = timing(self.entry(artifact), runtime)
        if then is None:
            return None
        return Interval(then.median_ms / now.median_ms, then.p10_ms / now.p90_ms, then.p90_ms / now.p10_ms)
