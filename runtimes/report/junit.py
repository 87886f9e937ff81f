"""The record as JUnit XML, which every continuous integration shows: a test case per requirement and artifact."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from xml.etree import ElementTree

_SUITE = "sparsepack"


def to_junit(record: Mapping[str, Any], *, allow_inconclusive: bool = False) -> str:
    """Return the requirements as a JUnit file; without any, one passed case per artifact says that it was measured.

    A run that failed is a case in error.

    A requirement that is open fails as it does for the exit code: always where nothing was measured, and within the
    noise unless ``allow_inconclusive``, when it is skipped.

    Args:
        record: a measurement record, as plain data.
        allow_inconclusive: as given to ``compress measure``.
    """
    requirements = record["requirements"]
    suite = ElementTree.Element("testsuite", name=_SUITE)
    counts = {"failure": 0, "skipped": 0}
    for entry in requirements:
        case = ElementTree.SubElement(suite, "testcase", classname=entry["artifact"], name=entry["expression"])
        measured = "not measured" if entry["value"] is None else f"measured {entry['value']:.6g}"
        message = f"{measured}: {entry['reason']}" if entry["reason"] else measured
        kind = _outcome(entry, allow_inconclusive)
        if kind is None:
            ElementTree.SubElement(case, "system-out").text = message
        else:
            counts[kind] += 1
            ElementTree.SubElement(case, kind, message=message)
    if not requirements:
        for artifact in record["artifacts"]:
            ElementTree.SubElement(suite, "testcase", classname=artifact["artifact"], name="measured")
    for entry in record["failed"]:
        case = ElementTree.SubElement(suite, "testcase", classname=entry["run"], name="run")
        ElementTree.SubElement(case, "error", message=entry["error"])
    suite.set("tests", str(len(suite)))
    suite.set("errors", str(len(record["failed"])))
    suite.set("failures", str(counts["failure"]))
    suite.set("skipped", str(counts["skipped"]))
    root = ElementTree.Element("testsuites")
    root.append(suite)
    ElementTree.indent(root)
    return '<?xml version="1.0" encoding="UTF-8"?>\n' + ElementTree.tostring(root, encoding="unicode") + "\n"


def _outcome(entry: Mapping[str, Any], allow_inconclusive: bool) -> str | None:
    if entry["met"]:
        return None
    noise = entry["met"] is None and entry["value"] is not None
    return "skipped" if noise and allow_inconclusive else "failure"
