"""Reading a measurement record back: checked to the last field, so that whoever uses it need not be careful."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec

from ...errors import FileFormatError
from ...files import decoded_json
from .record import SCHEMA, ArtifactRecord, Latency, Measurement, Unavailable, to_plain


class LooseArtifact(ArtifactRecord, frozen=True):
    """An artifact's record whose latency entries are checked one by one: one field tells the two kinds apart."""

    latency: dict[str, Any]


class LooseMeasurement(Measurement, frozen=True):
    """The whole record of such artifacts."""

    artifacts: list[LooseArtifact]  # type: ignore[assignment]  # narrower, and records are never written to


def read_record(path: Path) -> dict[str, Any]:
    """Read a measurement record as plain data, with every field of this release.

    Raises:
        FileFormatError: it cannot be read, is of another version, or lacks what a record has.
    """
    try:
        plain = decoded_json(path.read_bytes())
        # Python reads NaN and Infinity, which JSON has not and no number of a record is.
        json.dumps(plain, allow_nan=False)
    except OSError as error:
        raise FileFormatError(f"cannot read {path}: {error.strerror or error}.") from error
    except (ValueError, RecursionError) as error:
        raise FileFormatError(f"{path} is no measurement record: it is not JSON ({error}).") from error
    schema = plain.get("schema") if isinstance(plain, dict) else None
    if schema != SCHEMA:
        raise FileFormatError(f"{path} is no measurement record of schema {SCHEMA} (its schema: {schema}).")
    try:
        whole = msgspec.convert(plain, LooseMeasurement)
        for artifact in whole.artifacts:
            for runtime, entry in artifact.latency.items():
                artifact.latency[runtime] = timing(artifact, runtime) or msgspec.convert(entry, Unavailable)
    except msgspec.ValidationError as error:
        raise FileFormatError(f"{path} is a damaged measurement record: {error}.") from error
    return dict(to_plain(whole))


def timing(artifact: LooseArtifact, runtime: str) -> Latency | None:
    """Return the times of an artifact on one runtime; None where it did not run there.

    Raises:
        msgspec.ValidationError: the entry is malformed.
    """
    entry = artifact.latency.get(runtime)
    if entry is None or (isinstance(entry, dict) and "unavailable" in entry):
        return None
    return msgspec.convert(entry, Latency)
