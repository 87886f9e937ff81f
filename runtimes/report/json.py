"""The measurement record as JSON text: readable, strict (no NaN, no infinity), the same keys in the same order."""

from __future__ import annotations

import json
from typing import Any


def to_json(record: dict[str, Any]) -> str:
    """Return the record, indented, with a final newline."""
    return json.dumps(record, indent=2, ensure_ascii=False, allow_nan=False) + "\n"
