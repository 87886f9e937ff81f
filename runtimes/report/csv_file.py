"""The record as CSV (RFC 4180): a line per artifact and runtime, numbers unrounded, an empty field for none."""

from __future__ import annotations

import csv
from collections.abc import Mapping
from io import StringIO
from typing import Any

from .rows import COLUMNS, flat_rows


def to_csv(record: Mapping[str, Any]) -> str:
    """Return the record's artifacts as CSV with a heading."""
    text = StringIO()
    writer = csv.DictWriter(text, COLUMNS)
    writer.writeheader()
    writer.writerows(flat_rows(record["artifacts"]))
    return text.getvalue()
