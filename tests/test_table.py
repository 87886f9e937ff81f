"""Reports: what people and programs are shown, from a record made by hand."""

import json
from typing import Any

import pytest

from sparsepack.runtimes.report.json import to_json
from sparsepack.runtimes.report.table import render
from sparsepack.runtimes.report.units import digits, human_bytes, percent, ratio


def latency(**changes: Any) -> dict[str, Any]:
    entry = {
        "median_ms": 1.234,
        "p10_ms": 1.2,
        "p90_ms": 1.55,
        "runs": 500,
        "warmup": 20,
        "threads": 2,
        "batch": 1,
        "load_ms": 12.0,
        "peak_rss_bytes": 123_000_000,
        "speedup": 0.31,
        "speedup_low": 0.3,
        "speedup_high": 0.33,
        "baseline_runtime": "onnxruntime-cpu",
        "layers": [],
        "notes": [],
    }
    return {**entry, **changes}


def record() -> dict[str, Any]:
    storage = {
        "bytes": 105_000,
        "dense_bytes": 1_066_440,
        "zipped_dense_bytes": 130_000,
        "entropy_bound_bytes": 100_000.0,
        "size_ratio": 10.157,
        "size_ratio_zipped": 1.238,
        "sparsity": 0.9,
    }
    common: dict[str, Any] = {"path": "x", "sha256": "0", "training": None, "regressions": []}
    return {
        "schema": "sparsepack.measurement/1",
        "environment": {
            "cpu": "A processor",
            "threads": 2,
            "cores_usable": 4,
            "versions": {"sparsepack": "0.1.0", "torch": None},
        },
        "artifacts": [
            {
                **common,
                "artifact": "magnitude-90/packed",
                "format": "packed",
                "storage": storage,
                "latency": {"torch-cuda": {"unavailable": "PyTorch finds no CUDA device"}},
                "accuracy": {
                    "metric": "top-1",
                    "value": 0.9721,
                    "baseline": 0.98,
                    "drop": 0.0079,
                    "runtime": "torch-cpu",
                },
                "parity": {"error": 0.0},
                "notes": [],
            },
            {
                **common,
                "artifact": "magnitude-90/csr",
                "format": "csr",
                "storage": {**storage, "bytes": 250_000},
                "latency": {
                    "torch-sparse-csr-cpu": latency(notes=["linear layers only: 3 of 3 pruned tensors run sparse."]),
                    "torch-cuda": {"unavailable": "PyTorch finds no CUDA device"},
                },
                "accuracy": None,
                "parity": {"error": 7.5e-7},
                "notes": ["no accuracy: [brackets] are text, not markup."],
            },
        ],
        "failed": [],
        "requirements": [
            {
                "expression": "storage.size_ratio>=8",
                "artifact": "magnitude-90/packed",
                "value": 10.157,
                "met": True,
                "reason": None,
            },
            {
                "expression": "accuracy.drop<=0.001",
                "artifact": "magnitude-90/packed",
                "value": 0.0079,
                "met": False,
                "reason": None,
            },
            {
                "expression": "speedup>=0.31",
                "artifact": "magnitude-90/csr",
                "value": 0.31,
                "met": None,
                "reason": "the 95 % interval straddles",
            },
        ],
    }


def row(text: str, start: str) -> str:
    return next(line for line in text.splitlines() if line.strip().startswith(start))


def test_the_table_says_everything_in_100_columns_of_plain_text() -> None:
    text = render(record(), colour=False)
    assert max(map(len, text.splitlines())) <= 100
    assert "\x1b" not in text
    packed = row(text, "magnitude-90/packed")
    for expected in ("90.0 %", "105 kB", "10.2x", "1.24x", "+5.0 %", "97.2 %", "+0.8", "0"):
        assert expected in packed
    timed = next(line for line in text.splitlines() if "torch-sparse-csr-cpu " in line and "ms" not in line)
    assert "ms [p10-p90]" in text
    for expected in ("1.23 [1.2-1.6]", "0.31x (0.30-0.33)", "12.0", "123 MB"):
        assert expected in timed
    assert "A processor, threads 2 of 4 cores; sparsepack 0.1.0" in text


def test_every_reason_stands_below_once_with_the_artifacts_it_is_about() -> None:
    text = render(record(), colour=False, width=200)
    assert "* torch-cuda did not run: PyTorch finds no CUDA device. [magnitude-90/packed, magnitude-90/csr]" in text
    assert "* torch-sparse-csr-cpu: linear layers only: 3 of 3 pruned tensors run sparse. [magnitude-90/csr]" in text
    assert "* no accuracy: [brackets] are text, not markup. [magnitude-90/csr]" in text


def test_a_note_about_many_artifacts_counts_them() -> None:
    many = record()
    for number in range(4):
        many["artifacts"].append({**many["artifacts"][0], "artifact": f"more-{number}"})
    text = render(many, colour=False, width=200)
    assert "no CUDA device. [magnitude-90/packed, magnitude-90/csr, more-0 and 3 more]" in text


