"""What a report says first: the smallest and the fastest artifact that cost at most a point of accuracy, in sentences.

Where accuracy was not measured nothing is left out for it, and the sentence says so.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .rows import fastest, requirement_counts
from .units import digits, human_bytes, percent, ratio
from .verdict import verdicts

POINTS = 1.0
NOTHING = "Nothing was measured: no run has an artifact; 'export: [{format: packed}]' asks for one."


def headlines(record: Mapping[str, Any]) -> list[str]:
    """Return the first sentences: what failed, requirements, smallest, fastest, then each network that runs sparse."""
    artifacts = record["artifacts"]
    sentences: list[str | None] = [*failure_lines(record)]
    if record["requirements"]:
        sentences.append(requirements_sentence(record["requirements"]))
    if len(artifacts) > 1:
        kept = [artifact for artifact in artifacts if _harmless(artifact)]
        sentences += [_smallest(kept, artifacts), _fastest(kept, artifacts)] if kept else [_none_harmless()]
    else:
        sentences += [_size(artifacts[0])] if artifacts else empty_lines(record)
    worse = [artifact["artifact"] for artifact in artifacts if artifact["regressions"]]
    if worse:
        sentences.append(f"Worse than the earlier record: {', '.join(worse)}; the regressions are listed below.")
    return [sentence for sentence in sentences if sentence is not None] + verdicts(artifacts)


def failure_lines(record: Mapping[str, Any]) -> list[str]:
    """Return a sentence for every run that failed."""
    return [f"The run '{entry['run']}' failed: {entry['error']}" for entry in record["failed"]]


def empty_lines(record: Mapping[str, Any]) -> list[str]:
    """Return what a record without artifacts says, unless runs that failed say why there are none."""
    return [] if record["artifacts"] or record["failed"] else [NOTHING]


def regression_lines(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return what became worse than in the earlier record, with the artifact's name before it."""
    return [f"{artifact['artifact']}: {line}" for artifact in artifacts for line in artifact["regressions"]]


def requirements_sentence(requirements: Sequence[Mapping[str, Any]]) -> str:
    """Return how many requirements are met, not met or left open."""
    met, unmet, open_ = requirement_counts(requirements)
    text = f"{met} of {len(requirements)} requirements met"
    text += f", {unmet} not met" if unmet else ""
    return text + (f", {open_} open." if open_ else ".")


def _harmless(artifact: Mapping[str, Any]) -> bool:
    accuracy = artifact["accuracy"]
    return accuracy is None or accuracy["drop"] is None or 100 * accuracy["drop"] <= POINTS


def _none_harmless() -> str:
    return f"Every artifact lost more than {POINTS:g} point of accuracy against the baseline."


def _which(kept: Sequence[Any], artifacts: Sequence[Any]) -> str:
    judged = any(artifact["accuracy"] and artifact["accuracy"]["drop"] is not None for artifact in artifacts)
    if not judged:
        return ""
    return f" of those within {POINTS:g} point of the baseline's accuracy" if len(kept) < len(artifacts) else ""


def _smallest(kept: Sequence[Mapping[str, Any]], artifacts: Sequence[Mapping[str, Any]]) -> str:
    best = min(kept, key=lambda artifact: int(artifact["storage"]["bytes"]))
    return f"Smallest{_which(kept, artifacts)}: {_size(best)}"


def _size(artifact: Mapping[str, Any]) -> str:
    storage, accuracy = artifact["storage"], artifact["accuracy"]
    text = (
        f"{artifact['artifact']}, {human_bytes(storage['bytes'])}, {ratio(storage['size_ratio'])} smaller than dense "
        f"and {ratio(storage['size_ratio_zipped'])} smaller than dense zipped"
    )
    return f"{text}; accuracy {percent(accuracy['value'])}." if accuracy else f"{text}."


def _fastest(kept: Sequence[Mapping[str, Any]], artifacts: Sequence[Mapping[str, Any]]) -> str | None:
    timed = [(artifact, entry) for artifact in kept if (entry := fastest(artifact)) is not None]
    if not timed:
        return None
    artifact, entry = min(timed, key=lambda pair: float(pair[1]["median_ms"]))
    text = f"Fastest{_which(kept, artifacts)}: {artifact['artifact']}, {digits(entry['median_ms'])} ms a run"
    if entry["speedup"] is None:
        return f"{text}."
    low, high = entry["speedup_low"], entry["speedup_high"]
    interval = "" if low is None else f" ({low:.2f} to {high:.2f})"
    noise = ", which is within the noise" if low is not None and low <= 1 <= high else ""
    return f"{text}, {entry['speedup']:.2f}x{interval} the baseline's speed{noise}."
