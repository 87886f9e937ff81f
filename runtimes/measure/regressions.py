"""What became worse since an earlier record, named where it happened: file, tensors, nodes of the graph, accuracy.

Bytes do not vary from run to run, so any growth counts that is more than rounding of a header; times do, so a node must
be slower by a tenth to be named, and accuracy lower by a tenth of a point.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from .reading import LooseArtifact, timing
from .record import ArtifactRecord, Latency

# A tensor counts that grew by more than both; a node that did by more than both.
BYTES, BYTES_SHARE = 16, 0.01
MILLISECONDS, MILLISECONDS_SHARE = 0.005, 0.1
ACCURACY = 0.001
# The worst of each kind; more are counted.
LISTED = 10


def regressions(now: ArtifactRecord, then: LooseArtifact) -> list[str]:
    """Return what is worse than it was, the worst of each kind first.

    Args:
        now: an artifact's record.
        then: the earlier one that it is compared with.
    """
    found = []
    if _grew(now.storage.bytes, then.storage.bytes, BYTES, BYTES_SHARE):
        found.append(f"the file takes {now.storage.bytes} bytes, {then.storage.bytes} before ({_more(now, then)}).")
    sizes = {row.name: row.bytes for row in then.storage.tensors}
    grown = [
        (row.bytes - sizes[row.name], f"tensor '{row.name}' takes {row.bytes} bytes, {sizes[row.name]} before.")
        for row in now.storage.tensors
        if row.name in sizes and _grew(row.bytes, sizes[row.name], BYTES, BYTES_SHARE)
    ]
    added = [
        (row.bytes, f"tensor '{row.name}' takes {row.bytes} bytes and was not there before.")
        for row in now.storage.tensors
        if row.name not in sizes and row.bytes > 0
    ]
    found += _worst([*grown, *added], "tensors")
    for runtime, entry in now.latency.items():
        before = timing(then, runtime)
        if isinstance(entry, Latency) and before is not None:
            found += _slower(runtime, entry, before)
    if now.accuracy is not None and then.accuracy is not None:
        lost = then.accuracy.value - now.accuracy.value
        if lost > ACCURACY:
            found.append(f"accuracy is {100 * now.accuracy.value:.2f} %, {100 * then.accuracy.value:.2f} % before.")
    return found


def _slower(runtime: str, now: Latency, then: Latency) -> list[str]:
    if (now.threads, now.batch) != (then.threads, then.batch):
        return []
    found = []
    # The two runs' own spreads decide, because nothing was paired.
    if now.p10_ms > then.p90_ms:
        found.append(f"{runtime} takes {now.median_ms:.4g} ms a run, {then.median_ms:.4g} ms before.")
    before: Mapping[str, float] = {layer["name"]: layer["ms"] for layer in then.layers}
    slower = [
        (
            layer["ms"] - before[layer["name"]],
            f"{runtime}: node '{layer['name']}' takes {layer['ms']:.4g} ms, {before[layer['name']]:.4g} ms before.",
        )
        for layer in now.layers
        if layer["name"] in before and _grew(layer["ms"], before[layer["name"]], MILLISECONDS, MILLISECONDS_SHARE)
    ]
    return found + _worst(slower, f"nodes on {runtime}")


def _grew(now: float, then: float, least: float, share: float) -> bool:
    return now - then > least and now > then * (1 + share)


def _more(now: ArtifactRecord, then: LooseArtifact) -> str:
    return f"{100 * (now.storage.bytes / then.storage.bytes - 1):+.1f} %"


def _worst(found: Sequence[tuple[float, str]], kind: str) -> list[str]:
    ordered = [sentence for _, sentence in sorted(found, key=lambda pair: -pair[0])]
    more = len(ordered) - LISTED
    return ordered[:LISTED] + ([f"{more} more {kind} became worse."] if more > 0 else [])
