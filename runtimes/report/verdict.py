"""The verdict on a network that runs sparse, in one line: bytes, latency against dense and int8, parity, accuracy.

Dense is the baseline that the record was measured with; int8 is the statically quantised artifact of the same run,
each timed beside that baseline, so that the two compare through it. What was not measured is said, not left out.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from .rows import fastest
from .units import digits, human_bytes, percent

SPARSE, INT8 = "onnx-sparse", "onnx-int8"


def verdicts(artifacts: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return a line for every artifact that runs sparse."""
    return [_verdict(artifact, artifacts) for artifact in artifacts if artifact["format"] == SPARSE]


def _verdict(artifact: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]) -> str:
    storage = artifact["storage"]
    size = f"{human_bytes(storage['bytes'])} ({storage['size_ratio']:.2f}x smaller than dense)"
    parts = [size, _latency(artifact, artifacts), _parity(artifact["parity"]), _accuracy(artifact["accuracy"])]
    return f"verdict on {artifact['artifact']}: {'; '.join(parts)}."


def _latency(artifact: Mapping[str, Any], artifacts: Sequence[Mapping[str, Any]]) -> str:
    mine = fastest(artifact)
    if mine is None:
        reasons = [entry["unavailable"] for entry in artifact["latency"].values()]
        return f"latency not measured ({reasons[0]})" if reasons else "latency not measured"
    parts = [f"{digits(mine['median_ms'])} ms, {_against_dense(mine)}"]
    run = _run(artifact)
    other = next((found for found in artifacts if found["format"] == INT8 and _run(found) == run), None)
    theirs = None if other is None else fastest(other)
    if theirs is None:
        parts.append(
            f"int8 not measured (add the format {INT8} to the exports)" if other is None else "int8 did not run"
        )
    else:
        parts.append(_compared(_ratio(mine, theirs), "int8"))
    return ", ".join(parts)


def _against_dense(entry: Mapping[str, Any]) -> str:
    if entry["speedup"] is None:
        return "dense not measured beside it"
    text = _compared(entry["speedup"], "dense")
    if entry["speedup_low"] is not None and entry["speedup_low"] <= 1 <= entry["speedup_high"]:
        return f"{text} (within the noise)"
    return text


def _compared(ratio: float, name: str) -> str:
    return f"{ratio:.2f}x faster than {name}" if ratio >= 1 else f"{1 / ratio:.2f}x slower than {name}"


def _ratio(mine: Mapping[str, Any], theirs: Mapping[str, Any]) -> float:
    """Return their time over mine; through the common baseline where there is one, whose runs were interleaved."""
    if mine["speedup"] is not None and theirs["speedup"] is not None:
        return float(mine["speedup"] / theirs["speedup"])
    return float(theirs["median_ms"] / mine["median_ms"])


def _parity(parity: Mapping[str, Any] | None) -> str:
    if parity is None or parity["error"] is None:
        return "parity not measured"
    return f"parity {parity['error']:.0e}"


def _accuracy(accuracy: Mapping[str, Any] | None) -> str:
    if accuracy is None:
        return "accuracy not measured (no data)"
    text = f"accuracy {percent(accuracy['value'])}"
    return text if accuracy["drop"] is None else f"{text} ({-100 * accuracy['drop']:+.1f} points against the baseline)"


def _run(artifact: Mapping[str, Any]) -> str:
    """Return the run of an artifact of a recipe, ``RUN/FORMAT``; artifacts measured by themselves belong together."""
    name: str = artifact["artifact"]
    return name.rpartition("/")[0]
