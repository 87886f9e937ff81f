"""How the numbers came about: machine, versions, files with their hashes, recipe, command, notes."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..notes import notes
from ..units import human_bytes
from .markup import Cell, folded, paragraph, preformatted, sentences, table


def part(record: Mapping[str, Any], recipe: str | None, command: str | None) -> str:
    """Return the section's body."""
    files = table(
        ("artifact", "file", "SHA-256"),
        [(Cell(a["artifact"]), Cell(a["path"]), Cell(a["sha256"])) for a in record["artifacts"]],
    )
    parts = [sentences(notes(record["artifacts"])), _environment(record["environment"])]
    if command is not None:
        versions = record["environment"]["versions"]
        wanted = " ".join(f"{name}=={version}" for name, version in versions.items() if version is not None)
        parts.append(paragraph("The same again:"))
        parts.append(preformatted(f"pip install {wanted}\n{command}"))
    if recipe is not None:
        parts.append(folded("recipe, every default filled in", preformatted(recipe)))
    return "".join([*parts, folded("files and hashes", files)])


def _environment(environment: Mapping[str, Any]) -> str:
    rows = []
    for name, value in environment.items():
        if name == "versions":
            rows += [(Cell(library), Cell(version)) for library, version in value.items() if version is not None]
        elif value is not None:
            rows.append((Cell(name.replace("_", " ")), Cell(_shown(name, value))))
    return folded("machine and versions", table(("", ""), rows))


def _shown(name: str, value: Any) -> str:
    if isinstance(value, list):
        return ", ".join(map(str, value))
    return human_bytes(value) if name.endswith("_bytes") else str(value)