def test_a_baseline_on_another_runtime_is_said() -> None:
    text = render(record(), colour=False, width=200)
    assert "* torch-sparse-csr-cpu: speedup over the baseline on onnxruntime-cpu. [magnitude-90/csr]" in text


def test_fast_networks_are_shown_in_microseconds() -> None:
    fast = record()
    fast["artifacts"][1]["latency"]["torch-sparse-csr-cpu"].update(median_ms=0.0525, p10_ms=0.0494, p90_ms=0.11)
    text = render(fast, colour=False)
    assert "µs [p10-p90]" in text
    assert "52.5 [49-110]" in text


def test_requirements_are_met_not_met_or_open() -> None:
    text = render(record(), colour=False, width=160)
    assert row(text, "met").split()[:3] == ["met", "storage.size_ratio>=8", "magnitude-90/packed"]
    assert "0.0079" in row(text, "NOT MET")
    assert "0.31: the 95 % interval straddles" in row(text, "open")


def test_a_long_reason_never_hides_which_artifact_it_is_about() -> None:
    long = record()
    long["requirements"][2]["reason"] = "the 95 % interval 0.997 to 1.020 straddles 1: inconclusive " * 3
    text = render(long, colour=False)
    assert max(map(len, text.splitlines())) <= 100
    assert "magnitude-90/csr" in row(text, "open")


def test_without_timings_and_requirements_their_tables_are_left_out() -> None:
    bare = record()
    bare["requirements"] = []
    for artifact in bare["artifacts"]:
        artifact["latency"] = {}
    text = render(bare, colour=False)
    assert "latency" not in text
    assert "requirement" not in text


def test_a_terminal_gets_colours() -> None:
    assert "\x1b[" in render(record(), colour=True, width=100)


def test_missing_values_are_dashes() -> None:
    bare = record()
    bare["artifacts"][1]["latency"]["torch-sparse-csr-cpu"] = latency(
        speedup=None, speedup_low=None, speedup_high=None, load_ms=None, peak_rss_bytes=None, batch=8
    )
    bare["artifacts"][1]["parity"] = None
    text = render(bare, colour=False, width=140)
    timed = next(line for line in text.splitlines() if "torch-sparse-csr-cpu, batch 8" in line)
    assert timed.split()[-3:] == ["-", "-", "-"]
    assert row(text, "magnitude-90/csr").split()[-3:] == ["-", "-", "-"]


def test_json_is_strict() -> None:
    assert json.loads(to_json(record())) == record()
    broken = record()
    broken["artifacts"][0]["parity"]["error"] = float("nan")
    with pytest.raises(ValueError, match="not JSON compliant"):
        to_json(broken)


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.00 kB"),
        (1_066_440, "1.07 MB"),
        (999_600, "1.00 MB"),
        (123_456, "123 kB"),
        (5 * 10**15, "5000 TB"),
    ],
)
def test_bytes(count: int, text: str) -> None:
    assert human_bytes(count) == text


@pytest.mark.parametrize(
    ("share", "decimals", "text"),
    [
        (0.972, 1, "97.2 %"),
        (0.999, 1, "99.9 %"),
        (0.9999, 1, "99.99 %"),
        (1 - 1 / 50_200, 1, "99.998 %"),
        (1 - 1 / 50_200, 2, "99.998 %"),
        (0.9999, 2, "99.99 %"),
        (0.999, 0, "99.9 %"),
        (1.0, 1, "100.0 %"),
        (1.2, 0, "120 %"),
    ],
)
def test_a_share_short_of_the_whole_is_no_hundred_per_cent(share: float, decimals: int, text: str) -> None:
    assert percent(share, decimals) == text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.01234, "0.0123"),
        (1.234, "1.23"),
        (9.996, "10.0"),
        (12.34, "12.3"),
        (123.4, "123"),
        (1234.5, "1234"),
        (-0.5, "-0.500"),
    ],
)
def test_three_significant_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_ratios_and_shares() -> None:
    assert ratio(8.314) == "8.31x"
    assert percent(0.9725) == "97.2 %"
    assert percent(1.0, 0) == "100 %"


def test_the_summary_is_one_table_with_the_median_of_each_artifact() -> None:
    text = render(record(), summary=True, colour=False)
    assert max(map(len, text.splitlines())) <= 100
    assert text.count("vs dense  ") == 1 and "[p10-p90]" not in text
    assert row(text, "magnitude-90/packed").split()[-2:] == ["-", "-"]
    assert row(text, "magnitude-90/csr").split()[-2:] == ["1.23", "0.31x"]
    assert "* timed on torch-sparse-csr-cpu. [magnitude-90/csr]" in text


def test_a_long_name_does_not_hide_the_verdict() -> None:
    plain = record()
    name = 90 * "long-"
    plain["artifacts"][0]["artifact"] = name
    plain["requirements"] = [
        {"expression": "storage.size_ratio>=99", "artifact": name, "value": 10.157, "met": False, "reason": None}
    ]
    text = render(plain, width=80)
    assert "NOT MET" in text
    assert "10.16" in text
    assert max(map(len, text.splitlines())) <= 80
