"""docs/methods.md, from the catalogue: every method as the papers' summary tables have it, then one entry each."""

from __future__ import annotations

from typing import Any

HEAD = """# Methods

Generated from the catalogue by `compress methods --markdown`. A method is a declaration: where the mask comes from
(k1), where the weights (k2), what is trained after (f3), what stands where the mask is 0 (chi). `compress methods NAME`
prints one of them; options go into a recipe's `options` or to `--option NAME=VALUE`. Where a method does not go with a
structure, allocation or schedule, the reason is given when it is asked for.
"""

_MOMENT = {"initial": "0", "early": "t", "final": "K", "current": "live", None: "-"}


def methods_page() -> str:
    """Return the page as Markdown."""
    from ...compressor.methods import METHODS
    from .listing import describe_method

    declared = [describe_method(method) for method in METHODS.values()]
    lines = [HEAD]
    for paradigm in dict.fromkeys(entry["paradigm"] for entry in declared):
        entries = [entry for entry in declared if entry["paradigm"] == paradigm]
        lines += [f"## {paradigm}", "", *_table(entries), ""]
        for entry in entries:
            lines += _entry(entry)
    return "\n".join(lines).rstrip() + "\n"


def _table(entries: list[dict[str, Any]]) -> list[str]:
    rows = [
        "| "
        + " | ".join(
            [
                f"`{entry['name']}`",
                f"{_MOMENT[entry['mask_from']]} -> {_MOMENT[entry['weights_from']]}",
                entry["score"] or ", ".join(entry["transforms"]) or "-",
                entry["structures"][0],
                entry["allocations"][0],
                entry["schedules"][0],
                ", ".join(entry["needs"]) or "weights",
                "yes" if entry["trains_after"] else "no",
            ]
        )
        + " |"
        for entry in entries
    ]
    head = "| method | k1 -> k2 | score | structure | allocation | schedule | needs | trained after |"
    return [head, "|---|---|---|---|---|---|---|---|", *rows]


def _entry(entry: dict[str, Any]) -> list[str]:
    lines = [f"### {entry['name']}", "", entry["summary"], "", f"{entry['paper']}.", ""]
    facts = {
        "structures": ", ".join(entry["structures"]),
        "allocations": ", ".join(entry["allocations"]),
        "schedules": ", ".join(entry["schedules"]),
        "looks at": ", ".join(entry["evidence"]),
        "trained before the mask with": entry["prepares"] if entry["prepares"] != "none" else "",
        "units ranked by": entry["saliency"],
        "transforms": ", ".join(entry["transforms"]),
        "training": ", ".join(f"{key} {value}" for key, value in entry["training"].items()),
    }
    lines += [f"- {name}: {text}" for name, text in facts.items() if text]
    for option in entry["options"]:
        lines.append(f"- `{option['name']}` = {option['default']}, {_escaped(option['allowed'])}: {option['doc']}")
    return [*lines, ""]


def _escaped(text: str) -> str:
    return text.replace(" | ", ", ")
