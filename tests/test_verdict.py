"""The one line on a network that runs sparse: every number of it comes from the record, and what is missing is said."""

from typing import Any

import pytest

from sparsepack.runtimes.report.verdict import verdicts


def entry(median: float, speedup: float | None, low: float | None = None, high: float | None = None) -> dict[str, Any]:
    return {"median_ms": median, "speedup": speedup, "speedup_low": low or speedup, "speedup_high": high or speedup}


def artifact(name: str, format: str, latency: dict[str, Any], **more: Any) -> dict[str, Any]:
    storage = {"bytes": 12_000_000, "size_ratio": 8.5}
    return {
        "artifact": name,
        "format": format,
        "storage": storage,
        "latency": latency,
        "parity": None,
        "accuracy": None,
        **more,
    }


SPARSE = artifact(
    "r90/onnx-sparse",
    "onnx-sparse",
    {"onnxruntime-sparse-cpu": entry(16.0, 4.5, 4.4, 4.6)},
    parity={"error": 2.1e-6},
    accuracy={"value": 0.755, "drop": 0.012},
)
INT8 = artifact("r90/onnx-int8", "onnx-int8", {"onnxruntime-cpu": entry(24.0, 3.0)})


def test_it_says_everything_that_was_measured() -> None:
    (line,) = verdicts([SPARSE, INT8, artifact("other/onnx-int8", "onnx-int8", {"onnxruntime-cpu": entry(1.0, 99.0)})])
    assert line.startswith("verdict on r90/onnx-sparse: ")
    # 4.5 over 3.0: both were timed beside the dense baseline.
    for part in ("8.50x smaller", "16.0 ms", "4.50x faster than dense", "1.50x faster than int8", "parity 2e-06"):
        assert part in line
    assert "accuracy 75.5 % (-1.2 points against the baseline)" in line


def test_slower_is_called_slower() -> None:
    slow = {**SPARSE, "latency": {"onnxruntime-sparse-cpu": entry(50.0, 0.5, 0.4, 0.6)}}
    (line,) = verdicts([slow, INT8])
    assert "2.00x slower than dense" in line
    assert "6.00x slower than int8" in line
    (line,) = verdicts([{**SPARSE, "latency": {"onnxruntime-sparse-cpu": entry(50.0, 1.01, 0.9, 1.1)}}])
    assert "1.01x faster than dense (within the noise)" in line


@pytest.mark.parametrize(
    ("changes", "others", "text"),
    [
        ({}, [], "int8 not measured (add the format onnx-int8 to the exports)"),
        ({}, [{**INT8, "latency": {"onnxruntime-cpu": {"unavailable": "no"}}}], "int8 did not run"),
        ({"parity": None}, [], "parity not measured"),
        ({"accuracy": None}, [], "accuracy not measured (no data)"),
        ({"latency": {"a": {"unavailable": "no compiler"}}}, [INT8], "latency not measured (no compiler)"),
        ({"latency": {"a": entry(8.0, None)}}, [INT8], "dense not measured beside it, 3.00x faster than int8"),
    ],
)
def test_what_is_missing_is_said(changes: dict[str, Any], others: list[dict[str, Any]], text: str) -> None:
    (line,) = verdicts([{**SPARSE, **changes}, *others])
    assert text in line


def test_other_formats_get_none() -> None:
    assert verdicts([INT8]) == []
