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
from .subject import Subject


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

    def entry(self, subject: Subject) -> LooseArtifact:
        """Return the earlier record of an artifact.

        It is the one of the same name; or of the name that ``compress run`` gives to a file of a run's folder
        (``run/packed`` for ``OUT/run/packed.spk``); or the only one.

        Raises:
            UsageError: the record holds several artifacts and none of these names, or the artifact of another network.
        """
        path = subject.artifact.path.resolve()
        names = (subject.name, f"{path.parent.name}/{path.stem}", *(self._entries if len(self._entries) == 1 else ()))
        found = next((self._entries[name] for name in names if name in self._entries), None)
        if found is None:
            raise UsageError(
                f"{self.path} holds no artifact '{subject.name}' to compare with; it holds "
                f"{', '.join(self._entries) or 'none'}."
            )
        if not {row.name for row in found.storage.tensors} & set(subject.artifact.names()):
            raise UsageError(
                f"the artifact '{found.artifact}' in {self.path} is one of another network: no tensor's name is one of "
                f"{subject.name}'s; give a baseline of the same network."
            )
        return found

    def accuracy(self, subject: Subject) -> float | None:
        """Return the earlier accuracy of the artifact, None when not measured; raises as :meth:`entry`."""
        accuracy = self.entry(subject).accuracy
        return accuracy.value if accuracy else None

    def speedup(self, subject: Subject, runtime: str, now: Latency) -> Interval | None:
        """Return the earlier time over this one, or None when that runtime was not measured then.

        Nothing was paired, so the interval is the widest that the two runs' own spreads allow: p10 over p90 to p90
        over p10. Raises as :meth:`entry`.
        """
        then = timing(self.entry(subject), runtime)
        if then is None:
            return None
        return Interval(then.median_ms / now.median_ms, then.p10_ms / now.p90_ms, then.p90_ms / now.p10_ms)
