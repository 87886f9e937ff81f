"""The JSON schema of the measurement record, derived from the types that write it."""

from __future__ import annotations

import json
import sys
from typing import Any

import msgspec

from ..measure.reading import LooseMeasurement
from ..measure.record import SCHEMA, Latency, Unavailable


def record_schema() -> dict[str, Any]:
    """Return the schema (JSON Schema 2020-12) of what ``compress measure --json`` writes."""
    (whole, *kinds), components = msgspec.json.schema_components(
        (LooseMeasurement, Latency, Unavailable), ref_template="#/$defs/{name}"
    )
    components["LooseArtifact"]["properties"]["latency"]["additionalProperties"] = {"anyOf": kinds}
    for name in ("LooseMeasurement", "LooseArtifact"):
        components[name].pop("description", None)
    return {
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": SCHEMA,
        **whole,
        "$defs": components,
    }


def schema_text() -> str:
    """Return the schema as the file that stands in the documentation."""
    return json.dumps(record_schema(), indent=2, sort_keys=True) + "\n"


if __name__ == "__main__":
    sys.stdout.write(schema_text())
